"""What one more batch costs when much is there already: time and bytes of a publish, and the read of one video.

    python -m benchmarks.scale [--quick] [--json] [--only disk|s3|noop|hour|fleet]

Publishes 500 batches of 100 videos, 5 masklets each, one after the other into one store, as `masklets` does: checks of
masklets, commit, tag and release. The videos are a few bytes and their parts are made here; only `publish_batch` is
measured. The checks of whole tables are left out: they look at one batch and take seconds, which would hide a growth.

    publish_ratio              seconds of the last batches over those of the tenth and the next in a second store, which
                               has nine: published in turn, so that a busy machine slows both. Sums of 5
    publish_ratio_s3           the same with a store on a moto server, 40 batches of 20 videos
    manifest_bytes_per_video   new bytes that a publish writes, over its videos: manifests, marks, Iceberg's metadata.
                               The mean of the last 50: now and then one merges Iceberg's small manifests. No part is
                               among them, because no row is refused
    catalog_bytes_per_video    those of them that are Iceberg's metadata
    one_video_read_ms_ratio    opening a release by its name and reading one video's masklets: a release of 10,000
                               videos over one of 100, the shortest of 15 times each
    one_video_read_ms_ratio_compacted   the same after `masklets compact` made large files, over the small release
    noop_s_10k                 seconds of a run that finds nothing to do: ingest over a folder of 10,000 judged files,
                               and the question what is pending at each stage; the videos are in 100 published batches

    rss_growth_mb_hour_video   what grows in memory from the first half of an hour's video to its second, MiB: see
                               `benchmarks/hour_video.py`, which runs as a process of its own
    workers_speedup            videos that ingest admits in a time with two workers over those with one: the last result
                               of `benchmarks.fleet` in benchmarks/results/fleet.json; null if there is none

`--quick` has 60 batches of 20 videos and 8 of 2 on S3, where the last ones are compared with the third and the next. It
compares the reads of 1,200 videos and of 20, makes no large files, and has a video of 20 s. All three parts are
measured at the same time: together they take under a minute on two quiet cores, but the figures do not stand for the
large store, nor for an hour.
`--only` measures one thing. The last line is JSON.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from engine import batches, loop
from engine.batches import BatchStage
from engine.ingest import ingest, sources
from engine.services import Services, connect
from engine.settings import Settings, StorageSettings
from engine.stages import publish, upkeep
from storage import rle
from storage.blobs.folder import LocalBlobs
from storage.dataset import batch_manifests, parts, releases
from storage.records import STRIDE, Masklet, Operation, Video, content_id
from validation import table_checks

MASKLETS, FRAMES, H, W = 5, 6, 48, 64
TENTH = 10
LAST = 5  # batches that are timed
READS = 15
FINISHED = 10_000  # videos that a run finds done
COMPACTED = 2**20  # bytes of a large file here: these masklets are a hundredth of real ones
WRITERS = 8
MEASURED = 50  # publishes whose bytes are counted: some of them merge Iceberg's small manifests
PUBLISHED = ("warehouse/", "manifests/", "releases/", "release-numbers/", "batches/")  # where a publish writes bytes


@dataclass(frozen=True)
class Size:
    """How much is published."""

    batches: int
    videos: int  # of a batch
    s3_batches: int
    s3_videos: int
    s3_early: int  # the batch on S3 that the last ones are compared with, in place of the tenth
    s3_last: int  # batches on S3 that are timed
    large: int  # batches of the large release whose read is measured; the small one has the first batch alone
    video_s: int  # length of the long video


FULL = Size(batches=500, videos=100, s3_batches=40, s3_videos=20, s3_early=TENTH, s3_last=LAST, large=100, video_s=3600)
QUICK = Size(batches=60, videos=20, s3_batches=8, s3_videos=2, s3_early=3, s3_last=2, large=60, video_s=20)
FLEET = Path(__file__).parent / "results" / "fleet.json"


def ids_of(number: int, videos: int) -> list[str]:
    """The ids of the videos of a batch."""
    return [content_id("scale", str(number), str(n)) for n in range(videos)]


@lru_cache(maxsize=MASKLETS)
def shape(n: int) -> tuple[np.ndarray, tuple[bytes, ...]]:
    """The masks of the n-th masklet of each video, and their RLE."""
    masks = np.zeros((FRAMES, H, W), bool)
    for t in range(FRAMES):
        masks[t, 4 * n + t : 4 * n + t + 9, 3 * t : 3 * t + 8 + n] = True
    return masks, tuple(rle.encode(mask) for mask in masks)


def masklets_of(video_id: str, batch_id: str, split: str) -> list[Masklet]:
    """Blocks that move, one for each masklet."""
    rows = []
    for n in range(MASKLETS):
        masks, rles = shape(n)
        rows.append(
            Masklet(
                masklet_id=content_id(video_id, str(n), length=20),
                video_id=video_id,
                batch_id=batch_id,
                height=H,
                width=W,
                frame_idx=tuple(range(0, STRIDE * FRAMES, STRIDE)),
                rle=rles,
                area_px=tuple(int(mask.sum()) for mask in masks),
                score=(0.9,) * FRAMES,
                object_score=(5.0,) * FRAMES,
                stability=(0.95,) * FRAMES,
                kind="auto",
                phase="auto",
                round=0,
                checkpoint="micro",
                prompt="{}",
                verdict="accept",
                verified_by="vera",
                split=split,
            )
        )
    return rows


def video_of(video_id: str, batch_id: str) -> Video:
    """A video of a few bytes."""
    return Video(
        video_id=video_id,
        source_uri=f"/in/{batch_id}/{video_id}.mp4",
        source_sha256="0" * 64,
        video_key=f"videos/{video_id}/video.mp4",
        video_sha256=hashlib.sha256(video_id.encode()).hexdigest(),
        frames_key=f"videos/{video_id}/frames.json",
        height=H,
        width=W,
        frame_count=STRIDE * FRAMES,
        duration_s=1.0,
        source_fps=24.0,
        variable_rate=False,
        rotation=0,
        split="val" if int(video_id, 16) % 5 == 0 else "train",
        batch_id=batch_id,
    )


def verdict_on(row: Masklet) -> Operation:
    """What the person did who accepted a masklet."""
    return Operation(
        operation_id=content_id(row.masklet_id, "act"),
        ticket_id=content_id(row.masklet_id, "ticket"),
        batch_id=row.batch_id,
        video_id=row.video_id,
        masklet_id=row.masklet_id,
        person="vera",
        kind="verdict",
        frame_idx=None,
        payload="{}",
        created_at="2026-01-01T00:00:00Z",
    )


def store(s: Services, batch_id: str, videos: Sequence[Video], masklets: Mapping[str, Sequence[Masklet]]) -> None:
    """A collected batch, as ingest, people and `collect` would have left it. masklets: by video."""

    def admit(video: Video) -> None:
        s.blobs.create(video.video_key, video.video_id.encode())
        s.blobs.create(video.frames_key, b"[0.0]")
        rows = masklets[video.video_id]
        acts = [verdict_on(row) for row in rows]
        for kind, found in (("videos", [video]), ("masklets", rows), ("operations", acts)):
            parts.write_part(s.blobs, kind=kind, batch_id=batch_id, video_id=video.video_id, rows=found)

    with ThreadPoolExecutor(WRITERS) as pool:
        list(pool.map(admit, videos))
    parts.commit_batch(s.blobs, s.tables, "videos", batch_id)
    batches.mark(s.blobs, batch_id, BatchStage.INGESTED, {"videos": [video.video_id for video in videos]})
    batches.mark(s.blobs, batch_id, BatchStage.COLLECTED, {})


def collect(s: Services, number: int, videos: int) -> tuple[str, list[str]]:
    """Stores the batch of this number. Returns its id and those of its videos."""
    ids = ids_of(number, videos)
    batch_id = content_id("batch", *ids)
    rows = [video_of(video_id, batch_id) for video_id in ids]
    with mock.patch("os.fsync"):  # it was collected long ago, and no power cut is measured
        store(s, batch_id, rows, {row.video_id: masklets_of(row.video_id, batch_id, row.split) for row in rows})
    return batch_id, ids


def sizes(s: Services) -> dict[str, str]:
    """The files where a publish writes, each with its fingerprint."""
    return {key: mark for prefix in PUBLISHED for key, mark in s.blobs.entries(prefix)}


def written(s: Services, before: dict[str, str]) -> tuple[int, int]:
    """Bytes of each file that is new, or was changed, since these `sizes`: all of them, and Iceberg's."""
    new = {key: int(mark.split("-")[0]) for key, mark in sizes(s).items() if before.get(key) != mark}
    return sum(new.values()), sum(size for key, size in new.items() if key.startswith("warehouse/"))


