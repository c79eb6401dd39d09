"""Rules for every DAG: it parses fast and without the engine, has documentation, retries, and uses existing names."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from airflow.dag_processing.dagbag import DagBag
from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk import DAG

from engine import loop
from engine.batches import BatchStage
from engine.processes.airflow import DAG_IDS, POOL
from engine.settings import AirflowSettings

pytestmark = pytest.mark.server

ROOT = Path(__file__).parents[2]
FILES = sorted(p for p in (ROOT / "dags").glob("*.py") if p.name != "__init__.py")
HEAVY = {"torch", "transformers", "cv2", "numpy", "pandas", "pyarrow", "pyiceberg", "av", "boto3", "mlflow"}
HEAVY |= {"great_expectations", "scipy", "fastapi", "engine", "storage", "model", "validation", "annotation_queue"}
TAGS = {"masklets", "videos", "model", "review", "releases", "operations"}

PARSE = f"""
import sys
from airflow.dag_processing.dagbag import DagBag
DagBag({str(ROOT / "dags")!r})
print(sorted({HEAVY!r} & {{name.split(".")[0] for name in sys.modules}}))
"""


@pytest.fixture(params=DAG_IDS)
def dag(bag: DagBag, request: pytest.FixtureRequest) -> DAG:
    return bag.dags[request.param]


def test_every_file_parses_and_gives_exactly_the_known_dags(bag: DagBag) -> None:
    assert bag.import_errors == {}
    assert set(bag.dags) == set(DAG_IDS)
    assert bag.captured_warnings == {}


def test_a_dag_has_the_name_of_its_file_and_its_docstring_as_documentation(dag: DAG) -> None:
    path = Path(dag.fileloc)
    assert path.stem == dag.dag_id
    assert dag.doc_md == ast.get_docstring(ast.parse(path.read_text()), clean=False)
    assert len(dag.doc_md or "") > 80


def test_a_dag_is_tagged_with_known_tags(dag: DAG) -> None:
    assert "masklets" in dag.tags
    assert dag.tags <= TAGS


def test_two_runs_of_a_dag_never_take_the_same_batch(dag: DAG) -> None:
    assert dag.max_active_runs == 1
    assert dag.catchup is False


def test_every_task_retries_soon_says_what_it_does_and_waits_in_a_pool_that_exists(dag: DAG) -> None:
    for task in dag.tasks:
        assert task.retries is not None and 1 <= task.retries <= 3, task.task_id
        assert timedelta(seconds=10) <= task.retry_delay <= timedelta(minutes=5), task.task_id
        assert task.pool in {"default_pool", POOL}, task.task_id
        assert task.doc_md if isinstance(task, ApprovalOperator) else task.python_callable.__doc__, task.task_id


def test_tasks_that_run_a_model_share_the_pool_of_the_gpu(bag: DagBag) -> None:
    found = {(dag.dag_id, task.task_id) for dag in bag.dags.values() for task in dag.tasks if task.pool == POOL}
    models = {("auto_masklets", "propagate"), ("retrain", "train"), ("retrain", "evaluate")}
    assert found == models | {("doctor", "on_a_gpu_worker")}


def test_no_task_waits_for_people_inside_a_worker_slot(bag: DagBag) -> None:
    from airflow.sdk.bases.sensor import BaseSensorOperator

    assert not [task for dag in bag.dags.values() for task in dag.tasks if isinstance(task, BaseSensorOperator)]


def test_the_assets_that_chain_the_dags_are_those_of_the_table_of_stages(bag: DagBag) -> None:
    woken_by = {
        dag.dag_id: {asset.name for asset in dag.schedule}
        for dag in bag.dags.values()
        if dag.schedule is not None and not isinstance(dag.schedule, timedelta)
    }
    announces = {dag.dag_id: {o.name for task in dag.tasks for o in task.outlets} for dag in bag.dags.values()}
    table_woken_by: dict[str, set[str]] = {}
    table_announces: dict[str, set[str]] = {"reconcile": {"pending"}, "upkeep": set(), "doctor": set()}
    for stage in loop.STAGES:
        if stage.woken_by:
            table_woken_by.setdefault(stage.dag_id, set()).add(stage.woken_by)
        announced = table_announces.setdefault(stage.dag_id, set())
        if stage.announces is not None:
            announced.add(stage.announces)
    assert woken_by == table_woken_by
    assert announces == table_announces
    assert set(DAG_IDS) == set(table_announces)
    assert [mark for stage in loop.STAGES if (mark := stage.mark)] == list(BatchStage)


def test_reconcile_can_wake_every_stage_that_an_asset_wakes() -> None:
    from dags import reconcile

    assert set(reconcile.WAKES) == {stage.woken_by for stage in loop.STAGES} - {None}


def test_the_clocks_are_settings_with_the_defaults_of_the_settings(
    bag: DagBag, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    defaults = AirflowSettings()
    assert bag.dags["ingest"].schedule == timedelta(seconds=defaults.ingest_every_s)
    assert bag.dags["reconcile"].schedule == timedelta(seconds=defaults.reconcile_every_s)
    assert bag.dags["upkeep"].schedule == timedelta(seconds=defaults.upkeep_every_s)
    file = tmp_path / "masklets.toml"
    file.write_text("[airflow]\ningest_every_s = 7\nreconcile_every_s = 8\n")
    monkeypatch.setenv("MASKLETS_CONFIG", str(file))
    monkeypatch.setenv("MASKLETS_AIRFLOW__RECONCILE_EVERY_S", "11")  # wins over the file
    again = DagBag(ROOT / "dags")
    assert again.dags["ingest"].schedule == timedelta(seconds=7)
    assert again.dags["reconcile"].schedule == timedelta(seconds=11)


def test_parsing_loads_nothing_heavy() -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", PARSE], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().splitlines()[-1] == "[]"


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_a_dag_file_imports_only_airflow_and_its_neighbour_and_the_engine_inside_its_tasks(path: Path) -> None:
    tree = ast.parse(path.read_text())
    for node in tree.body:
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        for name in names:
            top = name.split(".")[0]
            assert top in {"airflow", "dags"} or top in sys.stdlib_module_names, name
    inner = {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n not in tree.body}
    assert inner <= {"engine", "engine.services", "engine.ingest", "engine.stages", "engine.rounds"}


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_every_engine_name_that_a_dag_uses_exists(path: Path) -> None:
    tree = ast.parse(path.read_text())
    for function in [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)]:
        imports = [n for n in ast.walk(function) if isinstance(n, ast.ImportFrom) and n.module]
        modules = {
            alias.name: ROOT / n.module.replace(".", "/") / f"{alias.name}.py" for n in imports for alias in n.names
        }
        for node in ast.walk(function):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules:
                source = modules[node.value.id]
                body = ast.parse(source.read_text()).body
                defined = {getattr(n, "name", None) for n in body}
                targets = [target for n in body if isinstance(n, ast.Assign) for target in n.targets]
                defined |= {getattr(target, "id", None) for target in targets}
                assert node.attr in defined, f"{source.name} has no {node.attr}"


def test_the_doctor_fails_its_task_with_the_checks_that_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow.sdk.exceptions import AirflowFailException

    from dags import doctor

    checks = [{"name": "store", "ok": True, "detail": "fine"}, {"name": "pools", "ok": False, "detail": "no gpu"}]

    def answer(printed: str, said: str = "") -> None:
        done = subprocess.CompletedProcess([], 0, stdout=printed, stderr=said)
        monkeypatch.setattr(subprocess, "run", lambda *_, **__: done)

    answer(json.dumps(checks[:1]))
    doctor.look()
    answer(json.dumps(checks))
    with pytest.raises(AirflowFailException, match="^pools: no gpu$"):
        doctor.look()
    answer("", "masklets: MASKLETS_X is unknown\n")
    with pytest.raises(AirflowFailException, match="did not run: masklets: MASKLETS_X is unknown"):
        doctor.look()
