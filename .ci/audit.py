"""Asks pip-audit whether a version in constraints.txt has a known vulnerability.

    python .ci/audit.py constraints.txt

Ends with 1 if one has. Where PyPI's advisories cannot be reached, it says that nothing was checked and ends with 0:
such a machine must still be able to test. One package is tried first, so that this costs seconds.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

LIMIT_S = 15.0  # of each of the two calls; a mirror without advisories may also hang


def main(constraints: Path) -> int:
    pinned = [line for line in constraints.read_text().splitlines() if "==" in line and not line.startswith("#")]
    try:
        report = ask(pinned[:1])
        if not unreachable(report):
            report = ask(pinned)
    except subprocess.TimeoutExpired:
        print(f"NOT CHECKED for known vulnerabilities: the advisories did not come within {LIMIT_S:.0f} s")
        return 0
    if problem := unreachable(report):
        print(f"NOT CHECKED for known vulnerabilities: {problem}")
        return 0
    for line in findings(report):
        print(line)
    return 1 if any("vulns" in package and package["vulns"] for package in report["dependencies"]) else 0


def ask(pinned: list[str]) -> dict[str, Any]:
    """pip-audit's report on these packages; without packages if it gave none."""
    with tempfile.TemporaryDirectory() as folder:
        requirements = Path(folder, "requirements.txt")
        requirements.write_text("\n".join(pinned) + "\n")
        options = ["--no-deps", "--disable-pip", "--progress-spinner", "off", "--timeout", "5", "--format", "json"]
        command = [sys.executable, "-m", "pip_audit", *options, "--requirement", str(requirements)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S)
    try:
        return dict(json.loads(done.stdout))
    except ValueError:
        last = (done.stderr.strip().splitlines() or ["pip-audit printed nothing"])[-1]
        return {"dependencies": [], "problem": last}


def unreachable(report: dict[str, Any]) -> str | None:
    """Why this report says nothing about any package; None if it says something."""
    reasons = [package.get("skip_reason") for package in report["dependencies"]]
    if None in reasons:
        return None
    return (
        f"PyPI's advisories do not answer here ({reasons[0]})" if reasons else str(report.get("problem", "no answer"))
    )


def findings(report: dict[str, Any]) -> list[str]:
    """A line for each vulnerability and each package that was not checked, and one that counts them."""
    packages = report["dependencies"]
    lines = [
        f"{package['name']} {package['version']}: {vulnerability['id']}, "
        f"fixed in {', '.join(vulnerability['fix_versions']) or 'no version yet'}"
        for package in packages
        for vulnerability in package.get("vulns", [])
    ]
    left = [package for package in packages if "skip_reason" in package]
    skipped = [f"{package['name']}: not checked: {package['skip_reason']}" for package in left]
    return [*lines, *skipped, f"{len(lines)} known vulnerabilities in {len(packages) - len(skipped)} packages"]


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
