"""The kinds of bad inputs: how hypothesis makes the inputs of each kind, what reads them, and which errors refuse them.

Readers are imported when they are called, so that atheris can watch them: see `benchmarks/bad_inputs.py`.
"""

from __future__ import annotations

import importlib
import json
import re
import tempfile
from collections.abc import Callable
from copy import deepcopy
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st

H, W, FRAMES = 24, 32, 6
EDITS = st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=6)), max_size=6)
CUT = st.one_of(st.none(), st.floats(0, 1))
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from([[], {}, [[]], [None], "", "0", 10**400, -1]).map(deepcopy),  # what is drawn is edited later
)


def damaged(data: bytes) -> st.SearchStrategy[bytes]:
    """Valid bytes with edits, cuts and repeats; sometimes only random bytes."""

    def apply(how: tuple[list[tuple[float, bytes]], float | None, bool]) -> bytes:
        edits, cut, twice = how
        made = bytearray(data)
        for place, new in edits:
            at = int(place * len(made))
            made[at : at + len(new)] = new
        if cut is not None:
            del made[int(cut * len(made)) :]
        return bytes(made) * (1 + twice)

    return st.one_of(st.tuples(EDITS, CUT, st.booleans()).map(apply), st.binary(max_size=200))


@st.composite
def damaged_json(draw: st.DrawFn, document: Any) -> bytes:
    """A JSON document in which some values are replaced, removed or doubled."""
    made = json.loads(json.dumps(document))
    for _ in range(draw(st.integers(1, 3))):
        parent: Any = None
        place: Any = None
        here: Any = made
        while isinstance(here, dict | list) and here and (parent is None or draw(st.integers(0, 3))):
            parent, place = here, draw(st.sampled_from(sorted(here) if isinstance(here, dict) else range(len(here))))
            here = here[place]
        if parent is None:
            break
        act = draw(st.sampled_from(["replace", "replace", "remove", "double"]))
        if act == "remove":
            del parent[place]
        elif act == "double" and isinstance(parent, list):
            parent.append(here)
        else:
            parent[place] = draw(SCALARS)
    return json.dumps(made).encode()


@st.composite
def damaged_text(draw: st.DrawFn, text: str, value: str) -> bytes:
    """A text in which some values are replaced. value: a pattern, whose first group is what may be replaced."""
    places = [match.span(1) for match in re.finditer(value, text)]
    for start, end in sorted(
        draw(st.lists(st.sampled_from(places), min_size=1, max_size=3, unique=True)), reverse=True
    ):
        text = text[:start] + str(draw(SCALARS)) + text[end:]
    return text.encode(errors="replace")


# --- what reads each kind: returns nothing, or raises one of the errors beside it -----------------------------------


@cache
def _video_bytes() -> bytes:
    from storage.videos import video

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "v.mp4"
        rng = np.random.default_rng(0)
        video.write(path, rng.integers(0, 255, (30, 64, 64, 3), dtype=np.uint8))
        return path.read_bytes()


def _read_video(data: bytes, folder: Path) -> None:
    from engine.ingest import judge
    from engine.ingest.near_duplicates import Looker
    from engine.settings import IngestSettings

    path = folder / "in.mp4"
    path.write_bytes(data)
    judge._normalise(path, folder / "out.mp4", IngestSettings(), frozenset(), Looker(), None)


def _masklet() -> Any:
    from storage import rle
    from storage.records import STRIDE, Masklet

    mask = np.zeros((H, W), bool)
    mask[4:12, 6:20] = True
    return Masklet(
        masklet_id="m1",
        video_id="v1",
        batch_id="b1",
        height=H,
        width=W,
        frame_idx=tuple(range(0, STRIDE * FRAMES, STRIDE)),
        rle=(rle.encode(mask),) * FRAMES,
        area_px=(int(mask.sum()),) * FRAMES,
        score=(0.9,) * FRAMES,
        object_score=(5.0,) * FRAMES,
        stability=(0.9,) * FRAMES,
        kind="manual",
        phase="3",
        round=0,
        checkpoint="micro",
        prompt="{}",
        verdict="accept",
        source_position=0,
    )


def _video() -> Any:
    from storage.records import STRIDE, Video

    return Video(
        video_id="v1",
        source_uri="/in/v1.mp4",
        source_sha256="0" * 64,
        video_key="videos/v1/video.mp4",
        video_sha256="0" * 64,
        frames_key="videos/v1/frames.json",
        height=H,
        width=W,
        frame_count=STRIDE * FRAMES,
        duration_s=FRAMES / 6,
        source_fps=24.0,
        variable_rate=False,
        rotation=0,
        split="train",
        batch_id="b1",
    )


