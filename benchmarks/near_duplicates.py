"""What ingest finds of copies of videos, what it takes for a copy by mistake, and what both cost.

    python -m benchmarks.near_duplicates [--quick] [--json] [--videos FOLDER]

FOLDER has videos of different things; by default three of each synthetic domain. Each is copied in every way of WAYS,
and looked for among all of them (`found`: share of the copies that are found, by way). False are: a video that is found
among the others, and the second half of a video among the first halves (`false`, `false_same_camera`). The halves have
the same place, light and often the same camera, so they are the hardest case. `ms_at_51000` is the CPU time of one
search for a video of 14 s in a table of the size of SA-V. `crowd_ratio` is the CPU time of a search for a video of 60 s
among 300 of the same place by a fixed camera, over that of a search among 300 of different places; `crowd_ratio_1000`,
among 1,000. `hours_a_day_a_core` is that of a whole ingest of FOLDER, with decoding, encoding and hashes. `--quick`
takes one video of each domain and a table of 5,100 videos: do not compare its figures. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import av
import cv2
import numpy as np

from engine.ingest import hash_index, ingest
from engine.ingest.near_duplicates import Alike, Looker, Looks, Table, find
from engine.services import connect
from engine.settings import Settings
from engine.synthetic import video_files
from engine.synthetic.domains.catalogue import DOMAINS, HELD_OUT
from engine.synthetic.domains.drawing import Size
from model.clips import Clip
from storage.videos.normalise import Limits, normalise

Frames = list[np.ndarray]
LIMITS = Limits(min_s=0.5)


def half(frames: Frames) -> Frames:
    height, width = frames[0].shape[:2]
    return [cv2.resize(f, (width // 2 // 2 * 2, height // 2 // 2 * 2), interpolation=cv2.INTER_AREA) for f in frames]


def cropped(frames: Frames, share: float) -> Frames:
    height, width = frames[0].shape[:2]
    y, x = int(share * height), int(share * width)
    return [frame[y : height - y, x : width - x] for frame in frames]


def marked(frames: Frames) -> Frames:
    """With a title and a logo, as a channel adds them."""
    found = []
    for frame in half(frames):
        copy = frame.copy()
        height, width = copy.shape[:2]
        cv2.putText(copy, "MY CHANNEL", (20, height - 20), cv2.FONT_HERSHEY_SIMPLEX, width / 430, (255, 255, 255), 3)
        cv2.rectangle(copy, (int(0.83 * width), 10), (width - 10, int(0.17 * height)), (255, 0, 0), -1)
        found.append(copy)
    return found


#: Name of a way to copy -> frames of the copy, its frames for each frame of the original, and its quality (x264's CRF).
WAYS: dict[str, tuple[Callable[[Frames], Frames], float, int]] = {
    "encoded_again": (list, 1, 38),
    "half_size": (half, 1, 23),
    "part": (lambda frames: half(frames)[len(frames) // 3 + 5 : int(0.8 * len(frames))], 1, 23),
    "mirrored": (lambda frames: [frame[:, ::-1] for frame in half(frames)], 1, 23),
    "marked": (marked, 1, 23),
    "brighter": (lambda f: [np.clip(x * 1.3 + 15, 0, 255).astype(np.uint8) for x in half(f)], 1, 23),
    "grey": (lambda f: [np.repeat(cv2.cvtColor(x, cv2.COLOR_RGB2GRAY)[..., None], 3, 2) for x in half(f)], 1, 23),
    "half_the_rate": (lambda frames: half(frames)[::2], 0.5, 23),
    "cropped_5_percent": (lambda frames: cropped(half(frames), 0.05), 1, 23),
    "cropped_10_percent": (lambda frames: cropped(half(frames), 0.1), 1, 23),
    "faster_by_a_third": (lambda frames: [x for i, x in enumerate(half(frames)) if i % 4], 1, 23),
}


def read(path: Path) -> tuple[Frames, float]:
    """The frames of a video, RGB, and their number a second."""
    with av.open(str(path)) as container:
        rate = float(container.streams.video[0].average_rate or 24)
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)], rate


def write(path: Path, frames: Frames, rate: float, crf: int) -> None:
    height, width = (side - side % 2 for side in frames[0].shape[:2])
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=round(rate), options={"crf": str(crf), "preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for frame in frames:
            picture = np.ascontiguousarray(frame[:height, :width])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))


def looks_at(path: Path, scratch: Path) -> Looks:
    """What ingest sees of a video."""
    looker = Looker()
    normalise(path, scratch / "stored.mp4", limits=LIMITS, through=looker.through)
    return looker.looks()


def searched(new: Looks, kept: dict[str, Looks]) -> str | None:
    """The name of the video that a new one is taken for a copy of."""
    table = hash_index.table_of({name: looks.each_second() for name, looks in kept.items()})
    match = find(new, table, lambda name: kept[name].each_second(), Alike())
    return match.video_id if match else None


def copies(paths: list[Path], scratch: Path) -> Iterator[tuple[str, str, Looks]]:
    """(way, name of the original, looks at the copy)."""
    for path in paths:
        frames, rate = read(path)
        for way, (change, of_rate, crf) in WAYS.items():
            write(scratch / "copy.mp4", change(frames), rate * of_rate, crf)
            yield way, path.stem, looks_at(scratch / "copy.mp4", scratch)


def halves(looks: Looks) -> tuple[Looks, Looks]:
    """A video cut in two."""
    at = len(looks.hashes) // 2
    columns = (looks.hashes, looks.flat, looks.pictures, looks.mirrored)
    first, second = ([None if c is None else c[cut] for c in columns] for cut in (slice(at), slice(at, None)))
    return Looks(*first), Looks(*second)  # type: ignore[arg-type]  # no column is None here


def table_of(videos: int, seconds: int, hashes: np.ndarray) -> Table:
    """hashes: (videos * seconds,)."""
    return Table(
        np.array([f"{n:016x}" for n in range(videos)]),
        np.arange(videos + 1) * seconds,
        np.tile(np.arange(seconds), videos),
        hashes,
    )


def different(rng: np.random.Generator, count: int) -> np.ndarray:
    """Hashes of different pictures."""
    return rng.integers(0, 1 << 63, count, dtype=np.uint64)


def of_one_place(rng: np.random.Generator, count: int) -> np.ndarray:
    """Hashes of pictures of a camera that does not move: they differ in up to three bits from one of them."""
    bits = rng.integers(0, 64, (count, 3), dtype=np.uint64)
    changed = np.bitwise_xor.reduce(np.left_shift(np.uint64(1), bits), axis=1)
    return np.asarray(np.uint64(0x0F1E2D3C4B5A6978) ^ changed)


def search_ms(table: Table, hashes: np.ndarray, mirrored: np.ndarray) -> float:
    """The CPU time of one search for a new video that is no near duplicate. hashes: 12 a second."""
    rng = np.random.default_rng(1)
    shape = (int(table.seconds.max()) + 1, 16, 16)
    kept = Looks(table.hashes[:0], np.zeros(0, bool), rng.integers(0, 256, shape, dtype=np.uint8))
    pictures = rng.integers(0, 256, (len(hashes), 16, 16), dtype=np.uint8)
    since = time.process_time()
    assert find(Looks(hashes, np.zeros(len(hashes), bool), pictures, mirrored), table, lambda _: kept, Alike()) is None
    return 1000 * (time.process_time() - since)


def milliseconds(videos: int) -> float:
    """Of one search for a video of 14 s among so many, of which none is alike."""
    rng = np.random.default_rng(0)
    table = table_of(videos, 14, different(rng, 14 * videos))
    return search_ms(table, different(rng, 12 * 14), different(rng, 12 * 14))


def crowd_ratio(videos: int) -> float:
    """How much longer a search takes among videos of one place than among different ones. 60 s each."""
    rng = np.random.default_rng(0)
    new = of_one_place(rng, 12 * 60), different(rng, 12 * 60)
    alike, unlike = (table_of(videos, 60, make(rng, 60 * videos)) for make in (of_one_place, different))
    return search_ms(alike, *new) / search_ms(unlike, *new)


def _held_out(render: Callable[[int, Size], Clip], number: int) -> Clip:
    """A held-out clip of a domain."""
    return render(HELD_OUT + number, Size(frames=120))


def main() -> None:
    """Measures, prints a line for each way, and one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", action="store_true", help="print only the line of JSON")
    parser.add_argument("--videos", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder, scratch = args.videos or Path(temporary) / "videos", Path(temporary)
        if args.videos is None:
            for name, domain in DOMAINS.items():
                draw = partial(_held_out, domain.render)
                for path in video_files.write_clips(scratch / name, draw, range(1 if args.quick else 3)):
                    folder.mkdir(exist_ok=True)
                    path.rename(folder / f"{name}-{path.name}")
        paths = sorted(folder.glob("*.mp4"))
        originals = {path.stem: looks_at(path, scratch) for path in paths}
        results: dict[str, list[bool]] = {way: [] for way in WAYS}
        for way, name, looks in copies(paths, scratch):
            results[way].append(searched(looks, originals) == name)
        others = {name: {n: of for n, of in originals.items() if n != name} for name in originals}
        false = [name for name, looks in originals.items() if searched(looks, others[name])]
        cut = {name: halves(looks) for name, looks in originals.items() if len(looks.hashes) >= 48}  # 2 s each
        firsts = {name: first for name, (first, _) in cut.items()}
        same_camera = [name for name, (_, second) in cut.items() if searched(second, firsts)]
        with connect(Settings(home=scratch / "home")) as s:
            report = ingest.admit(s, str(folder.resolve()))
    videos = 5_100 if args.quick else 51_000
    result = {
        "videos": len(paths),
        "found": {way: round(sum(of) / len(of), 3) for way, of in results.items()},
        "false": len(false),
        "halves": len(cut),
        "false_same_camera": len(same_camera),
        f"ms_at_{videos}": round(milliseconds(videos)),
        "crowd_ratio": round(crowd_ratio(300), 1),
        "crowd_ratio_1000": round(crowd_ratio(1000), 1),
        "hours_a_day_a_core": round(report.hours_a_day_a_core or 0),
    }
    if not args.json:
        for way, of in results.items():
            print(f"{way:20} {sum(of)} of {len(of)} found")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
