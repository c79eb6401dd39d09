"""Shared by the DAG files: the assets that connect them, the arguments of every DAG, and which errors are retried.

An asset event only wakes a DAG; it carries no work. The DAG asks the store what is pending, so a lost, doubled or
merged event costs time and nothing else. Imports the engine only inside a running task: each task process parses its
DAG file again, so parsing must stay light. The names of the assets are those of `engine/loop.py`.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.sdk import Asset
from airflow.sdk.exceptions import AirflowFailException

if TYPE_CHECKING:
    from engine.services import Services

VIDEOS = Asset("videos")  # a batch of videos was admitted
CANDIDATES = Asset("candidates")  # a batch has its tickets, and people can work
REVIEWED = Asset("reviewed")  # every ticket of a batch is settled; the queue announces it
COLLECTED = Asset("collected")  # the decisions about a batch are in parts
RELEASE = Asset("release")  # a batch is published
CHECKPOINT = Asset("checkpoint")  # a round's checkpoint was promoted

GPU = "gpu"  # the pool of tasks that run a model; the supervisor makes it

COMMON: dict[str, Any] = {  # arguments of every DAG
    "start_date": datetime(2026, 1, 1, tzinfo=UTC),
    "catchup": False,
    "max_active_runs": 1,  # two runs never work on the same batch
    "default_args": {"owner": "masklets", "retries": 2, "retry_delay": timedelta(seconds=30)},
}


def every(setting: str, default_s: int) -> timedelta:
    """An interval of `AirflowSettings`, read from the same places. Parsing reads no other setting."""
    file = Path(os.environ.get("MASKLETS_CONFIG", "masklets.toml"))
    written = tomllib.loads(file.read_text()).get("airflow", {}) if file.is_file() else {}
    seconds = os.environ.get(f"MASKLETS_AIRFLOW__{setting}".upper(), written.get(setting, default_s))
    return timedelta(seconds=int(seconds))


@contextmanager
def connected(*permanent: type[Exception]) -> Iterator[Services]:
    """The engine's services for one task.

    permanent: errors that a retry cannot fix. On these and on ValueError, a caller's mistake, the task fails at once;
    on any other error it is retried.
    """
    from engine import services

    at_once: tuple[type[Exception], ...] = (ValueError, *permanent)
    try:
        with services.connect() as s:
            yield s
    except at_once as error:
        raise AirflowFailException(f"{type(error).__name__}: {error}") from error
