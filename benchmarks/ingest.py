"""What ingest costs: core-hours for an hour of video, with decoding, encoding and the search for near duplicates.

    python -m benchmarks.ingest --videos FOLDER

FOLDER has videos of one size. They are ingested as they are (`as_given`), and scaled to the mean size of SA-V's videos,
1401 x 1037 px (`sav_size`), from files that were encoded before. It is the CPU time of the process, so other work on
the machine changes it little. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import av
import cv2

from benchmarks.near_duplicates import read, write
from engine.ingest import ingest
from engine.services import connect
from engine.settings import Settings

SAV_HW = 1038, 1402  # px; even, as H.264 wants it
CRF = 20  # of the scaled files


def size_of(path: Path) -> tuple[int, int]:
    """Height and width, px."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return stream.height, stream.width


def scaled(paths: list[Path], folder: Path) -> Path:
    """The videos at SA-V's size."""
    folder.mkdir()
    for path in paths:
        frames, rate = read(path)
        large = [cv2.resize(frame, SAV_HW[::-1], interpolation=cv2.INTER_CUBIC) for frame in frames]
        write(folder / path.name, large, rate, CRF)
    return folder


def core_hours(folder: Path, home: Path) -> float:
    """For an hour of the videos of a folder."""
    with connect(Settings(home=home)) as s:
        report = ingest.admit(s, str(folder.resolve()))
    assert report.quarantined == 0 and report.admitted, "all of them are measured"
    return report.cpu_s / report.video_s


def main() -> None:
    """Measures, and prints one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=Path, required=True)
    args = parser.parse_args()
    paths = sorted(args.videos.glob("*.mp4"))
    (given,) = {size_of(path) for path in paths}
    with tempfile.TemporaryDirectory() as temporary:
        scratch = Path(temporary)
        large = scaled(paths, scratch / "large")
        core_hours(args.videos, scratch / "first")  # loads the libraries
        result = {
            "videos": len(paths),
            "core_hours": {
                "as_given": round(core_hours(args.videos, scratch / "second"), 2),
                "sav_size": round(core_hours(large, scratch / "third"), 2),
            },
            "px": {"as_given": list(given), "sav_size": list(SAV_HW)},
        }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
