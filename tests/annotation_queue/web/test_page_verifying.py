"""The page in a real browser: what verifiers and leads see and press, against a real server."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np

from annotation_queue.records import NewGold, State
from storage import rle
from storage.records import STRIDE, Verdict
from tests.annotation_queue.annotators import LEA, VERA, VICTOR, claim, finish, outcome
from tests.annotation_queue.browsing import EVERY_DATABASE, FRAMES, shapes
from tests.annotation_queue.synthetic_queue import (
    HASTY,
    HEIGHT,
    WIDTH,
    belongs_together,
    centre,
    hidden,
    mask,
    track_ticket,
    verify_tickets,
)


def test_the_mask_on_screen_belongs_to_the_frame_on_screen(open_page, tickets):
    tickets.open_batch("b", verify_tickets(1, FRAMES))
    page = open_page()
    page.log_in()
    page.shows("work")
    assert page.tab.evaluate("[document.querySelector('#screen').width, document.querySelector('#screen').height]") == [
        WIDTH,
        HEIGHT,
    ]
    page.until(lambda: page.named() > 0)  # it plays by itself
    played = set()
    while len(played) < 4:  # it plays in a loop, however slowly
        page.until(lambda: page.named() not in played)
        played.add(belongs_together(page.look()))
    page.press("Home")
    page.at(0)
    page.press("Space", "Space")  # play and pause
    page.press("Home")
    for index in range(0, FRAMES, STRIDE):
        assert belongs_together(page.at(index)) == index
        page.press("ArrowRight")
    page.press("Home", "Shift+ArrowRight")
    assert belongs_together(page.at(40)) == 40
    page.press("ArrowLeft")
    assert belongs_together(page.at(36)) == 36
    page.press("End")
    assert belongs_together(page.at(FRAMES - STRIDE)) == FRAMES - STRIDE


def test_the_page_decodes_run_lengths_as_storage_does(open_page):
    """Empty, full, one pixel, one row, one column, noise and blobs: bit for bit."""
    chance = np.random.default_rng(3)
    masks = [np.zeros((5, 7), bool), np.ones((5, 7), bool), np.eye(6, 9, 2) > 0, chance.random((1, 40)) > 0.5]
    masks += [chance.random((40, 1)) > 0.5, np.arange(35).reshape(5, 7) == 17, mask(24)]
    masks += [chance.random((31, 23)) > p for p in (0.02, 0.5, 0.98)]
    sent = [[rle.encode(m).decode(), *m.shape] for m in masks]
    decoded = open_page().tab.evaluate(
        """async (sent) => {
          const { Mask } = await import("/web/shared/rle.js");
          return sent.map(([counts, height, width]) => {
            const { bits, area, box } = new Mask(counts, height, width);
            return [Array.from(bits).join(""), area, box];
          });
        }""",
        sent,
    )
    for expected, (bits, area, box) in zip(masks, decoded, strict=True):
        assert bits == "".join(str(int(bit)) for bit in expected.ravel())
        assert area == expected.sum()
        rows, columns = np.nonzero(expected)
        at = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1] if area else None
        assert box == at, expected.shape


def test_the_page_paints_a_mask_pixel_by_pixel(open_page):
    masks = shapes(4)
    painted = open_page().tab.evaluate(
        """async (sent) => {
          const { Overlay } = await import("/web/shared/overlay.js");
          const { runs, spans } = await import("/web/shared/rle.js");
          return sent.map(([counts, height, width]) => {
            const context = new OffscreenCanvas(width, height).getContext("2d");
            const overlay = new Overlay(height, width);
            overlay.flood([9, 9, 9, 255]);
            overlay.clear(); // what was painted before leaves no trace
            overlay.fill(spans(runs(counts), height, width), [1, 20, 30, 255]);
            overlay.drawOn(context);
            return context.getImageData(0, 0, width, height).data.filter((_, i) => i % 4 === 0).join("");
          });
        }""",
        [[rle.encode(m).decode(), *m.shape] for m in masks],
    )
    for inside, pixels in zip(masks, painted, strict=True):
        assert pixels == "".join(map(str, inside.astype(int).ravel())), inside.shape


@EVERY_DATABASE
def test_a_verifier_works_by_keyboard_alone(open_page, tickets):
    tickets.open_batch("b", verify_tickets(5, FRAMES))
    page = open_page()
    page.tab.clock.install()
    page.press("Tab")  # the cursor is in the form already
    page.log_in()
    answers = (["a"], ["e"], ["x", "4", "7"], ["u"], ["x", "Escape", "a"])  # 4 is no reason to reject
    for count, keys in enumerate(answers, start=1):
        page.paused_at_start()
        assert "micro · round 2" in page.text("#checkpoint")
        page.press(*keys)
        page.until(lambda count=count: len(tickets.find(state=State.DONE)) == count)  # the next ticket is due now
    page.says("Nothing left to verify")
    page.until(lambda: page.text("#save") == "Saved")
    verdicts = {t.ticket_id: (t.verdict, t.reasons) for t in tickets.find(state=State.DONE)}
    assert list(verdicts.values()) == [
        (Verdict.ACCEPT, ()),
        (Verdict.REFINE, ()),
        (Verdict.REJECT, ("untrackable",)),
        (Verdict.UNSURE, ()),
        (Verdict.ACCEPT, ()),
    ]
    verdict = json.loads(tickets.operations("ticket-0002")[0].payload)
    assert verdict["seconds"] > 0 and tickets.operations("ticket-0002")[0].frame_idx == 0
    tickets.open_batch("later", verify_tickets(1, FRAMES, prefix="later"))
    page.tab.clock.fast_forward(5_000)
    page.shows("work")  # a new ticket appears by itself


def test_overlay_speed_and_suspects_answer_to_their_keys(verifying, tickets):
    page = verifying()
    assert page.look()["mask"] is not None
    page.tab.keyboard.down("h")
    assert page.look()["mask"] is None
    page.tab.keyboard.up("h")
    assert page.look()["mask"] is not None
    page.press("]")
    page.at(40)
    assert "low score" in page.text("#badges")
    page.press("]")
    page.until(lambda: hidden(page.named()))
    assert "Absent" in page.text("#badges")
    page.press("[")
    page.at(40)
    for mode in ("Outline", "Cut-out", "Fill"):
        page.press("o")
        assert page.text("#modes [aria-checked=true]") == mode
    page.press("s")
    assert page.text("#speed") == "4×"
    page.press("?")
    assert page.tab.is_visible("#help") and "refine" in page.text("#help")
    page.press("a")  # not while the list of keys is open
    page.press("Escape")
    assert not page.tab.is_visible("#help")
    page.settled()  # an answer would have been sent by now
    assert tickets.find(state=State.DONE) == []


def test_a_mask_unlike_the_one_before_is_a_suspect_unless_the_object_is_fast(open_page):
    """Areas and scores say nothing of a mask that jumps to another object of the same size."""

    def disc(x):
        rows, columns = np.mgrid[:HEIGHT, :WIDTH]
        return (columns - x) ** 2 + (rows - 180) ** 2 < 20**2

    jump = [100 + 4 * i + (300 if i >= 6 else 0) for i in range(12)]
    fast = [50 + 45 * i for i in range(12)]  # no two masks have a pixel in common
    sent = []
    for places in (jump, fast):
        masks = [disc(x) for x in places]
        one = {"frame_idx": list(range(0, 48, 4)), "area_px": [int(m.sum()) for m in masks], "score": [0.95] * 12}
        sent.append(one | {"rle": [rle.encode(m).decode() for m in masks]})
    found = open_page().tab.evaluate(
        """async (sent) => {
          const { Timeline } = await import("/web/shared/timeline.js");
          return sent.map((masklet) => new Timeline(masklet, { frame_count: 48 }, 4).suspects);
        }""",
        sent,
    )
    assert found == [[{"position": 6, "last": 6, "why": "mask jumps"}], []]


FITS = """
() => {
  const page = document.documentElement;
  const last = [...document.querySelectorAll("#verdicts button")].at(-1).getBoundingClientRect();
  const strip = document.querySelector("#timeline");
  const [wide, tall] = [strip.width, strip.height];
  const film = strip.getContext("2d").getImageData(0.1 * wide, 0.05 * tall, 0.8 * wide, 0.1 * tall).data;
  const colours = new Set();
  for (let i = 0; i < film.length; i += 4) colours.add(film.slice(i, i + 3).join());
  return {
    over: [page.scrollWidth - innerWidth, page.scrollHeight - innerHeight, last.bottom - innerHeight],
    stage: document.querySelector("#screen").getBoundingClientRect().height / innerHeight,
    letters: parseFloat(getComputedStyle(document.querySelector("#question")).fontSize) *
      Number(getComputedStyle(document.documentElement).getPropertyValue("--large")),
    film: colours.size,
  };
}
"""
NAMELESS = """
() => {
  const nameOf = (e) => e.getAttribute("aria-label") || e.labels?.[0]?.innerText || e.innerText || "";
  return [...document.querySelectorAll("button, a, input, canvas")]
    .filter((e) => e.checkVisibility({ visibilityProperty: true }) && e.ariaHidden !== "true")
    .filter((e) => !/[a-z]{2}/i.test(nameOf(e)))
    .map((e) => e.id || e.outerHTML);
}
"""


def test_the_page_fits_every_screen_and_theme_and_everything_in_it_has_a_name(open_page, tickets):
    tickets.open_batch("b", [track_ticket(frame_count=FRAMES), *verify_tickets(2, FRAMES)])
    page = open_page()
    page.log_in("lea")
    page.paused_at_start()
    letters = []
    for width, height in ((1280, 720), (1440, 900), (3840, 2160)):
        page.tab.set_viewport_size({"width": width, "height": height})
        page.until(lambda: page.tab.evaluate(FITS)["film"] > 50)  # the small pictures are there
        fits = page.tab.evaluate(FITS)
        assert max(fits["over"]) <= 0 and fits["stage"] > 0.65, (width, fits)
        letters.append(fits["letters"])
    assert letters[2] > 1.5 * letters[0], "to be read from where one sits"
    page.tab.set_viewport_size({"width": 1280, "height": 720})

    def ground():
        return page.tab.evaluate("getComputedStyle(document.body).backgroundColor")

    strip = "() => { const c = document.querySelector('#timeline'); return c.toDataURL(); }"
    light, drawn = ground(), page.tab.evaluate(strip)
    page.tab.click("#theme")
    page.until(lambda: ground() == "rgb(15, 15, 19)" != light)
    assert page.tab.evaluate(strip) != drawn
    assert page.tab.evaluate(NAMELESS) == []
    page.until(lambda: page.tab.is_visible("#turn"))
    page.press("w")  # to correcting, by key
    page.until(lambda: page.tab.get_attribute("body", "data-kind") == "track")
    page.press("v")
    page.until(lambda: page.tab.locator("#other-objects .other").count() == 1)
    assert page.tab.evaluate(NAMELESS) == []
    page.press("x")
    assert page.tab.evaluate(NAMELESS) == []
    page.tab.reload()
    page.shows("work")
    assert ground() == "rgb(15, 15, 19)"
    page.press("?")
    assert page.tab.evaluate(NAMELESS) == []


@EVERY_DATABASE
def test_the_last_answers_can_be_taken_back(verifying, tickets):
    page = verifying(4)
    for number in (1, 2):
        page.press("a")
        page.until(lambda number=number: len(tickets.find(state=State.DONE)) == number)
        page.paused_at_start()
    page.until(lambda: page.text("#save") == "Saved")
    page.press("Backspace")
    page.until(lambda: "Taken back: Accept" in page.text("#notice"))
    assert [t.ticket_id for t in tickets.find(state=State.DONE)] == ["ticket-0000"]
    assert tickets.ticket("ticket-0001").leased_by == "vera"
    page.tab.reload()
    page.paused_at_start()
    page.press("x", "7")
    page.until(lambda: tickets.ticket("ticket-0001").verdict is Verdict.REJECT)
    page.paused_at_start()
    page.press("a")
    page.until(lambda: len(tickets.find(state=State.DONE)) == 3)
    assert tickets.ticket("ticket-0002").verdict is Verdict.ACCEPT, "what was put aside came back"


@EVERY_DATABASE
def test_a_lead_sees_figures_and_manages_people(open_page, tickets):
    tickets.open_batch("b", verify_tickets(6, FRAMES))
    page = open_page()
    page.log_in("lea")
    page.paused_at_start()
    page.press("a")
    page.until(lambda: len(tickets.find(state=State.DONE)) == 1)
    page.tab.goto(f"{page.url}/web/lead.html")
    page.until(lambda: "lea" in page.text("#figures") and "verify" in page.text("#batches"))
    assert page.tab.get_attribute("#batches .share", "title").startswith("1 done")
    page.tab.fill("#add [name=name]", "nora")
    page.tab.fill("#add [name=skills]", "thin, fast")
    page.tab.check("#add [value=annotator]")
    page.tab.click("#add button")
    page.until(lambda: "nora" in page.text("#people"))
    assert "fast, thin" in page.text("#people") or "thin, fast" in page.text("#people")
    row = page.tab.locator("#people tr", has_text="nora")
    own = page.tab.locator("#people tr", has_text="lea (you)")
    assert (own.get_by_text("New token").count(), row.get_by_text("New token").count()) == (1, 0)
    assert page.tab.locator("#add input[type=password]").count() == 0, "only the operator sets passwords"
    page.tab.locator("#people tr", has_text="victor").get_by_text("Disable").click()
    page.until(lambda: "victor (disabled)" in page.text("#people"))
    other = open_page()
    other.log_in("victor")
    other.until(lambda: other.text("#login-error") != "")
    other.log_in("vera")
    other.shows("work")
    assert not other.tab.is_visible("#lead")
    other.tab.goto(f"{page.url}/web/lead.html")
    other.until(lambda: "for leads and admins" in other.text("#error"))


def words(page, place):
    return " ".join(page.text(place).split())


def test_a_lead_sees_why_a_ticket_came_to_them(open_page, tickets):
    tickets.policy = HASTY.model_copy(update={"overlap": 2, "overlap_share": 1.0})
    first, second = verify_tickets(2, FRAMES)
    tickets.open_batch("tie", [first])
    finish(tickets, VERA, Verdict.REFINE)
    finish(tickets, VICTOR, Verdict.ACCEPT)
    page = open_page()
    page.log_in("lea")
    page.paused_at_start()
    assert "a lead decides" in page.text("#eyebrow") and "unsure" not in page.text("#eyebrow")
    assert "victor pointed to" in page.text("#facts") and "Sent back" not in page.text("#facts")
    tickets.policy = HASTY
    tickets.open_batch("unsure", [second])
    mine = claim(tickets, VERA)
    answer = replace(outcome(Verdict.UNSURE), frame_idx=None)  # as a program may send it
    tickets.finish(mine.ticket_id, mine.lease_token, VERA, answer)
    page.press("a")
    page.until(lambda: "unsure" in page.text("#batch"))
    assert "a verifier was unsure" in page.text("#eyebrow") and "vera pointed to no frame" in words(page, "#facts")


def test_a_new_object_is_judged_like_any_other_masklet(open_page, tickets):
    (made,) = verify_tickets(1, FRAMES)
    tickets.open_batch("b", [replace(made, payload=json.dumps({"begun_by": "ann"}))])
    page = open_page()
    page.log_in()
    page.paused_at_start()
    assert "right in every frame?" in page.text("#question")


def test_the_leads_page_shows_why_the_queue_refuses(open_page):
    page = open_page()
    page.log_in("lea")
    page.shows("message")
    refusal = {"kind": "NotAllowed", "error": "lea has no role for this"}
    page.tab.route("**/api/figures", lambda route: route.fulfill(status=403, json=refusal))
    page.tab.goto(f"{page.url}/web/lead.html")
    page.until(lambda: "lea has no role for this" in page.text("#age"))


def test_a_person_without_a_ticket_reads_why_and_gets_one_later(open_page, tickets):
    """A failed warm-up, of which the claim speaks; the login form does not stay."""
    tickets.policy = HASTY.model_copy(update={"warmup_tickets": 1})
    tickets.open_batch("b", verify_tickets(1, FRAMES))
    gold = [NewGold(ticket=t, expected=Verdict.ACCEPT) for t in verify_tickets(2, FRAMES, prefix="gold")]
    tickets.add_gold("b", gold[:1], by=LEA)
    finish(tickets, VERA, Verdict.REFINE)
    page = open_page()
    page.tab.clock.install()
    page.log_in()
    page.says("No ticket for you now", "no gold is left")
    tickets.add_gold("b", gold[1:], by=LEA)
    page.tab.clock.fast_forward(5_000)
    page.paused_at_start()


def test_a_lead_chooses_between_verifying_and_correcting(open_page, tickets):
    tickets.open_batch("b", [track_ticket(frame_count=FRAMES), *verify_tickets(3, FRAMES)])
    page = open_page()
    page.log_in("lea")
    page.paused_at_start()
    page.until(lambda: page.tab.is_visible("#turn"))
    page.tab.click("#turn")
    page.correcting(0)
    assert "1 of 3" not in page.text("#left")
    page.press("x", "7")
    page.until(lambda: tickets.ticket("track-1").state is State.DONE)
    page.paused_at_start()
    assert page.tab.get_attribute("body", "data-kind") == "verify"


def test_nobody_verifies_their_own_work(open_page, tickets):
    """The button in the bar offers it once, says why there is nothing, and goes."""
    tickets.open_batch("b", [track_ticket("track-1", frame_count=FRAMES), track_ticket("track-2", frame_count=FRAMES)])
    page = open_page()
    page.log_in("lea")
    page.correcting(0)
    first = next(t.ticket_id for t in tickets.find(state=State.LEASED) if t.leased_by == "lea")
    page.press("Enter", "Enter")
    page.until(lambda: tickets.ticket(first).state is State.DONE)
    page.until(lambda: page.text("#turn") == "Verify 1")
    page.tab.click("#turn")
    page.until(lambda: "is for another person" in page.text("#notice"))
    page.until(lambda: not page.tab.is_visible("#turn"))
    page.correcting(0)
    page.press("x", "7")
    page.says("1 waiting for another verifier")
    assert not page.tab.is_visible("#turn")


def test_the_colour_of_the_mask_is_chosen_and_kept(verifying, tickets):
    page = verifying()
    pixel = "c => [...document.querySelector('#screen').getContext('2d').getImageData(c[0], c[1], 1, 1).data]"
    at = [int(v) for v in centre(0)]
    seen = [page.tab.evaluate(pixel, at)]
    for _ in range(3):
        page.press("k")
        page.until(lambda: page.tab.evaluate(pixel, at) != seen[-1])
        seen.append(page.tab.evaluate(pixel, at))
    assert len({tuple(colour) for colour in seen}) == 4
    page.tab.reload()
    page.paused_at_start()
    page.until(lambda: page.tab.evaluate(pixel, at) == seen[-1])
    page.tab.click("#colour")
    page.until(lambda: page.tab.evaluate(pixel, at) == seen[0])


def test_a_key_can_be_changed_and_reset(correcting, tickets):
    page = correcting()
    page.press("?")
    page.tab.click("#keys .rebind:has(+ span:text('lock this frame, or unlock it'))")
    page.press("k")
    assert "taken: colour of the mask" in page.text("#keys-said")
    with page.tab.expect_response("**/api/me/keys"):  # the reload below asks for what is stored
        page.press("k", "Escape")
    page.press("k")
    assert page.text("#tool-lock kbd") == "K" and page.text("#keys-said") == ""
    page.settled()
    page.until(lambda: [o.kind for o in tickets.operations("track-1")] == ["lock"])
    page.tab.reload()
    page.correcting(0)
    page.press("f", "ArrowRight")
    page.at(4)
    page.settled()
    assert len(tickets.operations("track-1")) == 1, "f means nothing now"
    page.press("?")
    page.tab.click("#reset-keys")
    page.press("Escape", "f")
    page.until(lambda: len(tickets.operations("track-1")) == 2)
    hints = ("#submit kbd", "#verdict-reject kbd", "[data-key=nextSuspect]")
    assert [page.text(hint) for hint in hints] == ["⏎", "X", "]"]
    page.press("?")
    for action, key in (("submit", "z"), ("reject", "r"), ("nextSuspect", "Shift+J")):
        page.tab.click(f"#rebind-{action}")
        page.press(key)
    page.press("Escape")
    assert [page.text(hint) for hint in hints] == ["Z", "R", "⇧ J"]
    page.press("z")
    page.until(lambda: tickets.ticket("track-1").state is State.DONE)
