"""What rounds change: the figures of the last full run of `masklets experiment phases`, or a small run of one domain.

    python -m benchmarks.rounds [--json] [--results docs/experiment/results.json]
    python -m benchmarks.rounds --quick [--json] [--domain cells]

Without `--quick` nothing runs: each figure is printed by domain, J&F in points. `--quick` labels one batch and trains
one round, within five minutes of two cores. It prints the gain and whether the gate promotes the checkpoint.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from engine.experiments import labelling, measuring, phases
from engine.experiments.plan import FULL, MICRO_FOLDER
from engine.experiments.steps import Experiment, Step, run
from engine.synthetic.domains.catalogue import DOMAINS

RESULTS = Path(__file__).parents[1] / "docs" / "experiment" / "results.json"
SMALL = replace(FULL, batch_clips=3, gate_clips=4, measured_clips=3, steps=50, checkpoint=str(MICRO_FOLDER))


def by_figure(path: Path) -> dict[str, Any]:
    """The figures of a full run: name of the figure -> domain -> value. Raises FileNotFoundError."""
    results = json.loads(path.read_text())
    found: dict[str, Any] = {}
    for domain, of in results["domains"].items():
        for name, value in of.items():
            if name != "steps":
                found.setdefault(name, {})[domain] = value
    return found | {"machine": results["machine"]}


def quick(domain: str) -> dict[str, Any]:
    """One batch and one round on a domain."""
    steps = [
        Step("before", (), phases.before),
        Step("rounds-1", (), partial(labelling.rounds, number=1)),
    ]
    with tempfile.TemporaryDirectory() as folder:
        experiment = Experiment(Path(folder), domain, SMALL)
        if failures := run([experiment], steps, lambda done, total, name: None):
            raise RuntimeError(f"{failures[0].step}: {failures[0].reason}")
        before, after = experiment.result("before"), experiment.result("rounds-1")
    gate = after["gate"] or {"promoted": False, "reasons": ["nothing was published"]}
    gained = measuring.gain(before["domain"], after["domain"])
    return {
        "domain": domain,
        "jf_gain": gained["mean"],
        "jf_gain_interval": [gained["low"], gained["high"]],
        "promoted": gate["promoted"],
        "reasons": gate["reasons"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON line")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--domain", choices=sorted(DOMAINS), default="cells", help="with --quick")
    parser.add_argument("--results", type=Path, default=RESULTS, help="of a full run")
    asked = parser.parse_args()
    if not asked.quick and not asked.results.exists():
        sys.exit(
            f"{asked.results} is missing: masklets experiment phases --domain all, then --results FOLDER/results.json"
        )
    figures = quick(asked.domain) if asked.quick else by_figure(asked.results)
    print(json.dumps(figures) if asked.json else json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
