"""The page in a real browser: a slip of the hand costs nothing, and what was done can be taken back."""

from __future__ import annotations

import json

from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from annotation_queue.effort import effort_of
from annotation_queue.records import Person, Role, State
from annotation_queue.tickets.rows import MASKLET
from storage import rle
from storage.records import Operation
from tests.annotation_queue.browsing import FRAMES, draft, is_disc
from tests.annotation_queue.synthetic_queue import candidate, centre, mask, track_ticket

CORNERS = ((100, 250), (200, 250), (200, 330), (100, 330))


def two_tickets(open_page, tickets):
    """A tab in which Ann corrects the first of two masklets."""
    tickets.open_batch("b", [track_ticket("track-1", frame_count=FRAMES), track_ticket("track-2", frame_count=FRAMES)])
    page = open_page()
    page.log_in("ann")
    page.correcting(8)
    return page


def is_current(page, ticket_id):
    page.until(lambda: page.ticket() == ticket_id)


# --- leaving a ticket ---------------------------------------------------------------------------------------------


def test_escape_drops_what_is_half_done_and_never_the_ticket(correcting, tickets):
    page = correcting(8)
    page.press("g")
    page.until(lambda: "Absent from 8" in page.text("#badges"))
    page.press("Escape", "Escape", "Escape")
    page.until(lambda: "Absent from" not in page.text("#badges"))
    page.press("ArrowRight")
    page.at(12)
    assert page.tab.get_attribute("body", "data-view") == "work" and tickets.ticket("track-1").state is State.LEASED


def test_a_ticket_that_was_left_by_mistake_is_taken_up_again(open_page, tickets):
    page = two_tickets(open_page, tickets)
    page.point(*centre(8))
    page.settled()
    button = page.tab.locator("#message-actions button", has_text="Undo")
    for again in (lambda: page.press("Backspace"), button.click):
        page.press("Shift+R")
        page.shows("message")
        assert "back in the queue" in page.text("#message")
        page.until(lambda: tickets.ticket("track-1").state is State.OPEN)
        again()
        is_current(page, "track-1")
        page.correcting(8)
        assert is_disc(draft(tickets).masks, 8) and "1 click" in page.text("#facts")
    page.press("Enter")
    page.until(lambda: tickets.ticket("track-1").state is State.DONE)


def test_a_ticket_that_another_person_took_meanwhile_stays_with_them(open_page, tickets):
    page = two_tickets(open_page, tickets)
    page.press("Shift+R")
    page.shows("message")
    page.until(lambda: tickets.ticket("track-1").state is State.OPEN)
    assert tickets.claim(Person(name="bob", roles=frozenset({Role.ANNOTATOR})), claim_id="bob", ticket_id="track-1")
    page.press("Backspace")
    is_current(page, "track-2")
    page.until(lambda: page.tab.is_visible("#notice"))
    assert tickets.ticket("track-1").leased_by == "bob"


# --- submitting ---------------------------------------------------------------------------------------------------


def test_enter_alone_submits_one_ticket_however_often_it_is_pressed(open_page, tickets):
    page = two_tickets(open_page, tickets)
    page.point(*centre(8))
    page.settled()
    page.press(*["Enter"] * 6)
    is_current(page, "track-2")
    page.press(*["Enter"] * 6)
    page.until(lambda: "Look at it before you submit it" in page.text("#notice"))
    page.tab.dblclick("#submit")
    page.settled()  # what these keys and clicks submit is at the queue
    assert tickets.ticket("track-1").state is State.DONE
    assert tickets.ticket("track-2").state is State.LEASED
    page.press("ArrowRight", "Enter")
    page.until(lambda: "Nothing was changed" in page.text("#notice"))
    page.press("Enter")
    page.until(lambda: tickets.ticket("track-2").state is State.DONE)


def test_a_held_enter_submits_once(open_page, tickets):
    page = two_tickets(open_page, tickets)
    page.point(*centre(8))
    page.settled()
    for _ in range(8):
        page.tab.keyboard.down("Enter")  # without a release, each one after the first is a repeat
    page.tab.keyboard.up("Enter")
    is_current(page, "track-2")
    page.settled()
    assert tickets.ticket("track-1").state is State.DONE
    assert tickets.ticket("track-2").state is State.LEASED


def test_enter_submits_nothing_while_something_is_half_done(correcting, tickets):
    page = correcting(8)
    page.press("p")
    for n, corner in enumerate(CORNERS[:2], start=1):
        page.point(*corner)
        page.press("Enter", "Enter")
        page.until(lambda n=n: f"{n} corner{'s' * (n > 1)} of at least 3" in page.text("#badges"))
    page.point(*CORNERS[2])
    page.press("Enter", "Enter")
    page.until(lambda: "nothing is submitted yet" in page.text("#notice"))
    page.press("Control+z", "g", "Enter", "Enter")
    page.until(lambda: "has no last frame yet" in page.text("#notice"))
    page.until(lambda: [o.kind for o in tickets.operations("track-1")] == ["stroke", "undo"])
    assert tickets.ticket("track-1").state is State.LEASED
    page.press("Escape")
    page.point(*CORNERS[0])
    page.point(*CORNERS[1])
    page.point(*CORNERS[2])
    page.press("Enter", "Enter", "Enter")
    page.until(lambda: tickets.ticket("track-1").state is State.DONE)


