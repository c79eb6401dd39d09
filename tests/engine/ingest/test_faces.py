"""Blurred faces: where, for how long, and what the dataset says about it. A white square plays the face."""

import json

import av
import numpy as np
import pytest

from engine.ingest import ingest, judge
from engine.ingest.faces import BadDetector, BlurConfig, FaceBlur
from engine.services import connect
from engine.settings import IngestSettings, Settings
from storage.videos import video
from storage.videos.video import FrameReader

H, W, FACE = 96, 128, 20
NOISE = np.random.default_rng(0).integers(0, 120, (H, W, 3), dtype=np.uint8)


def white(picture: np.ndarray) -> list[tuple[float, float, float, float]]:
    """A detector that finds the white square."""
    y, x = np.nonzero(picture.min(axis=2) > 220)
    return [(float(x.min()), float(y.min()), float(x.max() + 1), float(y.max() + 1))] if len(x) else []


def frame_with(face_xy: tuple[int, int] | None) -> np.ndarray:
    frame = NOISE.copy()
    if face_xy:
        x, y = face_xy
        frame[y : y + FACE, x : x + FACE] = 255
        frame[y + 8 : y + 12, x + 8 : x + 12] = 230  # what makes it a certain face
    return frame


def blurred(frames: list[np.ndarray], config: BlurConfig) -> tuple[list[np.ndarray], FaceBlur]:
    """The pictures that are written, yuv420p, and what blurred them."""
    blur = FaceBlur(white, "white", config)
    given = [av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format="yuv420p") for frame in frames]
    before = [picture.to_ndarray() for picture in given]
    after = [picture.to_ndarray() for picture in blur.through(iter(given))]
    assert len(after) == len(frames)
    return [(a != b) for a, b in zip(after, before, strict=True)], blur


def test_a_face_is_blurred_wherever_it_is_and_nothing_else_changes():
    changed, blur = blurred([frame_with((30 + i, 40)) for i in range(6)], BlurConfig(hold=0, every=1))
    for i, change in enumerate(changed):
        ys, xs = np.nonzero(change[:H])
        assert ys.min() >= 40 - 6 and ys.max() < 40 + FACE + 6, "the margin is a quarter of the side"
        assert xs.min() >= 30 + i - 6 and xs.max() < 30 + i + FACE + 6
        assert change[H:].any(), "its colours, too"
    assert blur.blurred.frames == 6


def test_nothing_of_a_face_can_be_read_after_it_is_blurred():
    blur = FaceBlur(white, "white", BlurConfig(hold=0, every=1))
    stripes = frame_with((40, 40))
    stripes[40:60, 40:60:4] = 0
    stripes[40, 40:60] = stripes[59, 40:60] = stripes[40:60, 40] = stripes[40:60, 59] = 255
    picture = av.VideoFrame.from_ndarray(stripes, format="rgb24").reformat(format="yuv420p")
    before = picture.to_ndarray()[42:58, 42:58].astype(int)
    after = next(blur.through(iter([picture]))).to_ndarray()[42:58, 42:58].astype(int)
    assert np.abs(np.diff(before, axis=1)).max() > 150 and np.abs(np.diff(after, axis=1)).max() < 25


def test_a_face_is_blurred_before_it_is_found_and_after_it_is_lost():
    """On frames 10 to 13 it is found, on 6 to 9 and 14 to 17 the detector misses it."""
    frames = [frame_with((40, 40) if 10 <= i < 14 else None) for i in range(24)]
    changed, blur = blurred(frames, BlurConfig(hold=4, every=1))
    assert [i for i, change in enumerate(changed) if change.any()] == list(range(6, 18))
    assert (blur.blurred.faces, blur.blurred.frames) == (1, 12)


def test_a_video_without_faces_stays_as_it_is():
    changed, blur = blurred([frame_with(None)] * 8, BlurConfig(hold=3))
    assert not any(change.any() for change in changed) and blur.blurred.frames == 0


def test_a_face_that_is_found_all_the_time_leaves_no_trail():
    changed, _ = blurred([frame_with((10 + 2 * i, 40)) for i in range(40)], BlurConfig())
    widths = [int(np.nonzero(change[:H])[1].max() - np.nonzero(change[:H])[1].min()) for change in changed]
    assert max(widths) < FACE * 1.5 + 2 * 2 * 2 + 4


def test_faces_are_counted_once_each_while_they_stay():
    frames = [frame_with((10 + i, 40)) for i in range(40)] + [frame_with((100, 10 + i)) for i in range(30)]
    assert blurred(frames, BlurConfig())[1].blurred.faces == 2


@pytest.fixture
def source(tmp_path):
    video.write(tmp_path / "source" / "a.mp4", np.stack([frame_with((30 + i, 40)) for i in range(48)]))
    video.write(tmp_path / "source" / "b.mp4", np.stack([np.roll(frame_with(None), 2 * i, axis=1) for i in range(48)]))
    return tmp_path / "source"


def settings(tmp_path, weights) -> Settings:
    return Settings(home=tmp_path / "home", ingest=IngestSettings(blur_faces=True, face_detector=weights))


@pytest.mark.slow
def test_the_stored_video_shows_no_face_and_the_dataset_says_who_looked_for_it(tmp_path, source, monkeypatch):
    monkeypatch.setattr(judge, "FaceDetector", lambda weights, min_score: Named())
    with connect(settings(tmp_path, tmp_path / "weights.onnx")) as s:
        assert ingest.admit(s, str(source)).admitted == 2
        rows = {row.source_uri[-5:]: row for row in s.tables.videos()}
        told = {name: json.loads(row.source_metadata or "")["faces_blurred"] for name, row in rows.items()}
        assert told == {
            "a.mp4": {"detector": "white", "faces": 1, "frames": 48},
            "b.mp4": {"detector": "white", "faces": 0, "frames": 0},
        }
        assert (rows["a.mp4"].changes, rows["b.mp4"].changes) == (("faces blurred, 1 face on 48 frames",), ())
        with FrameReader(s.blobs.fetch(rows["a.mp4"].video_key)) as reader:
            shown = {i: reader.read(i)[50, 27 + i : 53 + i].astype(int) for i in (0, 20, 47)}  # across the face
        edges = {i: np.abs(np.diff(line.mean(axis=1))).max() for i, line in shown.items()}
        assert (
            np.abs(np.diff(frame_with((30, 40))[50, 27:53].astype(int).mean(axis=1))).max()
            > 100
            > 3 * max(edges.values())
        )


class Named:
    name = "white"

    def __call__(self, picture):
        return white(picture)


@pytest.mark.parametrize("content", [None, b"no weights"])
def test_a_detector_that_cannot_be_read_ends_the_run_in_one_line_and_refuses_no_file(tmp_path, source, content):
    weights = tmp_path / "weights.onnx"
    if content:
        weights.write_bytes(content)
    with connect(settings(tmp_path, weights)) as s:
        with pytest.raises(BadDetector, match=r"^.*/weights.onnx: [^\n]+$"):
            ingest.admit(s, str(source))
        assert s.tables.row_count("quarantine") == 0 and s.tables.row_count("videos") == 0


def test_faces_are_not_blurred_without_a_detector_that_somebody_named():
    with pytest.raises(ValueError, match="set face_detector"):
        IngestSettings(blur_faces=True)
    assert not IngestSettings().blur_faces
