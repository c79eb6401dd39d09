"""DAVIS: an export is read back, and another folder is refused in one line."""

from __future__ import annotations

import zlib
from typing import cast

import cv2
import numpy as np
import pytest
from PIL import Image

from storage import rle
from storage.dataset.releases import Release
from storage.formats import davis
from storage.formats.davis import DavisError
from storage.formats.picture_folder import PictureReader, in_order, read_png
from storage.pixels import PictureError
from storage.records import Masklet, Video
from storage.videos import video
from tests.storage import rows

H, W = 48, 64


def make_video(**changes) -> Video:
    values = {"video_key": "v1.mp4", "height": H, "width": W, "frame_count": 9, "duration_s": 9 / 24}
    return rows.make_video(**{**values, **changes})


def make_masklet(name, boxes) -> Masklet:
    """boxes: (y0, y1, x0, x1) for each annotated frame, None where the object is absent."""
    masks = np.zeros((len(boxes), H, W), bool)
    for mask, box in zip(masks, boxes, strict=True):
        if box:
            mask[box[0] : box[1], box[2] : box[3]] = True
    return Masklet(
        masklet_id=name,
        video_id="v1",
        batch_id="b1",
        height=H,
        width=W,
        frame_idx=tuple(range(0, 4 * len(boxes), 4)),
        rle=tuple(map(rle.encode, masks)),
        area_px=tuple(int(mask.sum()) for mask in masks),
        score=(1.0,) * len(boxes),
        object_score=(1.0,) * len(boxes),
        stability=(1.0,) * len(boxes),
        kind="manual",
        phase="3",
        round=0,
        checkpoint="",
        prompt="{}",
    )


PERSON = make_masklet("a", [(0, 40, 0, 20), (0, 40, 4, 24), None])
HAND = make_masklet("b", [(10, 20, 10, 30), (10, 20, 14, 34), (10, 20, 18, 38)])


class OneVideo:
    """The part of a release that an export uses."""

    def __init__(self, folder, rows, split="val"):
        self.blobs, self.rows, self.split = self, rows, split
        self.name, self.digest = "release-0001", "0" * 64
        self.path = folder / "v1.mp4"
        rng = np.random.default_rng(0)
        shades = [np.full((H, W, 3), 20 * i + 20, np.uint8) + rng.integers(0, 9, 3, dtype=np.uint8) for i in range(9)]
        video.write(self.path, shades)

    def videos(self):
        return [make_video(split=self.split)]

    def masklets(self, _):
        return self.rows

    def masklet_counts(self):
        return {"v1": len(self.rows)}

    def fetch(self, _):
        return self.path


@pytest.fixture
def root(tmp_path):
    davis.export(cast(Release, OneVideo(tmp_path, [PERSON, HAND])), tmp_path / "davis")
    return tmp_path / "davis"


def open_it(root):
    ((name, split),) = davis.names(root).items()
    return davis.open_video(root, name, split)


def ids_of(path):
    return read_png(path)[0]


def test_an_export_is_read_back(root, tmp_path):
    clip = open_it(root)
    assert (clip.name, clip.split, clip.height, clip.width, len(clip.pictures)) == ("v1", "val", H, W, 3)
    masks = clip.masks()
    assert {n: sorted(of) for n, of in masks.items()} == {1: [0, 1], 2: [0, 1, 2]}
    for t in range(3):
        hand = rle.decode(HAND.rle[t], H, W)
        assert np.array_equal(rle.decode(masks[2][t], H, W), hand)
        if t < 2:  # the hand is smaller, so it lies over the person
            assert np.array_equal(rle.decode(masks[1][t], H, W), rle.decode(PERSON.rle[t], H, W) & ~hand)
    with PictureReader("v1", clip.pictures, keep=1) as reader, video.FrameReader(tmp_path / "v1.mp4") as stored:
        for t in (2, 0, 1):
            assert np.abs(reader.read(t).astype(int) - stored.read(4 * t)).max() <= 4
        with pytest.raises(ValueError, match="frames 0 to 2, not 3"):
            reader.read(3)


def test_which_masklet_lies_on_top_is_decided_once_for_the_whole_video():
    late = make_masklet("c", [(0, 2, 0, 2), (0, 40, 0, 40), (0, 40, 0, 40)])  # small only while it enters the frame
    ids, hidden = davis.flatten(make_video(), [HAND, late], 0)
    assert hidden == 0 and (ids == 2).sum() == 4 and (ids == 1).sum() == 200
    ids, hidden = davis.flatten(make_video(), [late, HAND], 4)
    assert (ids == 2).sum() == 200 == hidden


def test_the_palette_is_that_of_davis(root):
    assert davis.palette()[:4].tolist() == [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0]]
    assert davis.palette()[255].tolist() == [224, 224, 192]
    with Image.open(next((root / "Annotations").rglob("*.png"))) as image:
        assert image.mode == "P" and (image.getpalette() or [])[3:6] == [128, 0, 0]


