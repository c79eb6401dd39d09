"""What the DAG files share: the assets that connect them, how often a task is tried, which errors are worth a retry.

An asset event is a wake-up and carries no work. Whoever is woken asks the store what is pending, so an event that is
lost, doubled or coalesced costs time and nothing else. Knows the engine only inside a running task: each task process
parses its DAG file again, so parsing must stay light.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from airflow.sdk import Asset
from airflow.sdk.exceptions import AirflowFailException

if TYPE_CHECKING:
    from engine.services import Services

VIDEOS = Asset("videos")  # a batch of videos was admitted
CANDIDATES = Asset("candidates")  # a batch has its tickets: people work now
REVIEWED = Asset("reviewed")  # the queue has settled every ticket of a batch (posted by the queue)
COLLECTED = Asset("collected")  # what people decided about a batch is in parts
RELEASE = Asset("release")  # a batch is published
CHECKPOINT = Asset("checkpoint")  # a round's checkpoint was promoted

GPU = "gpu"  # the pool of tasks that run a model; the supervisor makes it

DEFAULTS = {"owner": "masklets", "retries": 2, "retry_delay": timedelta(seconds=30)}
START = datetime(2026, 1, 1, tzinfo=UTC)


def every(setting: str, default_s: int) -> timedelta:
    """An interval of `AirflowSettings`, from where that takes it; parsing reads no other settings."""
    file = Path(os.environ.get("MASKLETS_CONFIG", "masklets.toml"))
    written = tomllib.loads(file.read_text()).get("airflow", {}) if file.is_file() else {}
    seconds = os.environ.get(f"MASKLETS_AIRFLOW__{setting}".upper(), written.get(setting, default_s))
    return timedelta(seconds=int(seconds))


@contextmanager
def connected(*hopeless: type[Exception]) -> Iterator[Services]:
    """The engine's services for one task.

    A ValueError is a caller's mistake, and `hopeless` are outcomes that another try would only repeat: the task fails
    at once. Any other error is tried again.
    """
    from engine import services

    try:
        with services.connect() as s:
            yield s
    except (ValueError, *hopeless) as error:
        raise AirflowFailException(f"{type(error).__name__}: {error}") from error