def _read_rle(data: tuple[bytes, int, int], folder: Path) -> None:
    from storage import rle

    counts, height, width = data
    rle.decode(counts, height, width)


def _read_sav(data: bytes, folder: Path) -> None:
    from storage.formats import sav

    sav.from_sav(sav.load(data), video=_video())


def _read_coco(data: bytes, folder: Path) -> None:
    from storage.formats import coco

    coco.read(data, "annotations.json")


def _read_youtube_vis(data: bytes, folder: Path) -> None:
    from storage.formats import youtube_vis

    youtube_vis.read(data, "annotations.json")


def _read_cvat(data: bytes, folder: Path) -> None:
    from storage.formats import cvat

    cvat.read(data, "annotations.xml")


def _read_metadata(data: bytes, folder: Path) -> None:
    """A table beside the videos: bad ones are named, none stops the others."""
    from engine.ingest import metadata
    from engine.settings import IngestSettings
    from storage.blobs.folder import LocalBlobs

    source = LocalBlobs(folder / "source")
    table = "metadata.parquet" if data.startswith(b"PAR1") else "metadata.csv"
    for name, content in ((table, data), ("below/metadata.csv", b"file_name,author\nv2.mp4,ann\n")):
        source.write(name, content)
    found = metadata.read(source, [table, "below/metadata.csv", "v1.mp4", "below/v2.mp4"], IngestSettings(), _is_mp4)
    if "below/v2.mp4" not in found.rows:
        raise AssertionError("a table costs another one its rows")
    if bad := [line for _, line in found.bad if "\n" in line]:
        raise AssertionError(f"a reason of several lines: {bad[0]}")


def _is_mp4(key: str) -> bool:
    return key.endswith(".mp4")


def _read_part(data: bytes, folder: Path) -> None:
    """A part that was damaged before its hash was taken."""
    import hashlib

    from storage.blobs.folder import LocalBlobs
    from storage.dataset import parts

    blobs = LocalBlobs(folder / "store")
    blobs.write("part.parquet", data)
    marker = parts.Marker(
        kind="masklets",
        batch_id="b1",
        video_id="v1",
        key="part.parquet",
        sha256=hashlib.sha256(data).hexdigest(),
        rows=1,
        schema="",
    )
    parts.read_part(blobs, marker)


def _read_png(data: bytes, folder: Path) -> None:
    from storage.formats import picture_folder

    path = folder / "mask.png"
    path.write_bytes(data)
    picture_folder.read_png(path)


def _read_marker(data: bytes, folder: Path) -> None:
    from storage.blobs.folder import LocalBlobs
    from storage.dataset import parts

    blobs = LocalBlobs(folder / "store")
    blobs.write("commits/masklets/b1/v1.json", data)
    found = parts.marker(blobs, "masklets", "b1", "v1")
    if found is not None:
        parts.read_part(blobs, found)


def _sav_document() -> Any:
    from storage.formats import sav

    return sav.to_sav(_video(), [_masklet()])


def _coco_document() -> Any:
    names = [f"v1/{n:05d}.jpg" for n in range(3)]
    counts = _masklet().rle[0].decode()
    return {
        "videos": [{"id": 1, "name": "v1"}],
        "images": [
            {"id": n, "video_id": 1, "file_name": name, "height": H, "width": W, "frame_id": n}
            for n, name in enumerate(names)
        ],
        "annotations": [
            {
                "id": n,
                "image_id": n,
                "category_id": 1,
                "track_id": 7,
                "segmentation": {"size": [H, W], "counts": counts} if n else [[1, 1, 9, 1, 9, 9]],
                "attributes": {"colour": "red"},
            }
            for n in range(3)
        ],
        "categories": [{"id": 1, "name": "cat"}],
    }


def _youtube_vis_document() -> Any:
    counts = _masklet().rle[0].decode()
    return {
        "videos": [
            {"id": 1, "height": H, "width": W, "length": 2, "file_names": [f"v1/{n:05d}.jpg" for n in range(2)]}
        ],
        "annotations": [
            {"id": 1, "video_id": 1, "category_id": 1, "segmentations": [{"size": [H, W], "counts": counts}, None]}
        ],
        "categories": [{"id": 1, "name": "cat"}],
    }


CVAT = f"""<?xml version="1.0" encoding="utf-8"?>
<annotations><meta><task><name>v1</name><size>{FRAMES}</size><start_frame>0</start_frame><frame_filter>step=1</frame_filter>
<original_size><width>{W}</width><height>{H}</height></original_size><source>v1.mp4</source></task></meta>
<track id="0" label="cat" source="manual"><polygon frame="0" outside="0" occluded="0" keyframe="1" points="1,1;9,1;9,9"
z_order="0"><attribute name="colour">red</attribute></polygon>
<polygon frame="4" outside="1" points="1,1;9,1;9,9"/></track>
<track id="1" label="dog" source="auto" group_id="2"><mask frame="0" outside="0" rle="0, 12" left="3" top="4" width="4"
height="3"/></track></annotations>
"""
METADATA = "file_name,author,place,split,frames\nv1.mp4,ann,5.5,train,3\nv3.mp4,ben,,val,-1e9\n"


