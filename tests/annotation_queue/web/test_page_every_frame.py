"""Every frame of the video can be looked at, also those between the annotated ones, which have no mask."""

from __future__ import annotations

from storage.records import STRIDE
from tests.annotation_queue.browsing import FRAMES
from tests.annotation_queue.synthetic_queue import belongs_together, centre

MODIFIED = ("Control+ArrowLeft", "Control+ArrowRight")


def test_single_frames_are_stepped_through_with_masks_on_the_annotated_ones_only(verifying):
    page = verifying()
    back, on = MODIFIED
    for index in range(1, 10):
        page.press(on)
        seen = page.at(index)
        assert seen["carried"] == seen["readout"] == index
        if index % STRIDE == 0:
            assert belongs_together(seen) == index
        else:
            assert seen["mask"] is None and "Not annotated" in page.text("#badges")
    assert "between 8 and 12" in page.text("#badges")
    page.press("ArrowLeft")
    assert belongs_together(page.at(8)) == 8
    page.press(back)
    assert page.at(7)["carried"] == 7
    page.press("ArrowRight")
    assert belongs_together(page.at(8)) == 8
    page.press("End", on, on, on, on, on)
    assert page.at(FRAMES - 1)["carried"] == FRAMES - 1, "the video's last frame"
    page.press("Home", on, "]")
    page.at(40)
    page.press(on)
    page.at(41)
    page.press("[")
    page.at(40)


def test_every_frame_is_played_while_a_key_is_held(verifying):
    page = verifying()
    page.tab.evaluate(
        """() => {
          const screen = document.querySelector("#screen");
          window.named = [];
          screen.addEventListener("painted", () => window.named.push(Number(screen.dataset.frame)));
        }"""
    )
    page.tab.keyboard.down("j")
    page.until(lambda: len(page.tab.evaluate("window.named")) > 21)
    page.tab.keyboard.up("j")
    page.until(lambda: page.named() % STRIDE == 0)
    assert "playing" not in page.tab.get_attribute("#play", "class").split()
    named = page.tab.evaluate("window.named")
    named = named[named.count(0) :]  # the first frame may be painted again when a picture of it arrives
    assert named[:20] == list(range(1, 21)), "none is left out"
    assert belongs_together(page.look()) == page.named(), "it rests on an annotated frame"


def test_nothing_is_changed_on_a_frame_that_is_not_annotated(correcting, tickets):
    page = correcting(8)
    page.press("Control+ArrowRight")
    page.at(9)
    page.point(*centre(9))
    page.until(lambda: "has none" in page.text("#notice"))
    assert page.tab.is_disabled("#tool-lock") and page.tab.is_disabled("#tool-forward")
    page.press("f", "g", "g", "Delete", "t")
    page.settled()  # an operation would have been sent by now
    assert tickets.operations("track-1") == []
    page.press("ArrowLeft")
    page.at(8)
    assert page.tab.is_enabled("#tool-lock")
    page.press("f")
    page.until(lambda: [o.kind for o in tickets.operations("track-1")] == ["lock"])
    assert tickets.operations("track-1")[0].frame_idx == 8
