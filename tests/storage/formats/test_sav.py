"""SA-V's JSON: the real file is reproduced to the last digit, and a malformed one is refused in one line."""

from __future__ import annotations

import copy
import dataclasses
import json

import numpy as np
import pytest

from storage import rle
from storage.formats import sav, sav_figures, sav_times
from storage.formats.imported import Description
from storage.records import Masklet, Video
from tests.shared import SHARED
from tests.storage import rows

REAL = SHARED / "sav_000001_manual.json"
H, W = 24, 32


def make_video(**changes) -> Video:
    values = {"video_key": "videos/v1.mp4", "height": H, "width": W, "frame_count": 21, "duration_s": 0.875}
    return rows.make_video(**{**values, **changes})


def make_masklet(sides: list[int], **changes) -> Masklet:
    """A square of each side in turn, on frames 0, 4, 8, …; 0 is an absent object."""
    masks = np.zeros((len(sides), H, W), dtype=bool)
    for mask, side in zip(masks, sides, strict=True):
        mask[:side, :side] = True
    values = {
        "masklet_id": "m1",
        "video_id": "v1",
        "batch_id": "b1",
        "height": H,
        "width": W,
        "frame_idx": tuple(range(0, 4 * len(sides), 4)),
        "rle": tuple(rle.encode(mask) for mask in masks),
        "area_px": tuple(side * side for side in sides),
        "score": (0.9,) * len(sides),
        "object_score": (1.0,) * len(sides),
        "stability": (0.97,) * len(sides),
        "kind": "auto",
        "phase": "auto",
        "round": 0,
        "checkpoint": "micro",
        "prompt": "{}",
        "verdict": "accept",
    }
    return Masklet(**{**values, **changes})


@pytest.fixture
def annotation() -> dict:
    rows = [make_masklet([3, 4, 0, 4, 5, 0]), make_masklet([0, 0, 2, 2, 2, 2], masklet_id="m2")]
    return dict(json.loads(json.dumps(sav.to_sav(make_video(), rows))))


@pytest.mark.skipif(not REAL.exists(), reason="the real SA-V file is not here")
def test_the_real_file_goes_in_and_comes_out_equal():
    real = json.loads(REAL.read_text())
    video = make_video(video_id="sav_000001", height=848, width=480, frame_count=483, duration_s=20.125)
    video = dataclasses.replace(video, source_metadata=sav.describe(real).metadata)
    ours = sav.to_sav(video, sav.from_sav(real, video=video))
    assert list(ours) == list(real) == list(sav.KEYS)
    for key in sav.KEYS:
        assert ours[key] == real[key], key
        assert type(ours[key]) is type(real[key]), key


def test_an_annotation_has_the_20_keys_and_a_frame_for_every_fourth(annotation):
    assert list(annotation) == list(sav.KEYS)
    assert len(annotation["masklet"]) == 6
    assert [len(frame) for frame in annotation["masklet"]] == [2] * 6
    assert annotation["video_frame_count"] == 21.0
    assert annotation["masklet_frame_count"] == [6, 6]


def test_derived_fields_are_those_of_the_masks(annotation):
    assert annotation["masklet_size_abs"] == [(9 + 16 + 16 + 25) / 4, 4.0]
    assert annotation["masklet_size_rel"] == [round(16.5 / (H * W), 10), round(4 / (H * W), 10)]
    assert annotation["masklet_visibility_changes"] == [3, 0]
    assert annotation["masklet_first_appeared_frame"] == [0, 2]
    assert annotation["masklet_size_bucket"] == ["small", "small"]


@pytest.mark.parametrize(
    ("area", "bucket"), [(1, "small"), (1023, "small"), (1024, "medium"), (9215, "medium"), (9216, "large")]
)
def test_size_buckets_change_at_32_and_96_squared(area, bucket):
    assert sav_figures.derive([area], 500, 500).size_bucket == bucket


