"""The check of the dependencies: a report without advisories is never taken for a good one."""

from __future__ import annotations

import runpy
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
SKIPPED = {"name": "alembic", "skip_reason": "Dependency not found on PyPI and could not be audited: alembic (1.20.1)"}
GOOD = {"name": "alembic", "version": "1.20.1", "vulns": []}
BAD = {"name": "mlflow", "version": "3.12.0", "vulns": [{"id": "PYSEC-1", "fix_versions": ["3.13.0"], "aliases": []}]}
NOTHING = {"dependencies": [], "problem": "connection refused"}


@pytest.fixture
def check(tmp_path, capsys):
    """Runs the check with these answers of pip-audit, first about one package, then about all."""
    pins = tmp_path / "constraints.txt"
    pins.write_text("# pinned\nalembic==1.20.1\nmlflow==3.12.0\n")
    module = runpy.run_path(str(ROOT / ".ci" / "audit.py"))

    def run(*answers):
        left, asked = list(answers), []

        def ask(pinned):
            asked.append(pinned)
            if isinstance(answer := left.pop(0), Exception):
                raise answer
            return answer

        module["main"].__globals__["ask"] = ask
        return module["main"](pins), capsys.readouterr().out, asked

    return run


@pytest.mark.parametrize("answer", [{"dependencies": [SKIPPED]}, NOTHING, subprocess.TimeoutExpired("pip-audit", 20)])
def test_advisories_that_do_not_answer_are_said_and_asked_once(check, answer):
    status, said, asked = check(answer)
    assert status == 0 and said.startswith("NOT CHECKED") and asked == [["alembic==1.20.1"]]


def test_advisories_that_stop_answering_are_no_good_report(check):
    status, said, _ = check({"dependencies": [GOOD]}, NOTHING)
    assert status == 0 and said == "NOT CHECKED for known vulnerabilities: connection refused\n"


def test_a_vulnerable_version_fails_and_names_the_fixed_one(check):
    status, said, asked = check({"dependencies": [GOOD]}, {"dependencies": [GOOD, BAD]})
    assert status == 1 and "mlflow 3.12.0: PYSEC-1, fixed in 3.13.0" in said
    assert asked[1] == ["alembic==1.20.1", "mlflow==3.12.0"]


def test_a_package_that_was_skipped_is_named(check):
    status, said, _ = check({"dependencies": [GOOD]}, {"dependencies": [GOOD, SKIPPED]})
    assert status == 0 and "alembic: not checked" in said and "0 known vulnerabilities in 1 packages" in said


def test_no_extra_admits_a_version_of_mlflow_with_known_vulnerabilities():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    (mlflow,) = [r for r in map(Requirement, extras["model"]) if r.name == "mlflow"]
    assert "3.12.99" not in mlflow.specifier and "3.13" in mlflow.specifier


def dependencies():
    """Every dependency of the project and of its extras."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    return [r for group in groups for r in map(Requirement, group) if r.name != "masklet-engine"]


def pinned():
    """The exact version of each pinned package."""
    pins = map(Requirement, (ROOT / "constraints.txt").read_text().splitlines())
    exact = {canonicalize_name(pin.name): str(pin.specifier) for pin in pins}
    return {name: version.removeprefix("==") for name, version in exact.items() if version.startswith("==")}


def test_every_dependency_has_an_exact_version():
    """A version that is not pinned differs from one machine to the next."""
    assert {canonicalize_name(r.name) for r in dependencies()} - pinned().keys() == set()


@pytest.mark.parametrize("dependency", dependencies(), ids=str)
def test_the_pinned_version_is_within_the_bounds_of_the_dependency(dependency):
    """A lower bound above the pin cannot be installed with it; a bound that was raised is tested with the pin."""
    version = pinned()[canonicalize_name(dependency.name)]
    assert dependency.specifier.contains(version, prereleases=True), f"{dependency}, but the pin is {version}"


def test_ci_audits_the_pins_before_the_tests():
    lines = [line.strip() for line in (ROOT / ".ci" / "run").read_text().splitlines()]
    places = [
        next((n for n, line in enumerate(lines) if line.startswith(command)), -1)
        for command in ("make setup", ".venv/bin/python .ci/audit.py constraints.txt", "make test")
    ]
    assert -1 not in places and places == sorted(places)
