"""Two releases or two masklets side by side: pairs, numbers, and the frames that differ most."""

import weakref
from collections import Counter
from dataclasses import replace

import cv2
import numpy as np
import pytest

from engine.views import difference, difference_sheet, frames, versions
from engine.views.difference import Paired
from storage import iou, rle
from storage.dataset import compacted, parts
from storage.videos.reader import FrameUnreadable
from tests.engine.views.small_releases import H, W, block, masklet_of, publish, track
from tests.storage.made_videos import number_of

STILL = (40,) * 6


def moved(masklet_id, *places, **changes):
    return masklet_of(masklet_id, track(*places), **changes)


def test_masklets_are_paired_by_id_then_by_correction_then_by_their_masks():
    before = [moved("same", *STILL), moved("corrected", *STILL), moved("again", 0, 0, 0, 0, 0, 0), moved("gone", 70)]
    after = [
        moved("same", *STILL),
        moved("new", *STILL, parent_id="corrected", phase="3"),
        moved("other id", 2, 2, 2, 2, 2, 2),
        moved("more", 60, 60, 60, 60, 60, 60, parent_id="gone"),  # a part of an object, not a correction
    ]
    changes, removed, added = difference.compare(before, after)
    pairs = {(c.before.masklet_id, c.after.masklet_id): c.paired for c in changes}
    assert pairs == {
        ("same", "same"): Paired.ID,
        ("corrected", "new"): Paired.CORRECTION,
        ("again", "other id"): Paired.MASKS,
    }
    assert [row.masklet_id for row in removed] == ["gone"]
    assert [row.masklet_id for row in added] == ["more"]


def test_masks_that_overlap_less_than_half_are_no_pair():
    changes, removed, added = difference.compare([moved("a", *STILL)], [moved("b", *(x + 6 for x in STILL))])
    assert (changes, len(removed), len(added)) == ([], 1, 1)  # IoU 10 / 22


def test_the_numbers_of_two_releases(s, other):
    first = publish(
        s,
        [
            moved("same", *STILL),
            moved("changed", 0, 0, 0, 0, 0, 0),
            moved("gone", 70, 70, 70, 70, 70, 70),
            moved("words", *STILL, video_id="v2", phase="3"),
        ],
    )
    second = publish(
        other,
        [
            moved("same", *STILL, batch_id="b9"),
            moved("changed", 0, 8, 0, 0, None, 0, batch_id="b9", click_count=2),
            moved("words", *STILL, video_id="v2", batch_id="b9", phase="2", split="val"),
            moved("more", *STILL, video_id="v3", batch_id="b9"),
        ],
        "release-0002",
    )
    found = difference.of(first, second)
    assert found.videos == Counter(before=2, after=3, both=2)
    assert found.masklets == Counter(before=4, after=4, same=1, changed=2, removed=1, added=1)
    assert (found.paired, found.redrawn) == (Counter({"same id": 2}), 1)
    assert found.mean_iou == pytest.approx((4 * 1 + 1 / 3 + 0) / 6)
    assert found.frames == Counter(shown=6, differing=2, appeared=0, vanished=1)
    assert found.columns == {
        "click_count": Counter(masklets=1),
        "phase": Counter({"masklets": 1, "3 -> 2": 1}),
        "split": Counter({"masklets": 1, "train -> val": 1}),
    }
    looks = [(look.what, (look.after or look.before).masklet_id, look.frame_idx) for look in found.worst]
    assert looks == [("IoU 0.00", "changed", 16), ("added", "more", 0), ("removed", "gone", 0)]
    assert found.as_json()["worst"][2] == {
        "video_id": "v1",
        "frame_idx": 0,
        "iou": 0.0,
        "before": "gone",
        "after": None,
    }


def test_a_release_against_itself_differs_in_nothing_and_no_masklet_is_read(s, monkeypatch):
    release = publish(s, [moved("a", *STILL), moved("b", *STILL, video_id="v2")])
    monkeypatch.setattr(compacted, "iterate", None)
    monkeypatch.setattr(compacted, "read", None)
    found = difference.of(release, release)
    assert found.masklets == Counter(before=2, after=2, same=2)
    assert (found.worst, found.columns, found.mean_iou) == ([], {}, None)