def test_more_masklets_than_ids_are_refused():
    davis.flatten(make_video(), [HAND] * 254, 0)
    with pytest.raises(DavisError, match="255 masklets, DAVIS has ids for 254"):
        davis.flatten(make_video(), [HAND] * 255, 0)


def test_too_many_masklets_are_refused_before_anything_is_written(tmp_path):
    with pytest.raises(DavisError, match="v1: 300 masklets, DAVIS has ids for 254"):
        davis.export(cast(Release, OneVideo(tmp_path, [HAND] * 300)), tmp_path / "davis")
    assert not (tmp_path / "davis").exists()


def test_pixels_that_one_id_a_pixel_cannot_show_are_counted(tmp_path):
    done = davis.export(cast(Release, OneVideo(tmp_path, [PERSON, HAND])), tmp_path / "davis")
    both = [rle.decode(a, H, W) & rle.decode(b, H, W) for a, b in zip(PERSON.rle, HAND.rle, strict=True)]
    assert done.lost_px == sum(int(mask.sum()) for mask in both) > 0


def test_2016_is_read_too(root):
    """Greyscale masks of one object, and image sets that list pictures."""
    for path in (root / "Annotations").rglob("*.png"):
        Image.fromarray(np.where(ids_of(path) == 2, 255, 0).astype(np.uint8)).save(path)
    (root / "ImageSets" / "2017").rename(root / "ImageSets" / "480p")
    listing = root / "ImageSets" / "480p" / "val.txt"
    listing.write_text("".join(f"/JPEGImages/480p/v1/{i:05d}.jpg /Annotations/480p/v1/{i:05d}.png\n" for i in (0, 4)))
    masks = open_it(root).masks()
    assert list(masks) == [1] and [masks[1][t] for t in range(3)] == list(HAND.rle)


def test_void_pixels_belong_to_no_object(root):
    path = next((root / "Annotations").rglob("00000.png"))
    ids = ids_of(path)
    ids[ids == 1] = 255
    davis.write_ids(path, ids)
    assert sorted(open_it(root).masks()[1]) == [1] and 255 not in open_it(root).masks()


def test_the_image_sets_are_those_of_the_newest_year(root):
    for year in ("2016", "2019"):
        (root / "ImageSets" / year).mkdir()
        (root / "ImageSets" / year / "train.txt").write_text(f"of{year}\n\n")
    assert davis.names(root) == {"of2019": "train"}


