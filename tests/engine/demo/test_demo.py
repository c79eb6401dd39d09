"""The demo: which folder it may empty, and when it stops waiting for a stage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engine.demo import demo
from engine.processes.airflow import AlreadyRunning, at_rest
from engine.processes.airflow_client import AirflowUnreachable, DagRun


def test_a_demo_empties_an_earlier_one_but_no_living_one_and_no_other_folder(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    with demo._alone(folder):
        (folder / "store").mkdir()
        (folder / "queue.db").write_text("")
        with pytest.raises(demo.DemoRunning, match=str(folder)):
            demo.run_demo(folder, print)
        assert (folder / "store").exists()
    with at_rest(folder / "airflow"), pytest.raises(AlreadyRunning):  # `masklets up` to look at its results
        demo.run_demo(folder, print)
    assert (folder / "store").exists()
    with demo._alone(folder):
        demo._empty(folder)
        assert [path.name for path in folder.iterdir()] == [demo.MARK]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("")
    with pytest.raises(ValueError, match="not a demo's"):
        demo.run_demo(tmp_path / "mine", print)
    assert (tmp_path / "mine" / "thesis.txt").exists()


@pytest.mark.parametrize(
    ("dag_id", "states", "line"),
    [
        ("publish", ["running", "failed"], "publish failed"),
        ("retrain", ["success"], "retrain ended without a decision"),
    ],
)
def test_the_demo_stops_when_the_mark_it_waits_for_cannot_come(
    dag_id: str, states: list[str], line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "LOOK_S", 0.0)

    def runs(name: str) -> list[DagRun]:
        return [DagRun(name, str(i), state) for i, state in enumerate(states)]

    with pytest.raises(demo.DemoStalled, match=line):
        demo._until(lambda: False, dag_id, lambda: None, runs)


def test_another_run_that_ends_without_a_decision_does_not_stop_the_demo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "LOOK_S", 0.0)
    answers = iter(["", "", "", "round-001"])

    def runs(name: str) -> list[DagRun]:
        return [DagRun(name, "by its release", "success"), DagRun(name, "mine", "running")]

    assert demo._until(lambda: next(answers), "retrain", lambda: None, demo._only("mine", runs)) == "round-001"


def test_the_demo_waits_while_airflow_is_away_or_at_work_and_takes_a_mark_that_comes_late(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(demo, "LOOK_S", 0.0)
    answers = iter(["away", "running", "success", "failed"])
    marked: list[bool] = []

    def runs(name: str) -> list[DagRun]:
        if (answer := next(answers)) == "away":
            raise AirflowUnreachable("being started again")
        if answer == "failed":
            marked.append(True)  # by another run, just before this one is seen to have failed
        return [DagRun(name, "once", answer)]

    assert demo._until(lambda: bool(marked), "collect", lambda: None, runs)
    assert list(answers) == []


def test_a_run_is_asked_for_again_under_the_same_id_while_airflow_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    class Busy:
        """Fails twice: the second time, it has started the run all the same."""

        def trigger_dag(self, dag_id: str, conf: dict[str, object], run_id: str) -> str:
            asked.append(run_id)
            if len(asked) < 3:
                raise AirflowUnreachable("Airflow answered 500 to /api/v2/dags/ingest/dagRuns")
            return run_id

    monkeypatch.setattr("time.sleep", lambda seconds: None)
    busy: Any = Busy()
    assert demo._started(busy, "ingest", {}, lambda: None) == asked[0]
    assert len(asked) == 3 and len(set(asked)) == 1