def test_a_later_release_shares_its_files_with_the_earlier_one(s, monkeypatch):
    first = publish(s, [moved("a", *STILL)])
    second = publish(s, [moved("b", *STILL, batch_id="b2")], "release-0002")
    read = []
    real = compacted.iterate

    def noted(data, record):
        read.append(record)
        return real(data, record)

    monkeypatch.setattr(compacted, "iterate", noted)
    found = difference.of(first, second)
    assert found.masklets == Counter(before=1, after=2, same=1, added=1)
    assert len(read) == 1


def test_no_more_than_one_video_and_the_worst_masklets_are_in_memory(s, other, monkeypatch):
    monkeypatch.setattr(difference, "WORST", 1)
    videos = [f"v{n}" for n in range(4)]
    first = publish(s, [moved(f"{v}-{k}", *STILL, video_id=v) for v in videos for k in range(4)])
    second = publish(
        other, [moved(f"{v}-{k}", *(44,) * 6, video_id=v) for v in videos for k in range(4)], "release-0002"
    )
    seen, most = [], 0
    real = type(first).rows

    def noted(release, record, file):
        nonlocal most
        rows = real(release, record, file)
        seen.extend(map(weakref.ref, rows))
        most = max(most, sum(ref() is not None for ref in seen))
        return rows

    monkeypatch.setattr(type(first), "rows", noted)
    assert difference.of(first, second).masklets["changed"] == 16
    assert (len(seen), most) == (32, 8 + 2)


def test_only_the_worst_frames_are_kept_one_for_each_masklet(s, other, monkeypatch):
    monkeypatch.setattr(difference, "WORST", 2)
    shifts = {"a": 2, "b": 8, "c": 5, "d": 1}
    first = publish(s, [moved(name, *STILL) for name in shifts])
    second = publish(
        other, [moved(name, 40, 40 + shift, 40 + shift, 40, 40, 40) for name, shift in shifts.items()], "release-0002"
    )
    worst = difference.of(first, second).worst
    assert [(look.after.masklet_id, look.frame_idx) for look in worst] == [("b", 4), ("c", 4)]


def test_equal_places_and_equal_ids_can_be_ranked():
    worst = difference._Worst()
    for _ in range(difference.WORST + 3):
        worst.add(difference._lone(moved("a", *STILL), after=moved("a", *STILL)))
    assert len(worst.sorted()) == difference.WORST