def test_stability_is_a_table_for_auto_and_nulls_for_manual(annotation):
    assert annotation["masklet_stability_score"] == [[0.97, 0.97]] * 6
    manual = sav.to_sav(make_video(), [make_masklet([3] * 6, kind="manual", edited_frame_count=4)])
    assert manual["masklet_stability_score"] == [None]
    assert manual["masklet_edited_frame_count"] == [4]
    assert isinstance(manual["masklet_first_appeared_frame"][0], float)


def test_frames_that_a_masklet_lacks_are_empty_masks():
    short = make_masklet([3, 4])
    late = dataclasses.replace(short, frame_idx=(8, 16))
    annotation = sav.to_sav(make_video(), [late])
    assert [rle.area(frame[0]["counts"].encode(), H, W) for frame in annotation["masklet"]] == [0, 0, 9, 0, 16, 0]
    assert annotation["masklet_first_appeared_frame"] == [2]


@pytest.mark.parametrize(
    ("key", "value", "ours"),
    [
        ("masklet_size_abs", 16.6, "16.5"),
        ("masklet_size_rel", 0.5, "0.021484375"),
        ("masklet_size_bucket", "large", "'small'"),
        ("masklet_visibility_changes", 2, "3"),
        ("masklet_first_appeared_frame", 1.0, "0"),
        ("masklet_frame_count", 5, "6"),
    ],
)
def test_a_stated_figure_that_the_masks_do_not_give_is_named(annotation, key, value, ours):
    rows = sav.from_sav(annotation, video=make_video())
    assert sav_figures.differences(annotation, rows) == []
    annotation[key][0] = value
    assert sav_figures.differences(annotation, rows) == [f"masklet 0: {key} is {value!r}, its masks give {ours}"]
    annotation[key] = None  # not stated
    assert sav_figures.differences(annotation, rows) == []


def test_figures_that_a_file_states_as_texts_are_compared_as_numbers(annotation):
    rows = sav.from_sav(annotation, video=make_video())
    annotation["masklet_frame_count"] = ["6", "6.0"]
    assert sav_figures.differences(annotation, rows) == []
    annotation["masklet_frame_count"] = ["six", [6]]
    assert sav_figures.differences(annotation, rows) == [
        "masklet 0: masklet_frame_count is 'six', its masks give 6",
        "masklet 1: masklet_frame_count is [6], its masks give 6",
    ]


@pytest.mark.skipif(not REAL.exists(), reason="the real SA-V file is not here")
def test_the_stated_figures_of_the_real_file_are_those_of_its_masks():
    real = json.loads(REAL.read_text())
    assert sav_figures.differences(real, sav.from_sav(real)) == []


def test_an_exported_annotation_is_read_back(annotation):
    again = sav.from_sav(annotation, video=make_video(), batch_id="b7")
    assert [m.rle for m in again] == [make_masklet([3, 4, 0, 4, 5, 0]).rle, make_masklet([0, 0, 2, 2, 2, 2]).rle]
    assert [m.frame_idx for m in again] == [(0, 4, 8, 12, 16, 20)] * 2
    assert [(m.kind, m.batch_id, m.verdict, m.split) for m in again] == [("auto", "b7", "accept", "train")] * 2
    assert again[0].stability == (0.97,) * 6
    assert again[0].object_score == (10.0, 10.0, -10.0, 10.0, 10.0, -10.0)
    assert again == sav.from_sav(annotation, video=make_video(), batch_id="b7")
    assert again[0].masklet_id != again[1].masklet_id


def test_oddities_of_real_files_are_tolerated(annotation):
    odd = copy.deepcopy(annotation)
    odd.update(video_height="24", video_width=32.0, masklet_edited_frame_count=["3", 1.0])
    odd["masklet"][0][0]["size"] = [24.0, "32"]
    del odd["masklet_stability_score"], odd["masklet_type"], odd["masklet_size_abs"]
    rows = sav.from_sav(odd)
    assert [m.edited_frame_count for m in rows] == [3, 1]
    assert rows[0].area_px == (9, 16, 0, 16, 25, 0)
    assert (rows[0].kind, rows[0].stability[0], rows[0].video_id) == ("manual", 1.0, "v1")