def test_a_submission_is_taken_back_while_the_next_ticket_is_on_screen(open_page, tickets):
    page = two_tickets(open_page, tickets)
    page.point(*centre(8))
    page.settled()
    page.press("Enter")
    is_current(page, "track-2")
    page.until(lambda: tickets.ticket("track-1").state is State.DONE)
    page.until(lambda: page.text("#save") == "Saved")
    page.press("Backspace")
    is_current(page, "track-1")
    page.correcting(8)
    assert "Taken back" in page.text("#notice") and is_disc(draft(tickets).masks, 8)
    assert tickets.ticket("track-1").state is tickets.ticket("track-2").state is State.LEASED
    page.point(*centre(8), button="right")
    page.settled()
    page.press("Enter")
    is_current(page, "track-2")
    page.until(lambda: tickets.ticket("track-1").state is State.DONE)
    kinds = [o.kind for o in tickets.operations("track-1")]
    assert kinds == ["prompt", "submit", "unsubmit", "prompt", "submit"]


# --- the polygon --------------------------------------------------------------------------------------------------


def test_a_polygon_says_how_it_goes_on_and_loses_one_corner_at_a_time(correcting, tickets):
    page = correcting(8)
    page.press("p")
    for n, corner in enumerate(CORNERS, start=1):
        page.point(*corner)
        says = f"{n} corner{'s' * (n > 1)} of at least 3" if n < 3 else "closes the polygon"
        page.until(lambda says=says: says in page.text("#badges"))
    page.press("Control+z")
    page.press("Enter")
    page.until(lambda: len(tickets.operations("track-1")) == 1)
    page.settled()
    triangle = draft(tickets).masks[8].area_px - 600
    assert abs(triangle - 100 * 80 / 2) < 200, "three corners are left of the four"
    page.point(*CORNERS[0])
    page.point(*CORNERS[1])
    page.press("Backspace")
    page.until(lambda: "1 corner of at least 3" in page.text("#badges"))
    page.press("Control+z")
    page.until(lambda: "Polygon" not in page.text("#badges"))
    page.press("Control+z")
    page.until(lambda: [o.kind for o in tickets.operations("track-1")] == ["stroke", "undo"])


# --- what is forgotten --------------------------------------------------------------------------------------------


def test_a_forgotten_prompt_takes_its_mask_along(correcting, tickets):
    page = correcting(8)
    before = draft(tickets).masks[8]
    page.point(*centre(8))
    page.settled()
    assert is_disc(draft(tickets).masks, 8) and page.look()["mask"] is not None
    shown = page.look()["mask"]
    page.press("Delete")
    page.until(lambda: page.look()["mask"] != shown)
    page.until(lambda: [o.kind for o in tickets.operations("track-1")] == ["prompt", "clear"])
    assert draft(tickets).masks[8] == before
    assert "0 frames" in page.text("#facts")


# --- counts -------------------------------------------------------------------------------------------------------

POINT = st.sampled_from([[1, 1], [2, 2], [3, 1]])
FEW = st.sampled_from([0, 4, 8])
PROMPT = st.fixed_dictionaries(
    {"points_xy": st.lists(POINT, max_size=3)}, optional={"box_xyxy": st.sampled_from([[1, 2, 3, 4], [1, 2, 3, 5]])}
)
ABOUT = st.fixed_dictionaries({"operation_id": st.integers(0, 9).map("o{}".format)})
ACTS = st.lists(
    st.one_of(
        st.tuples(st.just("prompt"), FEW, PROMPT),
        st.tuples(st.just("stroke"), FEW, st.just({"mask_rle": rle.encode(mask(0)).decode()})),
        st.tuples(st.sampled_from(["clear", "lock", "propagate"]), FEW, st.just({})),
        st.tuples(st.just("absent"), st.none(), st.fixed_dictionaries({"first": FEW, "last": FEW})),
        st.tuples(st.sampled_from(["undo", "redo"]), st.none(), ABOUT),
    ),
    max_size=14,
)


def sequences(count):
    """Generated sequences of operations; the same ones in every run."""
    found = []

    @settings(max_examples=count, database=None, derandomize=True, phases=[Phase.generate])
    @given(acts=ACTS)
    def collect(acts):
        found.append(acts)

    collect()
    return found


def test_the_page_counts_clicks_and_edited_frames_as_the_release_does(open_page):
    sent = [
        [
            {"operation_id": f"o{n}", "kind": kind, "frame_idx": frame, "payload": payload, "created_at": ""}
            for n, (kind, frame, payload) in enumerate(acts)
        ]
        for acts in sequences(300)
    ]
    seen = open_page().tab.evaluate(
        """async ([base, sequences]) => {
          const { Draft } = await import("/web/shared/draft.js");
          return sequences.map((operations) => {
            const draft = new Draft({}, base, base, base.frame_idx);
            for (const operation of operations) draft.add(operation);
            return [draft.clicks, draft.edited.size];
          });
        }""",
        [json.loads(MASKLET.dump_json(candidate("m"))), sent],
    )
    expected = []
    for acts in sent:
        done = [
            Operation(ticket_id="t", batch_id="b", video_id="v", masklet_id="m", person="ann", seq=n,
                      **(o | {"payload": json.dumps(o["payload"])}))
            for n, o in enumerate(acts)
        ]  # fmt: skip
        spent = effort_of(done, range(0, 48, 4)).values()
        expected.append([sum(e.clicks for e in spent), sum(e.edited_frames for e in spent)])
    assert seen == expected
    assert len({clicks for clicks, _ in expected}) > 5, "the sequences differ"


def test_an_undone_click_still_counts_on_the_page(correcting, tickets):
    page = correcting(8)
    x, y = centre(8)
    for at in ((x, y), (x + 5, y)):
        page.point(*at)
        page.settled()
    page.press("Control+z")
    page.settled()
    page.until(lambda: "2 clicks" in page.text("#facts"))
    page.press("Enter")
    page.until(lambda: tickets.ticket("track-1").state is State.DONE)
    assert tickets.masklet(tickets.ticket("track-1").next_ticket_id).click_count == 2
