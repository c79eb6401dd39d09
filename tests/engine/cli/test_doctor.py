"""What `masklets doctor` says of settings, versions and Airflow's pools, also from inside a task."""

import contextlib
from datetime import UTC, datetime
from importlib import metadata

import pytest

from engine.cli import doctor
from engine.processes.airflow_client import Health, Pool
from engine.services import connect
from engine.serving import delivery
from engine.settings import AirflowSettings, Settings

SERVERS = {
    name: f"postgresql+psycopg://db/{name}"
    for name in ("storage__catalog_uri", "queue__database_uri", "model__registry_uri")
}


@pytest.fixture
def check(tmp_path, monkeypatch):
    """Tries one check with the settings of the environment."""
    monkeypatch.setenv("MASKLETS_HOME", str(tmp_path / "home"))

    def tried(function, **more):
        with connect(Settings(**more)) as s:
            return doctor._try("it", function, s)

    return tried


def test_files_of_this_home_are_a_fault_only_in_a_task_of_another_machines_airflow(check, monkeypatch, tmp_path):
    found = check(doctor._settings)
    assert found.ok and found.detail.endswith(f" of MASKLETS_, home {tmp_path}/home, outside a task")
    monkeypatch.setenv("AIRFLOW_CTX_DAG_ID", "doctor")
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path / "home" / "airflow"))  # as `masklets up` runs it
    assert check(doctor._settings).detail.endswith("inside a task of the DAG doctor")
    monkeypatch.setenv("AIRFLOW_HOME", "/opt/airflow")
    found = check(doctor._settings)
    assert not found.ok and found.detail.startswith("catalog, queue, registry: SQLite in ")
    for name, uri in SERVERS.items():
        monkeypatch.setenv(f"MASKLETS_{name.upper()}", uri)
    assert check(doctor._settings).ok


def test_a_package_outside_the_limits_of_this_version_is_named(check, monkeypatch):
    found = check(doctor._versions)
    assert found.ok and f"masklet-engine {metadata.version('masklet-engine')}" in found.detail
    monkeypatch.setattr(metadata, "requires", lambda name: ["httpx>=999", "not-installed>1; extra == 'x'"])
    found = check(doctor._versions)
    assert not found.ok and found.detail.startswith("httpx is ") and found.detail.endswith("this version takes >=999")


class FakeAirflow:
    """An Airflow that answers what a test wants."""

    def __init__(self, pools, version):
        self._pools, self._version = pools, version

    def import_errors(self, since):
        return []

    def health(self):
        return Health(scheduler=datetime(2026, 1, 1, tzinfo=UTC), dag_processor=None)

    def version(self):
        return self._version

    def pools(self):
        return self._pools


@pytest.mark.parametrize(
    ("pools", "version", "said"),
    [
        ([Pool("gpu", 4, 0, 0)], None, "4 places in the pool gpu"),
        ([Pool("default_pool", 128, 0, 0)], None, "the pool gpu is missing"),
        ([Pool("gpu", 0, 0, 0)], None, "the pool gpu is missing"),
        ([Pool("gpu", 4, 0, 0)], "2.11.0", "is Airflow 2.11.0, this machine has"),
    ],
)
def test_the_pool_for_models_and_the_version_of_airflow_are_checked(check, monkeypatch, pools, version, said):
    answering = FakeAirflow(pools, version or metadata.version("apache-airflow-core"))
    monkeypatch.setattr(delivery, "airflow_client", lambda settings: contextlib.nullcontext(answering))
    found = check(doctor._airflow, airflow=AirflowSettings(url="http://airflow"))
    assert said in found.detail and found.ok == (said == "4 places in the pool gpu")