def test_one_extra_annotated_frame_is_cut_and_more_are_refused(annotation):
    assert len(sav.from_sav(annotation, video=make_video(frame_count=20))[0].frame_idx) == 5
    assert len(sav.from_sav(annotation, video=make_video(frame_count=22))[0].frame_idx) == 6
    for frame_count in (16, 25, 29):  # of 25 at the same rate, 21 were annotated: which ones is unknown
        with pytest.raises(sav.SavError, match="6 annotated frames|21 frames in 0.875 s annotated"):
            sav.from_sav(annotation, video=make_video(frame_count=frame_count))


@pytest.mark.parametrize(
    ("count", "frame_count", "duration_s", "expected"),
    [
        (25, 100, 4.0, [0, 4, 8, 12, 15, 19]),  # 25 fps, every 4th
        (20, 100, 4.0, [0, 5, 10, 14, 19, 24]),  # 25 fps, every 5th
        (30, 120, 4.0, [0, 3, 10, 13, 16, 19]),  # 30 fps, every 4th: no frame at 24 fps shows number 8
        (24, 120, 4.0, [0, 4, 8, 12, 16, 20]),  # 30 fps, every 5th
        (24, 120, 4.004, [0, 4, 8, 12, 16, 20]),  # 29.97 fps, every 5th
        (24, 96, 4.0, [0, 4, 8, 12, 16, 20]),  # 24 fps
        (20, 96, 4.0, [0, 5, 10, 15, 20, 25]),  # 24 fps, every 5th
        (121, 483, 20.125, [0, 4, 8, 12, 16, 20]),  # a real file of SA-V
    ],
)
def test_masks_are_placed_by_time(count, frame_count, duration_s, expected):
    assert list(sav_times.frame_indices(count, frame_count, duration_s).values())[:6] == expected


@pytest.mark.parametrize("frame_count", [21, 100, 600])
def test_a_refusal_of_a_video_of_variable_rate_says_its_rate(annotation, frame_count):
    annotation["video_frame_count"] = float(frame_count)
    video = make_video(frame_count=40, duration_s=40 / 24, variable_rate=True, source_fps=17.346)
    says = "the rate of the video varies, 17.35 frames a second on average, 24 without change are needed"
    with pytest.raises(sav.SavError, match=says):
        sav.from_sav(annotation, video=video)
    with pytest.raises(sav.SavError) as caught:
        sav.from_sav(annotation, video=dataclasses.replace(video, variable_rate=False))
    assert "varies" not in str(caught.value)


def test_counts_that_fit_no_rate_are_refused_with_both_figures():
    with pytest.raises(ValueError, match="70 annotated frames are not every k-th of 100 frames in 4 s"):
        sav_times.frame_indices(70, 100, 4.0)


def test_a_mask_of_an_odd_side_is_cropped_as_the_stored_video(annotation):
    odd = sav.from_sav(annotation, hw=(H, W))[0]
    for frame in annotation["masklet"]:
        for mask in frame:
            whole = np.pad(rle.decode(mask["counts"].encode(), H, W), ((0, 1), (0, 1)))
            mask.update(size=[H + 1, W + 1], counts=rle.encode(whole).decode())
    assert sav.from_sav(annotation, video=make_video())[0].rle == odd.rle


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda d: d.pop("masklet"), "'masklet' is a list"),
        (lambda d: d.update(masklet=[]), "'masklet' is a list"),
        (lambda d: d.update(masklet=[1]), "'masklet' is a list"),
        (lambda d: d["masklet"][2].pop(), "different numbers of objects"),
        (lambda d: d["masklet"][2][1].update(counts="zz"), "annotated frame 2, masklet 1: byte 0x7a"),
        (lambda d: d["masklet"][2][1].update(counts=[768]), "compressed string, not list"),
        (lambda d: d["masklet"][2][1].update(counts="é"), "compressed string"),
        (lambda d: d["masklet"][2][1].update(size=[1, 2]), r"size \[1, 2\]"),
        (lambda d: d["masklet"][2].__setitem__(1, "no"), "a mask is an object"),
        (lambda d: d["masklet"][2].__setitem__(1, None), "annotated frame 2, masklet 1: the mask is null"),
        (lambda d: d["masklet"][2][1].pop("counts"), "compressed string, not NoneType"),
        (lambda d: d.update(masklet_id=[4, "4"]), "masklets 0 and 1 have the same id, 4"),
        (lambda d: d["masklet"][0][0].update(size=["x", 2]), "'x' is not a number"),
        (lambda d: d["masklet"][0][0].update(size=[2.5, 2]), "2.5 is not a whole number"),
        (lambda d: d["masklet"][0][0].update(size=[10**400, 2]), "is not a number"),
        (lambda d: d.update(masklet_type=["ghost"]), "type 'ghost'"),
        (lambda d: d.update(masklet_edited_frame_count=["nan"]), "'nan' is not a whole number"),
        (lambda d: d.pop("video_id"), "without 'video_id'"),
    ],
)
def test_a_malformed_annotation_is_refused_in_one_line_that_says_where(annotation, tmp_path, change, says):
    change(annotation)
    path = tmp_path / "a.json"
    path.write_text(json.dumps(annotation))
    with pytest.raises(sav.SavError, match=says) as caught:
        sav.read(path)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("a.json: ")


