"""Child processes read Parquet and end: how many of them abort at their exit?

    python -m benchmarks.exits [--children 60] [--json]

Some versions of Arrow abort a process at its exit ("terminate called without an active exception", status 134), if it
has read with Arrow's thread pool (apache/arrow 33975, 34314, 39162). Compares three ways: `pyarrow.parquet.read_table`,
which uses the pool; `arrow.from_parquet`, ours; `Tables.scan`, which reads the same rows through Iceberg.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import pyarrow

from storage import arrow, rle
from storage.iceberg.tables import Tables
from storage.records import STRIDE, Masklet

ROWS, FRAMES = 300, 24  # of masklets: three row groups
FILE, CATALOG, WAREHOUSE = "rows.parquet", "catalog.db", "warehouse"

# The program of each way; its first argument is the folder of `prepare`.
WAYS = {
    "pool": "import pyarrow as pa, pyarrow.parquet as pq; pq.read_table(pa.BufferReader(data))",
    "ours": "from storage import arrow, records; arrow.from_parquet(records.Masklet, data)",
    "scan": "from storage.iceberg.tables import Tables\n"
    f"with Tables.open(f'sqlite:///{{folder}}/{CATALOG}', f'{{folder}}/{WAREHOUSE}') as t: t.scan('masklets')",
}
BEGIN = f"import sys, pathlib; folder = pathlib.Path(sys.argv[1]); data = (folder / {FILE!r}).read_bytes()\n"


def prepare(folder: Path) -> None:
    """Writes the same rows as a file and as a table."""
    rows = [
        Masklet(
            masklet_id=f"m{n}",
            video_id=f"video-{n}",
            batch_id="batch",
            height=360,
            width=640,
            frame_idx=tuple(range(0, STRIDE * FRAMES, STRIDE)),
            rle=(rle.empty(360, 640),) * FRAMES,
            area_px=(0,) * FRAMES,
            score=(0.5,) * FRAMES,
            object_score=(0.5,) * FRAMES,
            stability=(0.5,) * FRAMES,
            kind="auto",
            phase="auto",
            round=0,
            checkpoint="micro",
            prompt="{}",
        )
        for n in range(ROWS)
    ]
    (folder / FILE).write_bytes(arrow.to_parquet(Masklet, rows))
    with Tables.open(f"sqlite:///{folder}/{CATALOG}", f"{folder}/{WAREHOUSE}") as tables:
        tables.commit("masklets", [folder / FILE], "batch")


def statuses(program: str, folder: Path, children: int) -> dict[str, int]:
    """How many of the child processes ended with each status."""
    command = [sys.executable, "-c", BEGIN + program, str(folder)]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    ended = Counter[str]()
    for n in range(children):
        print(f"\r{n + 1} of {children}", end="", file=sys.stderr, flush=True)
        ended[str(subprocess.run(command, env=environment, stderr=subprocess.DEVNULL).returncode)] += 1
    print(file=sys.stderr)
    return dict(ended)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--children", type=int, default=60, help="child processes of each way")
    parser.add_argument("--json", action="store_true", help="print one line of JSON")
    parser.add_argument("--way", choices=sorted(WAYS), help="only this way")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder)
        ways = [arguments.way] if arguments.way else list(WAYS)
        result = {way: statuses(WAYS[way], folder, arguments.children) for way in ways}
    result |= {"pyarrow": pyarrow.__version__, "children": arguments.children}
    print(json.dumps(result, indent=None if arguments.json else 1))


if __name__ == "__main__":
    main()