def test_a_root_without_image_sets_is_for_training(root):
    for path in sorted((root / "ImageSets").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    assert davis.names(root) == {"v1": "train"}


def picture(root, name="00004.jpg"):
    return next((root / "JPEGImages").rglob(name))


def mask(root):
    return next((root / "Annotations").rglob("00004.png"))


def all_void(root):
    for path in (root / "Annotations").rglob("*.png"):
        davis.write_ids(path, np.where(ids_of(path) > 0, 255, 0).astype(np.uint8))


def grey_ids_that_never_meet(root):
    for n, path in zip((1, 1, 2), in_order((root / "Annotations").rglob("*.png")), strict=True):
        Image.fromarray(((ids_of(path) == 2) * n).astype(np.uint8)).save(path)


SPOILED = {
    "its picture 00004.jpg is missing": lambda root: picture(root).unlink(),
    "no pictures of the sequence v1": lambda root: [path.unlink() for path in (root / "JPEGImages").rglob("*.jpg")],
    "24 x 32, the sequence began with 48 x 64": lambda root: cv2.imwrite(
        str(picture(root)), np.zeros((24, 32, 3), np.uint8)
    ),
    "24 x 32, its pictures are 48 x 64": lambda root: davis.write_ids(mask(root), np.zeros((24, 32), np.uint8)),
    "neither a palette image nor grey of 8 bits, but RGB": lambda root: Image.new("RGB", (W, H)).save(mask(root)),
    "neither a palette image nor grey of 8 bits, but I;16": lambda root: Image.fromarray(
        np.full((H, W), 300, np.uint16)
    ).save(mask(root)),
    "masks without a palette, and others have one": lambda root: Image.new("L", (W, H), 7).save(mask(root)),
    "its masks hold only id 255, which is void in DAVIS": all_void,
    "grey in 3 values in its sequence": grey_ids_that_never_meet,
    "00004.png: a second picture of the frame 00004.jpg": lambda root: Image.new("RGB", (W, H)).save(
        picture(root).with_suffix(".png")
    ),
    "00004.jpg: not a picture": lambda root: picture(root).write_bytes(b"nothing"),
    "00004.png: not a picture (Image size (1073741824 pixels) exceeds limit": lambda root: mask(root).write_bytes(
        bomb(mask(root).read_bytes())
    ),
    "valid.txt, test.txt, test-dev.txt, test-challenge.txt list no sequence": lambda root: [
        path.write_text("") for path in (root / "ImageSets").rglob("*.txt")
    ],
    "JPEGImages and Annotations": lambda root: (root / "JPEGImages").rename(root / "Pictures"),
    "no resolution in common": lambda root: (root / "JPEGImages" / "Full-Resolution").rename(
        root / "JPEGImages" / "1080p"
    ),
}


def bomb(png: bytes) -> bytes:
    """A small file whose header claims a picture of 32,768 x 32,768."""
    made = bytearray(png)
    made[16:24] = (2**15).to_bytes(4, "big") * 2
    made[29:33] = zlib.crc32(made[12:29]).to_bytes(4, "big")
    return bytes(made)


@pytest.mark.parametrize("line", SPOILED)
def test_a_folder_that_is_not_davis_is_refused_in_one_line(root, line):
    SPOILED[line](root)
    with pytest.raises(PictureError) as error:
        open_it(root).masks()
    assert line in str(error.value) and "\n" not in str(error.value)


def test_half_a_jpeg_is_refused_with_its_name(root):
    noise = np.random.default_rng(0).integers(0, 255, (H, W, 3), dtype=np.uint8)
    whole = video.jpeg(noise)
    picture(root).write_bytes(whole[: len(whole) // 2])
    clip = open_it(root)
    with PictureReader("v1", clip.pictures) as reader:
        assert reader.read(0).shape == (H, W, 3)
        with pytest.raises(PictureError, match="00004.jpg: not a whole picture"):
            reader.read(1)


def test_numbers_in_names_give_the_order_of_pictures_and_masks(root):
    for folder, suffix in ((root / "JPEGImages", "jpg"), (root / "Annotations", "png")):
        for n, path in zip((2, 10, 11), in_order(folder.rglob(f"*.{suffix}")), strict=True):
            path.rename(path.with_name(f"{n}.{suffix}"))
    clip = open_it(root)
    assert [path.stem for path in clip.pictures] == ["2", "10", "11"]
    assert [(t, path.stem) for t, path in clip.annotations] == [(0, "2"), (1, "10"), (2, "11")]


@pytest.mark.parametrize(
    "names", [["0", "1", "2", "10", "11"], ["f1", "f2", "f10"], ["a", "b"], ["1", "1b", "2"], ["00001", "2", "00010"]]
)
def test_names_are_in_natural_order(tmp_path, names):
    assert [path.stem for path in in_order(tmp_path / f"{name}.jpg" for name in sorted(names))] == names


def test_hidden_files_are_no_pictures_and_no_masks(root):
    for folder, name in ((picture(root).parent, "._00004.jpg"), (mask(root).parent, "._00004.png")):
        (folder / name).write_bytes(b"Mac OS X")
    (root / "JPEGImages" / ".DS_Store").write_bytes(b"Bud1")
    clip = open_it(root)
    assert len(clip.pictures) == 3 and sorted(clip.masks()) == [1, 2]


def test_an_orientation_in_the_metadata_turns_neither_pictures_nor_masks(root):
    clip = open_it(root)
    with PictureReader("v1", clip.pictures) as reader:
        before = reader.read(1)
    half = np.zeros((H, W, 3), np.uint8)
    half[: H // 2] = 200
    image = Image.fromarray(half)
    exif = image.getexif()
    exif[0x0112] = 3  # turned by 180 degrees
    image.save(picture(root), exif=exif, quality=95)
    with PictureReader("v1", open_it(root).pictures) as reader:
        assert np.abs(reader.read(1).astype(int) - half).max() < 20 and before.shape == half.shape


def flat(root, split):
    """The layout of YouTube-VOS and MOSE: no resolutions, no image sets, and PNG frames as some tools write."""
    for kind in ("JPEGImages", "Annotations"):
        (root / kind / davis.WRITTEN[0]).rename(root / "moved")
        (root / kind).rmdir()
        (root / "moved").rename(root / kind)
    for path in list((root / "JPEGImages").rglob("*.jpg")):
        with Image.open(path) as image:
            image.save(path.with_suffix(".png"))
        path.unlink()
    for path in sorted((root / "ImageSets").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    return root.rename(root.with_name(split))


@pytest.mark.parametrize(("name", "split"), [("train", "train"), ("valid", "val"), ("MOSE", "train")])
def test_the_layout_of_youtube_vos_and_mose_is_read(root, name, split):
    moved = flat(root, name)
    assert davis.names(moved) == {"v1": split}
    clip = open_it(moved)
    assert sorted(clip.masks()) == [1, 2] and {path.suffix for path in clip.pictures} == {".png"}
    with PictureReader("v1", clip.pictures) as reader:
        assert reader.read(2).shape == (H, W, 3)


def test_the_image_sets_of_davis_challenges_are_the_split_test(root):
    listing = root / "ImageSets" / "2017" / "val.txt"
    listing.rename(listing.with_name("test-dev.txt"))
    assert davis.names(root) == {"v1": "test"}
    assert sorted(open_it(root).masks()) == [1, 2]
