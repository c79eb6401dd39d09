"""Writes the table of README.md about learning, from the results of the last full run of `masklets experiment phases`.

    python -m docs.experiment_table [FOLDER ...]

FOLDER: of a finished run. Its results and figures are first copied to `docs/experiment/`, beside those of other domains
with the same plan. A test compares README.md with what this would write.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "README.md"
HERE = ROOT / "docs" / "experiment"
BEGIN, END = "<!-- results -->", "<!-- end of results -->"

Figures = dict[str, Any]  # of one domain, as in results.json


def _chain(values: Sequence[float | None], unit: str = "", places: int = 1) -> str:
    return " → ".join("?" if value is None else f"{value:.{places}f}" for value in values) + unit


def _learned(of: Figures) -> str:
    low, high = of["jf_gain_interval"]
    return f"{of['jf_before']:.1f} → {of['jf_after']:.1f}, {of['jf_gain']:+.1f} ({low:+.1f} to {high:+.1f})"


def _verifier(of: Figures) -> str:
    if of["verifier_auroc"] is None:
        return "too few verdicts"
    chance = of.get("verifier_chance_error")
    error = f"{of['verifier_ece']:.3f}" + ("" if chance is None else f" ({chance:.3f} by chance)")
    saved, right = f"{100 * of['reviews_saved']:.0f} %", of.get("reviews_saved_precision")
    if "reviews_saved_precision" not in of:
        saved += " at best (cuts chosen on the same verdicts)"
    elif right is not None:
        saved += f" ({100 * right:.0f} % of them right)"
    return f"{of['verifier_auroc']:.2f}, {error}, {saved}"


#: What a row shows, how it reads the figures of a domain, and what was aimed at.
ROWS: tuple[tuple[str, Callable[[Figures], str], str], ...] = (
    ("held-out J&F of the model that serves, before and after three rounds", _learned, "up"),
    ("rounds that the gate promoted, of three", lambda of: str(sum(map(bool, of["promoted_by_round"]))), ""),
    ("candidates accepted as they were, in batches 1, 2, 3", lambda of: _chain(of["accepted_by_round"], " %", 0), "up"),
    ("clicks a masklet, in batches 1, 2, 3", lambda of: _chain(of["clicks_by_round"]), "down"),
    ("modelled seconds a frame, in phases 1, 2, 3", lambda of: _chain(of["seconds_per_frame"]), "down"),
    ("phase 3 against phase 1", lambda of: f"{of['phase_speedup']:.1f} × as fast", "5 ×"),
    ("J&F lost on the general set", lambda of: f"{of['forgetting']:.1f}", "below 10"),
    ("verifier: AUROC, calibration error, reviews saved", _verifier, "0.90, 0.050, 50 % (98 % right)"),
)


def table(results: dict[str, Any]) -> str:
    """The table in Markdown, with the machine, and the figure of each domain."""
    domains = results["domains"]
    out = ["| | " + " | ".join(domains) + " | aim |", "|---" * (len(domains) + 2) + "|"]
    for label, read, aim in ROWS:
        out.append(f"| {label} | " + " | ".join(read(of) for of in domains.values()) + f" | {aim} |")
    minutes = ", ".join(f"{domain} {of['cpu_minutes']:.0f}" for domain, of in domains.items())
    out += [
        "",
        "Brackets: 95 % intervals over videos. Modelled seconds: the time that a person would need, computed from",
        "clicks and edited frames ([effort.py](engine/protocols/effort.py)); no person was timed.",
        f"On {results['machine']}; CPU minutes: {minutes}.",
        "",
    ]
    out += [f"![{domain}: what three rounds changed](docs/experiment/{domain}-rounds.png)" for domain in domains]
    return "\n".join(out) + "\n"


def page() -> str:
    """README.md with the table of today's results in it."""
    head, _, rest = PAGE.read_text().partition(BEGIN)
    results = json.loads((HERE / "results.json").read_text())
    return f"{head}{BEGIN}\n{table(results)}{END}{rest.partition(END)[2]}"


def add(folder: Path) -> None:
    """Copies the results and figures of a run. Those of another plan are removed: they cannot be compared.

    Raises ValueError if a step of the run is missing.
    """
    HERE.mkdir(exist_ok=True)
    kept = HERE / "results.json"
    new = json.loads((folder / "results.json").read_text())
    if missing := sorted({step for steps in new["missing"].values() for step in steps}):
        raise ValueError(f"{folder}: the run is not finished, {', '.join(missing)} missing")
    if kept.exists():
        old = json.loads(kept.read_text())
        if old["plan"] == new["plan"]:
            for name in ("domains", "missing"):
                new[name] = old[name] | new[name]
        else:
            for path in HERE.glob("*.png"):
                path.unlink()
    kept.write_text(json.dumps(new, indent=1) + "\n")
    for path in (*folder.glob("*-rounds.png"), *folder.glob("*-labels.png")):
        shutil.copyfile(path, HERE / path.name)


def main(folders: Sequence[str]) -> None:
    for folder in folders:
        add(Path(folder))
    PAGE.write_text(page())


if __name__ == "__main__":
    main(sys.argv[1:])