def test_a_description_keeps_what_sav_does_not_define_about_the_video(annotation):
    said = {"video_environment": "Indoor", "author": "A", "masklet_source": "club", "masklet_names": ["a", "b", "c"]}
    annotation.update(said, video_id="\ud800x", video_split="dev", masklet_label=["cup", "pot"])
    told = sav.describe(annotation)
    assert (told.name, told.split) == ("\\ud800x", None)
    assert json.loads(told.metadata or "") == said
    assert sav.describe({"masklet": []}) == Description(name=None, split=None, metadata=None)


def test_endless_metadata_is_refused_and_that_of_a_stranger_is_checked(annotation):
    with pytest.raises(sav.SavError, match="v1: more than 65536 characters"):
        sav.describe(annotation | {"author": "A" * 70_000})
    with pytest.raises(ValueError, match="metadata is no JSON object"):
        sav.to_sav(make_video(source_metadata="[]"), [make_masklet([1])])
    forged = sav.to_sav(make_video(source_metadata='{"masklet_num": 9, "video_height": 1}'), [make_masklet([1])])
    assert (list(forged), forged["masklet_num"], forged["video_height"]) == (list(sav.KEYS), 1, H)


def test_fields_of_masklets_that_sav_does_not_define_follow_their_masklet(annotation):
    depth = [[t, 10.0 + t] for t in range(6)]
    annotation.update(masklet_label=["cup", None], masklet_parts=[[1, 2, 3], {"of": "m1"}], masklet_depth=depth)
    first, second = sav.from_sav(annotation, video=make_video())
    assert json.loads(second.source_metadata or "") == {
        "masklet_label": None,
        "masklet_parts": {"of": "m1"},
        "frames": {"masklet_depth": [10.0, 11.0, 12.0, 13.0, 14.0, 15.0]},
    }
    back = sav.to_sav(make_video(), [first, second])
    assert {key: value for key, value in back.items() if key not in sav.KEYS} == {
        key: annotation[key] for key in ("masklet_label", "masklet_parts", "masklet_depth")
    }
    assert sav.from_sav(back, video=make_video()) == [first, second]
    other = make_masklet([3] * 6, masklet_id="m3")
    late = dataclasses.replace(second, **{of: getattr(second, of)[2:] for of in ("frame_idx", "rle", "area_px")})
    back = sav.to_sav(make_video(), [late, other])
    assert back["masklet_label"] == [None, None]
    assert back["masklet_parts"] == [{"of": "m1"}, None]
    assert back["masklet_depth"] == [[None, None], [None, None], *([10.0 + t, None] for t in range(4))]


