"""Memory for a long video: what grows from its first half to its second, in each stage that reads all of it.

    python -m benchmarks.hour_video [--seconds 3600] [--json]

A synthetic video of 160 x 120 px at 6 frames a second, which ingest stores at 24: two shapes that move over a ground.
Auto-masklets track two objects in windows of 20 s with `micro`. Their candidates are published as they are. Then the
page's server reads every fourth frame as JPEG, and the release is exported as SA-V.

    rss_growth_mb_hour_video   largest resident memory in the second half of a stage, less that in its first half, of
                               the stage where this is most; MiB. Half of what the result itself takes is part of it

The memory is that of this process, read every 20 ms. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from engine import batches
from engine.batches import BatchStage
from engine.ingest import ingest
from engine.services import Services, connect
from engine.serving.media import StoredMedia
from engine.settings import AutoSettings, IngestSettings, ModelSettings, Settings
from engine.stages import propose, publish
from storage.dataset import parts, releases
from storage.formats import sav
from storage.pixels import Rgb
from storage.records import STRIDE
from storage.videos import video
from validation import table_checks

W, H, SOURCE_FPS = 160, 120, 6
EVERY_S = 0.02
SHORT_S = 3
MIB = 2**20


@dataclass(frozen=True)
class Memory:
    """The resident memory of a stage, MiB."""

    first_half: float  # the most
    second_half: float
    seconds: float

    @property
    def growth(self) -> float:
        return self.second_half - self.first_half


def resident() -> float:
    """Resident memory of this process, MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / MIB


def watched(stage: Callable[[], object]) -> Memory:
    """Runs a stage, and reads the memory meanwhile."""
    seen, ended = list[tuple[float, float]](), threading.Event()

    def watch() -> None:
        while not ended.is_set():
            seen.append((time.perf_counter(), resident()))
            ended.wait(EVERY_S)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        stage()
    finally:
        ended.set()
        thread.join()
    seen.append((time.perf_counter(), resident()))
    begin, end = seen[0][0], seen[-1][0]
    middle = (begin + end) / 2
    halves = [[mib for at, mib in seen if (at > middle) == late] for late in (False, True)]
    return Memory(max(halves[0]), max(halves[1]), end - begin)


def pictures(seconds: int) -> Iterator[Rgb]:
    """The frames of the source, uint8 (H, W, 3)."""
    rng = np.random.default_rng(0)
    ground = rng.integers(60, 120, (H // 8, W // 8, 3)).repeat(8, 0).repeat(8, 1).astype(np.uint8)
    y, x = np.mgrid[:H, :W]
    for n in range(seconds * SOURCE_FPS):
        frame = ground.copy()
        across, down = 80 + 50 * np.sin(n / 40), 60 + 30 * np.cos(n / 55)
        frame[(x - across) ** 2 + (y - down) ** 2 < 18**2] = (220, 60, 50)
        frame[(abs(x - 160 + across) < 12) & (abs(y - 40) < 14)] = (40, 200, 80)
        yield frame


def publish_all(s: Services, batch_id: str) -> str:
    """Publishes the candidates of a batch as they are. Returns the release."""
    for video_id in batches.video_ids(s.blobs, batch_id):
        found = parts.rows(s.blobs, "candidates", batch_id, [video_id])
        rows = [replace(row, verdict="accept", verified_by="vera") for row in found]
        parts.write_part(s.blobs, kind="masklets", batch_id=batch_id, video_id=video_id, rows=rows)
    batches.mark(s.blobs, batch_id, BatchStage.COLLECTED, {})
    passed = table_checks.Report(success=True, results=(), docs_index=None)
    with mock.patch.object(table_checks, "check_tables", return_value=passed):
        return publish.publish_batch(s, batch_id)


def look(s: Services, video_id: str) -> None:
    """Reads the annotated frames as the page gets them."""
    media = StoredMedia(s)
    for frame_idx in range(0, media.info(video_id).frame_count, STRIDE):
        media.frame(video_id, frame_idx)
    media.close()


def run(folder: Path, seconds: int, stage: Callable[[str, Callable[[], object]], object]) -> dict[str, Any]:
    """Does all stages with a video of this length, each within `stage`. Returns the counts of the release."""
    source = folder / "source"
    source.mkdir(parents=True)
    video.write(source / "long.mp4", pictures(seconds), SOURCE_FPS, crf=28)
    auto = AutoSettings(
        preset="quick", min_iou=0, min_stability=0, min_agreement=0, max_objects=2, keyframe_s=0, track_fps=6
    )
    settings = Settings(
        home=folder / "home",
        ingest=IngestSettings(source=str(source)),
        auto=auto,
        model=ModelSettings(checkpoint="micro", device="cpu", threads=1),
    )
    with connect(settings) as s:
        stage("ingest", lambda: ingest.admit(s))
        (batch_id,) = batches.reached(s.blobs)
        (video_id,) = batches.video_ids(s.blobs, batch_id)
        stage("auto_masklets", lambda: propose.propose_batch(s, batch_id))
        stage("publish", lambda: publish_all(s, batch_id))
        stage("page", lambda: look(s, video_id))
        release = releases.load(s.blobs, releases.names(s.blobs)[-1])
        stage("export", lambda: sav.export(release, folder / "out"))
        return dict(release.counts)


def measure(seconds: int, tell: Callable[[str], object]) -> dict[str, Any]:
    """The figures of a video of this length. A short one goes before it: what a stage loads once is no growth."""
    found: dict[str, Memory] = {}

    def watch(name: str, work: Callable[[], object]) -> None:
        found[name] = watched(work)
        tell(f"{name}: {found[name].seconds:.0f} s, {found[name].growth:+.1f} MiB")

    with tempfile.TemporaryDirectory() as folder:
        run(Path(folder) / "short", SHORT_S, lambda name, work: work())
        counts = run(Path(folder) / "long", seconds, watch)
    return {
        "rss_growth_mb_hour_video": round(max(memory.growth for memory in found.values()), 1),
        "hour_video_s": seconds,
        "hour_video_masklets": counts["masklets"],
        "hour_video_growth_mb": {name: round(memory.growth, 1) for name, memory in found.items()},
        "hour_video_most_mb": round(max(max(m.first_half, m.second_half) for m in found.values())),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=int, default=3600, help="length of the video")
    parser.add_argument("--json", action="store_true", help="no effect: standard output is always one JSON line")
    chosen = parser.parse_args()
    print(json.dumps(measure(chosen.seconds, lambda line: print(line, file=sys.stderr, flush=True))))


if __name__ == "__main__":
    main()
