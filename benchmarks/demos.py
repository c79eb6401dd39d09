"""What the demo shows, whatever its seed: runs `masklets demo` with three seeds on each domain.

    python -m benchmarks.demos [--json] [--domain cells ...] [--seeds 1 2 3] [--folder demos]

Runs one after the other and keeps the summary of each in FOLDER, so a stopped run goes on there. After each run, writes
all summaries that are in FOLDER as a table to `docs/experiment/demos.md`. No seed is left out.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from engine.experiments.report import machine
from engine.synthetic.domains.catalogue import DOMAINS
from storage.whole_files import complete

PAGE = Path(__file__).parents[1] / "docs" / "experiment" / "demos.md"
COLUMNS = (
    "domain, seed",
    "held-out J&F",
    "gain, 95 % interval",
    "promoted",
    "general set",
    "candidates accepted, %",
    "their J&F",
    "clicks a masklet",
    "edited frames a masklet",
    "s a frame",
)
ABOUT = """# Three seeds of the demo on each domain

Made by `python -m benchmarks.demos` on {machine}. Each row is one run of `masklets demo`: a batch, a round, a second
batch. J&F is in points; arrows lead from before to after the round, or from the first batch to the second. The seconds
that people need for a frame are modelled.

"""


def demo(domain: str, seed: int, folder: Path) -> None:
    """Runs a demo and keeps its summary in FOLDER, unless it is there. Raises CalledProcessError."""
    kept, home = folder / f"{domain}-{seed}.json", folder / f"{domain}-{seed}"
    if kept.exists():
        return
    command = [sys.executable, "-m", "engine.cli", "demo", "--domain", domain, "--seed", str(seed), "--json"]
    done = subprocess.run([*command, "--folder", str(home)], stdout=subprocess.PIPE, text=True, check=True)
    with complete(kept) as path:
        path.write_text(json.dumps(json.loads(done.stdout) | {"seed": seed}, indent=1))
    shutil.rmtree(home)


def row(of: dict[str, Any]) -> tuple[str, ...]:
    """The cells of one summary, in the order of COLUMNS."""
    batches, end = of["batches"], of["round"]
    learned = ("", "", "no round", "")
    if end:
        low, high = end["interval"] or (float("nan"), float("nan"))
        learned = (
            _points(end["jf_before"], end["jf_after"]),
            f"{100 * (end['jf_after'] - end['jf_before']):+.1f}, {100 * low:+.1f} to {100 * high:+.1f}",
            "yes" if end["promoted"] else "no: " + "; ".join(end["reasons"]),
            _points(end["general_before"], end["general_after"]),
        )

    def ratios(part: str, whole: str, scale: float = 1.0) -> str:
        return " → ".join(f"{scale * batch[part] / max(1, batch[whole]):.1f}" for batch in batches)

    return (
        f"{of['domain']}, {of['seed']}",
        *learned,
        ratios("accepted", "candidates", 100),
        " → ".join("" if b["candidates_jf"] is None else f"{b['candidates_jf']:.1f}" for b in batches),
        ratios("clicks", "masklets"),
        ratios("edited_frames", "masklets"),
        ratios("modelled_s", "annotated_frames"),
    )


def page(summaries: list[dict[str, Any]]) -> str:
    """The page of these summaries, in Markdown."""
    rows = [COLUMNS, tuple("---" for _ in COLUMNS), *map(row, summaries)]
    return ABOUT.format(machine=machine()) + "\n".join(f"| {' | '.join(cells)} |" for cells in rows) + "\n"


def _points(before: float | None, after: float | None) -> str:
    return "" if before is None or after is None else f"{100 * before:.1f} → {100 * after:.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON line")
    parser.add_argument("--domain", nargs="+", choices=sorted(DOMAINS), default=list(DOMAINS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--folder", type=Path, default=Path("demos"))
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    for domain in asked.domain:
        for seed in asked.seeds:
            demo(domain, seed, asked.folder)
            summaries = [json.loads(path.read_text()) for path in sorted(asked.folder.glob("[!.]*.json"))]
            PAGE.write_text(page(summaries))
    print(json.dumps(summaries) if asked.json else PAGE.read_text())


if __name__ == "__main__":
    main()