def _odd_table(values: list[tuple[int, bytes]]) -> bytes:
    """A metadata.parquet, a row for each pair: its number becomes the day and the time, its bytes the place."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    numbers = pa.array([number for number, _ in values], pa.int64())
    columns = {
        "file_name": pa.array([f"v{n}.mp4" for n in range(len(values))], pa.string()),
        "day": numbers.cast(pa.int32()).cast(pa.date32()),
        "time": numbers.cast(pa.timestamp("s")),
        "place": pa.array([text for _, text in values], pa.binary()).view(pa.string()),
    }
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink)
    return bytes(sink.getvalue())


def _png_bytes() -> bytes:
    from storage.formats import davis

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.png"
        ids = np.zeros((H, W), np.uint8)
        ids[4:9, 3:20] = 2
        davis.write_ids(path, ids)
        return path.read_bytes()


def _huge_png(side: int) -> bytes:
    """A small file that says it is a picture of this side: a bomb."""
    import zlib

    data = bytearray(_png_bytes())
    data[16:24] = side.to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    return bytes(data)


def _part_bytes() -> bytes:
    from storage import arrow
    from storage.records import Masklet

    return arrow.to_parquet(Masklet, [_masklet()])


def _other_columns(columns: list[str]) -> bytes:
    """A part in which some columns are of another type."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from storage import arrow
    from storage.records import Masklet

    table = arrow.to_arrow(Masklet, [_masklet()])
    for name in columns:
        at = table.column_names.index(name)
        table = table.set_column(at, name, pa.array([[["x"]]]))
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return bytes(sink.getvalue())


def all_kinds() -> dict[str, tuple[st.SearchStrategy[Any], Callable[[Any, Path], None], tuple[type[Exception], ...]]]:
    """Of each kind: how its inputs are made, what reads them, and which errors refuse them."""
    from storage.blobs.base import BlobMissing
    from storage.dataset import parts
    from storage.formats.imported import AnnotationError
    from storage.pixels import PictureError
    from storage.rle import BadRle
    from storage.videos.source_file import Refused

    row = _masklet()
    sizes = st.one_of(st.just(H), st.integers(-2, 2**40))
    marker = asdict(
        parts.Marker(kind="masklets", batch_id="b1", video_id="v1", key="k", sha256="0", rows=1, schema="", size=1)
    )
    png = st.one_of(damaged(_png_bytes()), st.sampled_from([2**14, 2**15, 2**20, 2**31 - 1]).map(_huge_png))
    columns = st.lists(st.sampled_from([f for f in asdict(row)]), min_size=1, max_size=3, unique=True)
    part = st.one_of(damaged(_part_bytes()), columns.map(_other_columns))
    odd = st.lists(st.tuples(st.integers(-(2**31), 2**31 - 1), st.binary(max_size=8)), max_size=3)
    table = st.one_of(odd.map(_odd_table), damaged(_odd_table([(0, b"Oslo")])))
    return {
        "video": (damaged(_video_bytes()), _read_video, (Refused,)),
        "rle": (st.tuples(damaged(row.rle[0]), sizes, sizes), _read_rle, (BadRle,)),
        "sav": (damaged_json(_sav_document()), _read_sav, (AnnotationError,)),
        "coco": (damaged_json(_coco_document()), _read_coco, (AnnotationError,)),
        "youtube_vis": (damaged_json(_youtube_vis_document()), _read_youtube_vis, (AnnotationError,)),
        "cvat": (damaged_text(CVAT, r'[>"]([^<>"]+)["<]'), _read_cvat, (AnnotationError,)),
        "metadata": (
            st.one_of(damaged_text(METADATA, r"([^,\n]*)[,\n]"), damaged(METADATA.encode()), table),
            _read_metadata,
            (),
        ),
        "marker": (damaged_json(marker), _read_marker, (parts.PartError, BlobMissing)),
        "parquet": (part, _read_part, (parts.PartError,)),
        "png": (png, _read_png, (PictureError,)),
    }


KINDS = ("video", "rle", "sav", "coco", "youtube_vis", "cvat", "metadata", "marker", "parquet", "png")


def import_readers() -> None:
    """What the readers above import only when they are called."""
    for name in (
        "engine.ingest.judge",
        "engine.ingest.metadata",
        "storage.blobs.folder",
        "storage.formats.picture_folder",
        "storage.dataset.parts",
    ):
        importlib.import_module(name)
