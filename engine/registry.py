"""Which checkpoint is promoted: an alias in the MLflow registry. The weights themselves are blobs in the store.

MLflow (SQLite by default, any tracking server by setting) also keeps parameters, curves, pictures and figures of each
round and each training, to compare them on its own pages. Knows nothing of training or of gates.
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
    """Pinned weights. key: folder in the store, None for a checkpoint that is loaded by its name."""

    name: str  # what pages and rows call it: a round's id, or a name such as micro
    round: int  # 0 for a checkpoint that no round of ours made
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
        with alone(self._artifacts.with_name("mlflow.lock")):  # two processes would make one database's tables at once
            return mlflow.MlflowClient(tracking_uri=self._uri, registry_uri=self._uri)

    def promoted(self) -> Checkpoint | None:
        """The checkpoint that serves now; None before the first promotion."""
        from mlflow.exceptions import MlflowException

        if self._uri.startswith("sqlite:///") and not Path(self._uri.removeprefix("sqlite:///")).exists():
            return None  # nothing was ever registered; asking would make the whole database
        try:
            version = self._client.get_model_version_by_alias(MODEL, ALIAS)
        except MlflowException as error:
            if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                return None
            raise
        return Checkpoint(version.tags["name"], int(version.tags["round"]), version.tags["key"])

    def record(self, name: str, parameters: Mapping[str, object], metrics: Mapping[str, float]) -> str:
        """Keeps a round's parameters and figures as an MLflow run, once: the run of the same name is found again."""
        client, run_id = self._client, self._run(EXPERIMENT, name)
        for key, value in parameters.items():
            client.log_param(run_id, key, value)
        for key, number in metrics.items():
            client.log_metric(run_id, key, number)
        client.set_terminated(run_id)
        return run_id

    def track(self, name: str, experiment: str = EXPERIMENT) -> Tracked | None:
        """Curves and pictures of a training, in the run of this name, which is found again when it goes on.

        None, with a warning, where the store does not answer.
        """
        with _unharmed():
            return Tracked(self._client, self._run(experiment, name))
        return None

    def _run(self, experiment: str, name: str) -> str:
        """The id of the run of this name, which is made when there is none."""
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
        """Points the alias at a checkpoint. The same again changes nothing."""
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


class Tracked:
    """One run that is written to while it trains. A store that fails costs its curve, never the training."""

    def __init__(self, client: MlflowClient, run_id: str) -> None:
        self._client, self.run_id = client, run_id

    def parameters(self, values: Mapping[str, object]) -> None:
        """What the run began with; the same again changes nothing."""
        with _unharmed():
            for key, value in values.items():
                self._client.log_param(self.run_id, key, value)

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """A point of each curve."""
        with _unharmed():
            for key, value in values.items():
                self._client.log_metric(self.run_id, key, value, step=step)

    def picture(self, path: Path) -> None:
        """A file, kept under `samples`."""
        with _unharmed():
            self._client.log_artifact(self.run_id, str(path), "samples")

    def end(self) -> None:
        """Says that the run is finished."""
        with _unharmed():
            self._client.set_terminated(self.run_id)


@contextmanager
def _unharmed() -> Iterator[None]:
    """Turns what a tracking store does wrong into a warning."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except (MlflowException, OSError) as error:
        log.warning("not tracked: %s", first_line(error))