def test_the_table_of_mean_ious_agrees_with_single_pairs():
    rng = np.random.default_rng(0)
    rows = [
        masklet_of(str(n), [block(int(x)) if x < 70 else block(None) for x in rng.integers(0, 90, 6)]) for n in range(6)
    ]
    table = iou.mean_table(rows[:4], rows[3:])
    for i, a in enumerate(rows[:4]):
        for j, b in enumerate(rows[3:]):
            assert table[i, j] == pytest.approx(iou.mean_iou(a, b))
    small = replace(rows[0], height=H // 2, rle=tuple(rle.empty(H // 2, W) for _ in range(6)), area_px=(1,) * 6)
    assert iou.mean_table([small], rows[1:2]).tolist() == [[0.0]]
    assert iou.mean_table([], rows).shape == (0, 6)
    with pytest.raises(rle.BadRle):
        iou.mean_table([replace(rows[0], rle=(b"\xff",) * 6)], rows[:1])


def test_masks_of_different_sizes_have_nothing_in_common():
    large = moved("a", *STILL)
    small = replace(large, height=H // 2, rle=tuple(rle.empty(H // 2, W) for _ in range(6)))
    change = difference.change_of(large, small)
    assert (change.mean_iou, change.differing, list(change.columns)) == (0.0, 6, ["height"])


def test_the_sheet_shows_what_only_one_of_both_has():
    def read(video_id, frame_idx):
        return np.full((H, W, 3), 100, np.uint8)

    change = difference.change_of(moved("a", 20), moved("b", 30))
    sheet = difference_sheet.draw(difference.worst_of(change, 1), read, ("first", "second")).astype(int)
    cell = sheet[: difference_sheet.CELL_PX * H // W]
    orange, blue = cell[..., 0] - cell[..., 2] > 60, cell[..., 2] - cell[..., 0] > 60
    assert orange.sum() > 1000 and blue.sum() > 1000
    assert np.flatnonzero(orange.any(0)).mean() < np.flatnonzero(blue.any(0)).mean()  # the first one is on the left
    with pytest.raises(ValueError, match="nothing differs"):
        difference_sheet.draw([], read, ("first", "second"))


def test_a_cut_stays_inside_the_frame_and_has_its_shape():
    for x, y, size in ((0, 0, 4), (90, 60, 4), (0, 0, 64), (40, 20, 16)):
        x0, y0, x1, y1 = difference_sheet._cut(block(x, y, size))
        assert 0 <= x0 < x1 <= W and 0 <= y0 < y1 <= H
        assert abs((x1 - x0) / (y1 - y0) - W / H) < 0.1


def test_frames_come_from_the_release_that_has_the_video_and_one_video_is_open(s, other):
    first = publish(s, [moved("a", *STILL)])
    second = publish(other, [moved("b", *STILL, video_id="v2")], "release-0002")
    with frames.of_releases(second, first) as stored:
        assert number_of(stored.read("v1", 8)) == 8
        assert stored._now is not None
        before = stored._now[1]
        assert number_of(stored.read("v2", 12)) == 12
        with pytest.raises(FrameUnreadable, match="closed"):
            before.read(0)
        after = stored._now[1]
        with pytest.raises(ValueError, match="no video 'v3'"):
            stored.read("v3", 0)
    with pytest.raises(FrameUnreadable, match="closed"):
        after.read(0)


def test_two_releases_are_named_by_name_or_by_folder(s, other, tmp_path):
    publish(s, [moved("a", *STILL)])
    publish(other, [moved("a", 0, 0, 0, 0, 0, 0)], "release-0002")
    folder = f"{other.blobs.uri}/releases/release-0002"
    compared = versions.compare(s, "release-0001", folder)
    assert compared.found.masklets["changed"] == 1
    assert compared.draw(tmp_path / "new" / "diff.jpg")
    assert cv2.imread(str(tmp_path / "new" / "diff.jpg")) is not None
    titles = [title for title, _ in compared.tables()]
    assert titles == ["Two releases", "Changed masklets"]
    with pytest.raises(ValueError, match="there is no release 'release-0003'; there are: release-0001"):
        versions.compare(s, "release-0001", "release-0003")


def test_a_correction_is_compared_with_the_candidate_that_was_not_published(s, tmp_path):
    publish(s, [moved("m", 0, 0, 40, 0, 0, 0, parent_id="c", kind="manual", phase="3")])
    candidate = moved("c", 0, 0, 0, 0, 0, 0)
    parts.write_part(s.blobs, kind="candidates", batch_id="b1", video_id="v1", rows=[candidate])
    compared = versions.compare(s, "c", "m")
    assert compared.as_json()["frames"] == {"0": 1.0, "4": 1.0, "8": 0.0, "12": 1.0, "16": 1.0, "20": 1.0}
    (_, facts), (_, frames) = compared.tables()
    assert ("kind", "auto", "manual") in facts
    assert frames[1:] == [("8", "0.000", "256", "256")]
    assert compared.draw(tmp_path / "diff.jpg")
    assert not versions.compare(s, "m", "m").draw(tmp_path / "none.jpg")


@pytest.mark.parametrize(
    ("names", "line"),
    [
        (("m", "unknown"), "no release and no masklet 'unknown'"),
        (("m", "x' or '1' == '1"), "neither a release nor the id of a masklet"),
        (("m", "elsewhere"), "m is a masklet of video v1, elsewhere of v2"),
    ],
)
def test_two_masklets_that_cannot_be_compared_are_a_mistake(s, names, line):
    publish(s, [moved("m", *STILL), moved("elsewhere", *STILL, video_id="v2")])
    with pytest.raises(ValueError, match=line):
        versions.compare(s, *names)