def test_endless_metadata_of_a_masklet_is_refused_and_that_of_a_stranger_is_checked(annotation):
    long = annotation | {"masklet_label": ["cup", "A" * 70_000]}
    with pytest.raises(sav.SavError, match="v1: masklet 1: more than 65536 characters"):
        sav.from_sav(long, video=make_video())
    assert [masklet.source_metadata for masklet in sav.from_sav(long)] == [None, None]
    with pytest.raises(ValueError, match="masklet m1: its metadata is no JSON object"):
        sav.to_sav(make_video(), [make_masklet([1], source_metadata="[]")])
    told = {"masklet_num": 9, "video_id": "x", "frames": {"masklet": [1], "masklet_depth": 3}}
    forged = sav.to_sav(make_video(), [make_masklet([1], source_metadata=json.dumps(told))])
    assert forged == sav.to_sav(make_video(), [make_masklet([1])]) | {"masklet_depth": [[None]] * 6}
    assert sav.to_sav(make_video(), [make_masklet([1], source_metadata='{"frames": 1}')])


@pytest.mark.parametrize("text", ["", "no", "[]", "[1]", "\x00", "[" * 100_000], ids=len)
def test_a_file_that_is_not_an_annotation_is_refused_in_one_line(tmp_path, text):
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(sav.SavError, match="a.json"):
        sav.read(path)
    with pytest.raises(sav.SavError, match="b.json"):
        sav.read(tmp_path / "b.json")


def test_an_annotation_of_another_size_is_refused(annotation):
    with pytest.raises(sav.SavError, match="the video is 48 x 64"):
        sav.from_sav(annotation, video=make_video(height=48, width=64))


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([], "one kind"),
        ([make_masklet([1]), make_masklet([1], kind="manual")], "one kind"),
        ([make_masklet([1], video_id="v2")], "is of v2"),
        ([make_masklet([0])], "no frame shows the object"),
    ],
)
def test_masklets_that_cannot_make_a_file_are_a_value_error(rows, says):
    with pytest.raises(ValueError, match=says):
        sav.to_sav(make_video(), rows)


def test_a_release_is_exported_file_by_file(tmp_path):
    from storage.blobs.folder import LocalBlobs
    from storage.dataset import parts, releases
    from storage.iceberg.tables import Tables

    blobs = LocalBlobs(tmp_path / "root")
    with Tables.open(f"sqlite:///{tmp_path}/catalog.db", f"{blobs.uri}/warehouse") as tables:
        for video_id in ("v1", "v2"):
            video = make_video(video_id=video_id, video_key=f"videos/{video_id}.mp4")
            blobs.write(video.video_key, video_id.encode())
            blobs.create(video.frames_key, b"[]")
            parts.write_part(blobs, kind="videos", batch_id="b1", video_id=video_id, rows=[video])
            rows = [make_masklet([2] * 6, masklet_id=f"{video_id}-auto", video_id=video_id)]
            if video_id == "v1":
                manual = make_masklet([3] * 6, masklet_id="v1-manual", video_id=video_id, kind="manual", phase="3")
                rows.append(manual)
            parts.write_part(blobs, kind="masklets", batch_id="b1", video_id=video_id, rows=rows)
        parts.commit_batch(blobs, tables, "videos", "b1")
        parts.commit_batch(blobs, tables, "masklets", "b1")
        release = releases.make(blobs, tables, "r1")
    written = sav.export(release, tmp_path / "out", media=True).files
    assert [p.name for p in written] == ["v1_manual.json", "v1_auto.json", "v1.mp4", "v2_auto.json", "v2.mp4"]
    assert (tmp_path / "out" / "v2.mp4").read_bytes() == b"v2"
    assert sav.read(tmp_path / "out" / "v1_manual.json")[0].rle == make_masklet([3] * 6).rle
    for name, row in (("v1_auto", make_masklet([2] * 6, masklet_id="v1-auto", video_id="v1")), ("v1_manual", manual)):
        text = (tmp_path / "out" / f"{name}.json").read_text()
        video = make_video(video_id="v1", video_key="videos/v1.mp4")
        assert text == json.dumps(sav.to_sav(video, [row])), "written a frame at a time, as a whole it is the same"
