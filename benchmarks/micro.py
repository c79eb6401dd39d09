"""Measures `micro` on held-out synthetic clips: J&F with a mask, three clicks and one click; presence accuracy.

    python -m benchmarks.micro [--checkpoint micro] [--clips 200] [--quick] [--json]

The clips are fixed by their seeds; no training used them. `--quick` measures 6 clips; `--json` prints one JSON line.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict

from engine.demo import micro
from model import checkpoints


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--checkpoint", default="micro", help="micro, a hub name, or a folder")
    parser.add_argument("--clips", type=int, default=200)
    parser.add_argument("--quick", action="store_true", help="6 clips")
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    clips = 6 if chosen.quick else chosen.clips

    def progress(done: int) -> None:
        if sys.stderr.isatty():
            print(f"{done} of {clips} clips", end="\r", file=sys.stderr, flush=True)

    figures = asdict(micro.held_out(checkpoints.load(chosen.checkpoint), clips, progress))
    print(json.dumps(figures) if chosen.json else "\n".join(f"{k:20} {v:.1f}" for k, v in figures.items()))


if __name__ == "__main__":
    main()
