"""Which checkpoint is promoted: an alias in the MLflow registry. The weights themselves are blobs in the store.

MLflow (SQLite by default, or a tracking server) also keeps the parameters, curves, pictures and metrics of each round
and each training, so that they can be compared on its pages. Knows nothing about training or gates.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from engine.files import alone
from storage.errors import first_line

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger(__name__)

MODEL = "masklets"  # the registered model
ALIAS = "promoted"
EXPERIMENT = "rounds"


@dataclass(frozen=True)
class Checkpoint:
    """Pinned weights. key: folder in the store; None: loaded by name."""

    name: str  # on pages and in tables: a round's id, or a name such as micro
    round: int  # 0: not made by a round
    key: str | None


class Registry:
    """The rounds and the promoted checkpoint in one MLflow store."""

    def __init__(self, uri: str, artifacts: Path) -> None:
        self._uri, self._artifacts = uri, artifacts

    @cached_property
    def _client(self) -> MlflowClient:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
        import mlflow

        for name in ("alembic", "mlflow.store", "mlflow"):
            logging.getLogger(name).setLevel(logging.WARNING)
        with alone(self._artifacts.with_name("mlflow.lock")):  # two processes must not create the tables together
            return mlflow.MlflowClient(tracking_uri=self._uri, registry_uri=self._uri)

    def promoted(self) -> Checkpoint | None:
        """The promoted checkpoint; None before the first promotion."""
        if self._is_new():
            return None
        from mlflow.exceptions import MlflowException  # after the check: importing MLflow takes seconds

        try:
            version = self._client.get_model_version_by_alias(MODEL, ALIAS)
        except MlflowException as error:
            if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                return None
            raise
        return Checkpoint(version.tags["name"], int(version.tags["round"]), version.tags["key"])

    def _is_new(self) -> bool:
        """Whether the SQLite file is missing or empty: nothing was ever recorded. A query would create 50 tables."""
        file = Path(self._uri.removeprefix("sqlite:///"))
        return self._uri.startswith("sqlite:///") and (not file.exists() or file.stat().st_size == 0)

    def record(self, name: str, parameters: Mapping[str, object], metrics: Mapping[str, float]) -> str:
        """Writes a round's parameters and metrics to the MLflow run of this name; returns its id. Can be repeated."""
        client, run_id = self._client, self._run(EXPERIMENT, name)
        for key, value in parameters.items():
            client.log_param(run_id, key, value)
        for key, number in metrics.items():
            client.log_metric(run_id, key, number)
        client.set_terminated(run_id)
        return run_id

    def track(self, name: str, experiment: str = EXPERIMENT) -> TrackedRun | None:
        """The MLflow run of this name, for the curves and pictures of a training. A resumed training gets the same run.

        None, with a warning, if MLflow does not answer.
        """
        with _only_warn():
            return TrackedRun(self._client, self._run(experiment, name))
        return None

    def _run(self, experiment: str, name: str) -> str:
        """The id of the run of this name; makes the run if it is missing."""
        client = self._client
        known = client.get_experiment_by_name(experiment)
        location = self._artifacts.absolute().as_uri()
        experiment_id = (
            known.experiment_id
            if known is not None
            else str(client.create_experiment(experiment, artifact_location=location))
        )
        found = client.search_runs([experiment_id], f"attributes.run_name = '{name}'", max_results=1)
        run = found[0] if found else client.create_run(experiment_id, run_name=name)
        return str(run.info.run_id)

    def promote(self, checkpoint: Checkpoint, source_uri: str, run_id: str) -> None:
        """Makes this the promoted checkpoint. Can be repeated."""
        from mlflow.exceptions import MlflowException

        if checkpoint.key is None:
            raise ValueError(f"{checkpoint.name!r} is not in the store: only a round's checkpoint can be promoted")
        client = self._client
        try:
            client.create_registered_model(MODEL, description="Checkpoints of Masklet Engine's rounds")
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        versions = client.search_model_versions(f"name = '{MODEL}'")
        mine = next((v for v in versions if v.tags.get("name") == checkpoint.name), None)
        if mine is None:
            tags = {"name": checkpoint.name, "round": str(checkpoint.round), "key": checkpoint.key}
            mine = client.create_model_version(MODEL, source_uri, run_id=run_id, tags=tags)
        client.set_registered_model_alias(MODEL, ALIAS, mine.version)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Makes an earlier checkpoint the promoted one: a promoted round's, or one that is loaded by name.

        Can be repeated. Raises ValueError for a round's checkpoint that was never promoted.
        """
        if checkpoint.key is None:
            self._client.delete_registered_model_alias(MODEL, ALIAS)
            return
        versions = self._client.search_model_versions(f"name = '{MODEL}'")
        mine = next((v for v in versions if v.tags.get("name") == checkpoint.name), None)
        if mine is None:
            raise ValueError(f"{checkpoint.name!r} was never promoted")
        self._client.set_registered_model_alias(MODEL, ALIAS, mine.version)


class TrackedRun:
    """An MLflow run of a training that goes on. Errors of MLflow become warnings; they never stop the training."""

    def __init__(self, client: MlflowClient, run_id: str) -> None:
        self._client, self.run_id = client, run_id

    def parameters(self, values: Mapping[str, object]) -> None:
        """Writes the parameters of the training. Can be repeated."""
        with _only_warn():
            for key, value in values.items():
                self._client.log_param(self.run_id, key, value)

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Adds a point to each curve."""
        with _only_warn():
            for key, value in values.items():
                self._client.log_metric(self.run_id, key, value, step=step)

    def picture(self, path: Path) -> None:
        """Uploads a file to the folder `samples`."""
        with _only_warn():
            self._client.log_artifact(self.run_id, str(path), "samples")

    def end(self) -> None:
        """Marks the run as finished."""
        with _only_warn():
            self._client.set_terminated(self.run_id)


@contextmanager
def _only_warn() -> Iterator[None]:
    """Turns errors of MLflow into warnings."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except (MlflowException, OSError) as error:
        log.warning("not tracked: %s", first_line(error))