def publish_timed(s: Services, batch_id: str) -> tuple[float, str]:
    """Publishes a batch: seconds, and its release."""
    since = time.perf_counter()
    name = publish.publish_batch(s, batch_id)
    return time.perf_counter() - since, name


def publish_all(
    s: Services, twin: Services, count: int, videos: int, begin: int = TENTH, last: int = LAST
) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """Publishes the batches. Returns the figures, and each release with a video that it added.

    twin: an empty store, which gets the first batches only. The `last` ones are compared with those from `begin` on.
    """
    late, early, made = list[float](), list[float](), list[tuple[str, str]]()
    for number in range(1, begin):
        publish_timed(twin, collect(twin, number, videos)[0])
    new = list[tuple[int, int]]()
    for number in range(1, count + 1):
        batch_id, ids = collect(s, number, videos)
        before = sizes(s) if number > count - MEASURED else None
        seconds, name = publish_timed(s, batch_id)
        if before is not None:
            new.append(written(s, before))
        made.append((name, ids[0]))
        if number > count - last:
            late.append(seconds)
            early.append(publish_timed(twin, collect(twin, begin + len(early), videos)[0])[0])
        print(f"\r{number} of {count}: {seconds:.2f} s ", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    every, catalog = (sum(of) / len(new) / videos for of in zip(*new, strict=True))
    figures = {
        "publish_ratio": sum(late) / sum(early),
        "tenth_s": sum(early) / last,
        "last_s": sum(late) / last,
        "manifest_bytes_per_video": every,
        "catalog_bytes_per_video": catalog,
    }
    return figures, made


def read_ms(s: Services, name: str, video_id: str) -> float:
    """Milliseconds to open a release by its name and to read one video's masklets; the shortest of several times."""
    times = []
    for _ in range(READS):
        batch_manifests.forget()
        since = time.perf_counter()
        rows = releases.load(s.blobs, name).masklets([video_id])
        times.append(1000 * (time.perf_counter() - since))
        assert len(rows) == MASKLETS
    return min(times)


@contextmanager
def moto() -> Iterator[str]:
    """An S3 server in this process, with the bucket `scale`."""
    import boto3
    from moto.server import ThreadedMotoServer

    credentials = {"AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s", "AWS_DEFAULT_REGION": "us-east-1"}
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line for each request
    os.environ.update(credentials | {"AWS_EC2_METADATA_DISABLED": "true"})
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        boto3.client("s3", endpoint_url=f"http://{host}:{port}").create_bucket(Bucket="scale")
        yield f"http://{host}:{port}"
    finally:
        server.stop()


def on_disk(size: Size) -> dict[str, Any]:
    """The figures of a store in a folder."""
    with (
        tempfile.TemporaryDirectory() as folder,
        connect(Settings(home=Path(folder) / "large")) as s,
        connect(Settings(home=Path(folder) / "small")) as twin,
    ):
        figures, made = publish_all(s, twin, size.batches, size.videos)
        small, large = read_ms(s, *made[0]), read_ms(s, *made[size.large - 1])
        compacted = None
        if size.videos == FULL.videos:
            done = upkeep.compact(s, least=COMPACTED)
            compacted = read_ms(s, done.release, made[size.large - 1][1]) / small
    return figures | {
        "one_video_read_ms_ratio_compacted": compacted,
        "one_video_read_ms": large,
        "one_video_read_ms_ratio": large / small,
        "one_video_read_videos": [size.videos, size.large * size.videos],
    }


def on_s3(size: Size) -> dict[str, Any]:
    """The figures of a store on a moto server."""
    with tempfile.TemporaryDirectory() as folder, moto() as endpoint:

        def settings(name: str) -> Settings:
            storage = StorageSettings(root=f"s3://scale/{name}", s3_endpoint=endpoint)
            return Settings(home=Path(folder) / name).model_copy(update={"storage": storage})

        with connect(settings("large")) as s, connect(settings("small")) as twin:
            figures, _ = publish_all(s, twin, size.s3_batches, size.s3_videos, size.s3_early, size.s3_last)
    found = {f"{name}_s3": figures[name] for name in ("publish_ratio", "tenth_s", "last_s")}
    return found | {"s3_batches": size.s3_batches, "s3_videos_a_batch": size.s3_videos}


def noop() -> dict[str, float]:
    """The seconds of a run over 10,000 finished videos."""
    with tempfile.TemporaryDirectory() as folder, connect(Settings(home=Path(folder) / "home")) as s:
        source = Path(folder) / "source"
        source.mkdir()
        for n in range(FINISHED):
            (source / f"{n}.mp4").write_bytes(b"judged")
        listing = sources.list_files(s, LocalBlobs(source))
        files = {file.marker: b"{}" for file in listing.files}
        for first in range(0, FINISHED, 100):
            ids = ids_of(first, 100)
            here = f"batches/{content_id('batch', *ids)}"
            files |= {f"{here}/{stage}.json": json.dumps({"videos": ids}).encode() for stage in BatchStage}
        for key, data in files.items():  # not by the store, which would flush each to the disk
            path = Path(s.blobs.uri) / key
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        since = time.perf_counter()
        report = ingest.admit(s, str(source))
        waiting = loop.find_waiting(s)
        seconds = time.perf_counter() - since
        assert report.unchanged == FINISHED and not any(waiting.pending.values()), "nothing to do"
    return {"noop_s_10k": seconds}


def start(module: str, *arguments: str) -> subprocess.Popen[str]:
    """Starts a benchmark as a process of its own."""
    return subprocess.Popen([sys.executable, "-m", module, *arguments], stdout=subprocess.PIPE, text=True)


def figures_of(process: subprocess.Popen[str]) -> dict[str, Any]:
    """What a benchmark prints in its last line. Raises RuntimeError if its process failed."""
    said, _ = process.communicate()
    if process.returncode:
        raise RuntimeError(f"{process.args!r} ended with {process.returncode}")
    return dict(json.loads(said.splitlines()[-1]))


def hour(size: Size) -> dict[str, Any]:
    """The figures of a long video, in a process of its own: memory that others used would hide a growth."""
    return figures_of(start("benchmarks.hour_video", "--seconds", str(size.video_s)))


def fleet() -> dict[str, Any]:
    """What `benchmarks.fleet` measured last: it needs a scheduler, a broker and a store of its own."""
    found = json.loads(FLEET.read_text()) if FLEET.exists() else {}
    return {"workers_speedup": found.get("workers_speedup")}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="60 batches of 20 videos, 8 of 2 on S3, a video of 20 s")
    parser.add_argument("--json", action="store_true", help="no effect: standard output is always one JSON line")
    parser.add_argument("--only", choices=("disk", "s3", "noop", "hour", "fleet"), help="only this")
    parser.add_argument("--batches", type=int, help="batches in the folder")
    chosen = parser.parse_args()
    size = QUICK if chosen.quick else FULL
    if chosen.batches:
        size = replace(size, batches=chosen.batches, large=min(size.large, chosen.batches))
    found: dict[str, Any] = {}
    beside = ("s3", "hour") if chosen.quick and chosen.only is None else ()  # as processes at the same time
    started = {name: start("benchmarks.scale", "--quick", "--only", name) for name in beside}
    passed = table_checks.Report(success=True, results=(), docs_index=None)
    with mock.patch.object(table_checks, "check_tables", return_value=passed):
        measures: dict[str, Callable[[], dict[str, Any]]] = {
            "disk": lambda: on_disk(size),
            "s3": lambda: on_s3(size),
            "noop": noop,
            "hour": lambda: hour(size),
            "fleet": fleet,
        }
        for name, measure in measures.items():
            if chosen.only in (None, name):
                found |= figures_of(started[name]) if name in started else measure()
    found = {name: round(value, 3) if isinstance(value, float) else value for name, value in found.items()}
    print(json.dumps(found | {"batches": size.batches, "videos_a_batch": size.videos, "quick": chosen.quick}))


if __name__ == "__main__":
    main()
