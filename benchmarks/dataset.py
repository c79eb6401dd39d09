"""The dataset beside SA-V's JSON: bytes, scans, reads, import, the evaluator, and the timeline of the source.

    python -m benchmarks.dataset [--json] [--quick] [--videos 60] [--sav FOLDER] [--official FOLDER]

Draws masks of the size and the roughness of SA-V's, writes them as SA-V's JSON (20 s of video, 4 manual and 9 automatic
masklets in each), and imports them into a new store. The videos are a few bytes: their ingest is not measured.

    bytes_ratio_json        bytes of the Parquet parts over those of the JSON of the same masks
    bytes_ratio_json_real   the same for the annotations below `--sav`, such as SA-V's own
    scan_ratio_json         one figure of the whole release, how many objects disappear and come back: seconds of
                            `json.load` of every file over seconds with the Parquet files after `masklets compact`
    one_video_ratio_json    seconds to read one video's masks from the release, with pyarrow alone, over those of
                            `json.load` of its two files. one_video_records_ratio_json: the same with all columns, as
                            records. The same two after `masklets compact`, which adds the long footer of a large file
    import_mb_per_min       MB of JSON a minute of CPU time: read, checked, compared with the stated figures, published
    jf_ratio_official       CPU seconds of SA-V's evaluator over ours, on the same masks in memory, one thread
    jf_max_diff_official    the largest difference of a J or an F of a masklet, in [0, 1]
    timeline_wrong_frames   masks on another frame of the source than their own, in exports with `--timeline source` of
                            videos with a variable rate, edit lists, B-frames, rotation and more

`--official` is a folder with `utils/sav_benchmark.py` of facebookresearch/sam2 (`sav_dataset`); it needs scikit-image
and tqdm. Without it, the two figures are left out. With `--sav`, they are of these masks. `--quick` is below 45 s on a
quiet machine. `--json` prints one line.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar
from unittest import mock

import cv2
import numpy as np
import pyarrow.compute as pc

from engine import batches
from engine.batches import BatchStage
from engine.ingest import ingest
from engine.services import Services, connect
from engine.settings import Settings
from engine.stages import imports, upkeep
from storage import arrow, rle
from storage.dataset import parts, releases
from storage.dataset.releases import Release
from storage.formats import sav
from storage.pixels import Mask
from storage.records import FPS, STRIDE, Masklet, Video, content_id
from validation import jf

T = TypeVar("T")

H, W = 848, 480  # of SA-V's published example; so are the length and the bytes of a mask
FRAMES = 121  # annotated ones
MANUAL, AUTO = 4, 9  # masklets of a video: SA-V has 3.8 and 8.9
WAVES = 40  # of an outline
LOG_SIZE = 3.3  # of an object in px: the masks then take the bytes of SA-V's
ROUGH = 0.5  # px that an outline jumps from one point to the next; so Parquet and JSON have the ratio of the real files
READS = 9  # of which the shortest counts
VIDEO_ID = [f.name for f in arrow.schema(Masklet)].index("video_id")
COMPACTED = 2**20  # bytes that a large file has at least: this release is a thousandth of SA-V


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    videos: int
    drawn: int  # videos with masks of their own; the others repeat them under other names
    pairs: int  # masklets that are measured with the official evaluator
    odd: int  # odd videos; 0: all


FULL = Size(videos=100, drawn=4, pairs=12, odd=0)
QUICK = Size(videos=24, drawn=1, pairs=3, odd=6)


def masks_of(seed: int, still: bool) -> Iterator[Mask]:
    """An object that drifts, changes its outline and is hidden for a while: bool (H, W) of each annotated frame.

    still: it stays where it is, and only an eighth of its
    outline changes from frame to frame.
    """
    rng = np.random.default_rng(seed)
    angle = np.linspace(0, 2 * np.pi, 720, endpoint=False)
    size = float(rng.lognormal(LOG_SIZE, 0.5))  # px
    centre, speed = rng.uniform((0.2 * W, 0.2 * H), (0.8 * W, 0.8 * H)), rng.normal(0, 0 if still else 2, 2)
    k = np.arange(1, WAVES + 1)
    phase, turn = rng.uniform(0, 2 * np.pi, WAVES), rng.normal(0, 0 if still else 0.25, WAVES)
    height = rng.normal(0, 1, WAVES) * 0.35 / k**1.1
    hidden = range(*sorted(rng.integers(20, FRAMES, 2))) if rng.random() < 0.4 else range(0)
    jumps = rng.normal(0, ROUGH, len(angle))
    for t in range(FRAMES):
        mask = np.zeros((H, W), np.uint8)
        first, count = int(rng.integers(len(angle))), len(angle) // 8 if still else len(angle)
        jumps[(first + np.arange(count)) % len(angle)] = rng.normal(0, ROUGH, count)
        if t not in hidden:
            waves = (height[:, None] * np.cos(k[:, None] * angle + (phase + turn * t)[:, None])).sum(0)
            radius = np.maximum(size * (1 + waves) + jumps, 2)
            around = np.stack([np.cos(angle), np.sin(angle)], 1) * radius[:, None]
            cv2.fillPoly(mask, [np.round(centre + t * speed + around).astype(np.int32)], 1)
        yield mask.astype(np.bool_)


def masklet_of(seed: int, kind: str, video_id: str, position: int) -> Masklet:
    """A masklet that people or the model drew."""
    counts, areas = [], []
    for mask in masks_of(seed, still=kind == "auto" and position % 3 == 0):
        counts.append(rle.encode(mask))
        areas.append(int(mask.sum()))
    rng = np.random.default_rng(seed)
    return Masklet(
        masklet_id=f"{kind}-{position}",
        video_id=video_id,
        batch_id="b",
        height=H,
        width=W,
        frame_idx=tuple(range(0, FRAMES * STRIDE, STRIDE)),
        rle=tuple(counts),
        area_px=tuple(areas),
        score=(1.0,) * FRAMES,
        object_score=(1.0,) * FRAMES,
        stability=tuple(np.where(np.array(areas) > 0, rng.uniform(0.95, 1, FRAMES), 1.0).tolist()),
        kind=kind,
        phase="3",
        round=0,
        checkpoint="drawn",
        prompt="{}",
        edited_frame_count=int(rng.integers(2, 40)) if kind == "manual" else 0,
    )


def video_of(name: str, folder: Path, batch_id: str) -> Video:
    """A stored video of no content. Its id follows from its name."""
    video_id = content_id("dataset", name)
    return Video(
        video_id=video_id,
        source_uri=f"{folder}/{name}.mp4",
        source_sha256="0" * 64,
        video_key=f"videos/{video_id}/video.mp4",
        video_sha256=hashlib.sha256(b"").hexdigest(),
        frames_key=f"videos/{video_id}/frames.json",
        height=H,
        width=W,
        frame_count=FRAMES * STRIDE,
        duration_s=FRAMES * STRIDE / FPS,
        source_fps=float(FPS),
        variable_rate=False,
        rotation=0,
        split="train",
        batch_id=batch_id,
        source_name=name,
    )


def write_sav(folder: Path, size: Size) -> tuple[list[str], int]:
    """Writes the annotations of all videos. Returns the names of the videos, and the bytes of the JSON."""
    folder.mkdir()
    names, written = [f"sav_{n:06d}" for n in range(size.videos)], 0
    for first in range(size.drawn):
        video = video_of(names[first], folder, "b")
        for kind, count in (("manual", MANUAL), ("auto", AUTO)):
            begin = 1000 * first + 100 * (kind == "auto")
            note = sav.to_sav(video, [masklet_of(begin + n, kind, video.video_id, n) for n in range(count)])
            for name in names[first :: size.drawn]:
                text = json.dumps(note | {"video_id": name})
                (folder / f"{name}_{kind}.json").write_text(text)
                written += len(text)
    return names, written


def admit(s: Services, folder: Path, names: Sequence[str]) -> str:
    """Stores the videos as ingest would have left them for an import. Returns their batch."""
    batch_id = content_id("batch", *names)
    times = json.dumps(
        {key: [k / FPS for k in range(FRAMES * STRIDE)] for key in ("source_s", "all_source_s")}
    ).encode()
    rows = [video_of(name, folder, batch_id) for name in names]
    for row in rows:
        s.blobs.create(row.video_key, b"")
        s.blobs.create(row.frames_key, times)
        parts.write_part(s.blobs, kind="videos", batch_id=batch_id, video_id=row.video_id, rows=[row])
    parts.commit_batch(s.blobs, s.tables, "videos", batch_id)
    facts = {"videos": [row.video_id for row in rows], "imported": True}
    batches.mark(s.blobs, batch_id, BatchStage.INGESTED, facts)
    return batch_id


def shortest(act: Callable[[], T], times: int = READS) -> tuple[float, T]:
    """Seconds of the shortest of several calls, and what the last one gave."""
    found = []
    for _ in range(times):
        since = time.perf_counter()
        result = act()
        found.append(time.perf_counter() - since)
    return min(found), result


def of_store(size: Size) -> dict[str, Any]:
    """The figures of bytes, scan, read and import."""
    with tempfile.TemporaryDirectory() as root, connect(Settings(home=Path(root) / "home")) as s:
        folder = Path(root) / "sav"
        names, json_bytes = write_sav(folder, size)
        print(f"{len(names)} videos, {json_bytes / 1e6:.1f} MB of JSON", file=sys.stderr)
        admit(s, folder, names)
        known = ingest.IngestReport(unchanged=len(names))
        since = time.process_time()
        with mock.patch.object(ingest, "admit", return_value=known):
            report = imports.import_folder(s, folder)
        import_s = time.process_time() - since
        assert report.masklets == size.videos * (MANUAL + AUTO) and not report.failed and not report.differing, report
        release = releases.load(s.blobs, report.release)
        part_bytes = sum(file.size for file in release.files("masklets"))
        large = releases.load(s.blobs, upkeep.compact(s, least=COMPACTED).release)
        found = {
            "bytes_ratio_json": part_bytes / json_bytes,
            "import_mb_per_min": 60 * json_bytes / 1e6 / import_s,
            "json_mb": json_bytes / 1e6,
            "bytes_a_mask_json": json_bytes / (report.masklets * FRAMES),
        }
        found |= of_scan(large, folder) | of_one_video(release, folder, names)
        compacted = of_one_video(large, folder, names)
        return found | {f"{name}_compacted": value for name, value in compacted.items()}


def of_scan(release: Release, folder: Path) -> dict[str, float]:
    """How many objects disappear and come back: from every JSON file, and from the release."""
    paths = sorted(folder.glob("*.json"))

    def from_json() -> int:
        count = 0
        for path in paths:
            note = json.loads(path.read_bytes())
            count += sum(changes >= 2 for changes in note["masklet_visibility_changes"])
        return count

    def from_release() -> int:
        count = 0
        for file in release.files("masklets"):
            with arrow.opened(release.blobs.fetch(file.key)) as opened:
                areas = opened.read(["area_px"], use_threads=False)["area_px"]
            for chunk in areas.chunks:
                ends = np.asarray(chunk.offsets)
                shown = np.asarray(chunk.values) > 0
                back = np.flatnonzero(~shown[:-1] & shown[1:]) + 1  # where an object appears
                owner = np.searchsorted(ends, back, side="right") - 1
                inside = back != ends[owner]
                first = np.minimum.reduceat(np.where(shown, np.arange(len(shown)), len(shown)), ends[:-1])
                later = inside & (back > first[owner])
                count += len(np.unique(owner[later]))
        return count

    json_s, expected = shortest(from_json, 3)
    ours_s, found = shortest(from_release)
    assert found == expected, (found, expected)
    return {"scan_ratio_json": json_s / ours_s, "scan_ms": 1000 * ours_s}


def of_one_video(release: Release, folder: Path, names: Sequence[str]) -> dict[str, float]:
    """One video's masks as COCO counts: from its two JSON files, and with pyarrow from the release; its records."""
    name = names[len(names) // 2]
    video_id = content_id("dataset", name)

    def from_json() -> list[bytes]:
        notes = [json.loads((folder / f"{name}_{kind}.json").read_bytes()) for kind in ("manual", "auto")]
        return [mask["counts"].encode() for note in notes for frame in note["masklet"] for mask in frame]

    def from_parquet() -> list[bytes]:
        counts: list[bytes] = []
        for file in release.published_files(video_id):
            with arrow.opened(release.blobs.fetch(file.key)) as opened:
                for n in range(opened.num_row_groups):
                    bounds = opened.metadata.row_group(n).column(VIDEO_ID).statistics
                    if bounds.min <= video_id <= bounds.max:
                        table = opened.read_row_group(n, columns=["video_id", "rle"], use_threads=False)
                        table = table.filter(pc.equal(table["video_id"], video_id))
                        counts += pc.list_flatten(table["rle"]).to_pylist()
        return counts

    json_s, expected = shortest(from_json)
    ours_s, found = shortest(from_parquet)
    records_s, rows = shortest(lambda: release.masklets([video_id]))
    assert sorted(found) == sorted(expected) and len(rows) == MANUAL + AUTO
    return {
        "one_video_ratio_json": ours_s / json_s,
        "one_video_records_ratio_json": records_s / json_s,
        "one_video_ms": 1000 * ours_s,
    }


def real_masklets(folder: Path) -> dict[str, list[Masklet]]:
    """The masklets of SA-V's own annotations, by video."""
    found: dict[str, list[Masklet]] = {}
    for path in sorted(path for end in sav.NOTES for path in folder.rglob(f"*{end}")):
        found.setdefault(path.name.rpartition("_")[0], []).extend(sav.read(path))
    return found


def of_real(folder: Path) -> dict[str, float]:
    """Bytes of SA-V's own annotations, and of the same masklets as Parquet parts, one a video."""
    json_bytes = sum(path.stat().st_size for end in sav.NOTES for path in folder.rglob(f"*{end}"))
    part_bytes = sum(len(arrow.to_parquet(Masklet, rows)) for rows in real_masklets(folder).values())
    return {"bytes_ratio_json_real": part_bytes / json_bytes, "json_mb_real": json_bytes / 1e6}


def pairs(real: Path | None, count: int) -> Iterator[tuple[list[Mask], list[Mask]]]:
    """Predicted and true masks of masklets: moved by a few pixels, or those of another masklet."""
    if real is None:
        drawn = [list(masks_of(n, still=n % 3 == 0)) for n in range(count)]
    else:
        rows = [row for of in real_masklets(real).values() for row in of][:count]
        drawn = [[rle.decode(counts, row.height, row.width) for counts in row.rle] for row in rows]
    for n, gt in enumerate(drawn):
        other = drawn[n - 1]
        if n % 3 == 2 and other[0].shape == gt[0].shape and len(other) == len(gt):
            yield other, gt
        else:
            yield [np.roll(mask, (3, 5), (0, 1)) for mask in gt], gt


def of_evaluator(folder: Path, size: Size, real: Path | None) -> dict[str, float]:
    """J and F of masklets, by SA-V's evaluator and by ours, from the same masks in memory."""
    sys.path.insert(0, str(folder))
    official = import_module("utils.sav_benchmark")
    worst, theirs_s, ours_s, count = 0.0, 0.0, 0.0, 0
    for pred, gt in pairs(real, size.pairs):
        since = time.process_time()
        evaluator = official.Evaluator(obj_id="1")
        for made, true in zip(pred[1:-1], gt[1:-1], strict=True):  # as its VideoEvaluator feeds it
            evaluator.feed_frame(mask=made, gt=true)
        j, f = (float(each[True]) / 100 for each in evaluator.conclude())
        between = time.process_time()
        ours = jf.of_masklet(pred, gt)
        ours_s += time.process_time() - between
        theirs_s += between - since
        assert ours is not None
        worst, count = max(worst, abs(ours.j - j), abs(ours.f - f)), count + 1
    return {"jf_ratio_official": theirs_s / ours_s, "jf_max_diff_official": worst, "jf_masklets": count}


def of_timeline(size: Size) -> dict[str, int]:
    """Exports odd videos on the timeline of their source, and looks at which frame each mask is."""
    from tests.storage.counted_videos import ODD, CountedRelease, shown_by_opencv
    from tests.storage.formats.test_timeline import COUNTERS

    wrong = masks = 0
    chosen = list(ODD.values())[: size.odd or None]
    for name, make_it in chosen:
        with tempfile.TemporaryDirectory() as root:
            source = make_it(Path(root) / name)
            release = CountedRelease(Path(root) / "root", source)
            shown = shown_by_opencv(source)
            for form, counters in COUNTERS.items():
                found = counters(release, Path(root) / form)
                masks += len(found)
                wrong += sum(shown[n] != counter for n, counter in found.items())
                wrong += len(set(release.counters.values()) - set(found.values()))  # lost frames
    return {"timeline_wrong_frames": wrong, "timeline_masks": masks, "timeline_videos": len(chosen)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON line")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK.videos} videos, {QUICK.odd} odd ones")
    parser.add_argument("--videos", type=int, help=f"videos of the dataset, default {FULL.videos}")
    parser.add_argument("--sav", type=Path, help="a folder with annotations of SA-V")
    parser.add_argument("--official", type=Path, help="the folder sav_dataset of facebookresearch/sam2")
    asked = parser.parse_args()
    size = QUICK if asked.quick else FULL
    size = replace(size, videos=asked.videos or size.videos)
    if asked.official and not (asked.official / "utils" / "sav_benchmark.py").exists():
        parser.error(f"{asked.official} has no utils/sav_benchmark.py")
    found = of_store(size)
    found |= of_real(asked.sav) if asked.sav else {}
    found |= of_evaluator(asked.official, size, asked.sav) if asked.official else {}
    found |= of_timeline(size)
    found = {key: float(f"{value:.4g}") if isinstance(value, float) else value for key, value in found.items()}
    found |= {"videos": size.videos, "quick": asked.quick}
    print(json.dumps(found) if asked.json else "\n".join(f"{key:30} {value}" for key, value in found.items()))


if __name__ == "__main__":
    main()
