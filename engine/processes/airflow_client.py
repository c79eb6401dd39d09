"""A client of Airflow's REST API, with its records and errors. Knows nothing about processes or settings.

Errors:
    AirflowError
    ├── AirflowUnreachable
    ├── AirflowDenied
    ├── AirflowRefused
    │   └── UnknownName
    └── AlreadyRunning, DagsBroken, NotReady (airflow.py)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self
from urllib.parse import quote

import httpx

from storage.errors import first_line

USER = "admin"


class AirflowError(Exception):
    """Something is wrong with Airflow."""


class AirflowUnreachable(AirflowError):
    """Airflow's API server does not answer."""


class AirflowDenied(AirflowError):
    """Airflow does not accept the user or the password."""


class AirflowRefused(AirflowError):
    """Airflow rejected a request. The message has its reason."""


class UnknownName(AirflowRefused):
    """Airflow has no DAG, run or asset of that name."""


@dataclass(frozen=True)
class Health:
    """The last heartbeat of each component; None before the first."""

    scheduler: datetime | None
    dag_processor: datetime | None


@dataclass(frozen=True)
class DagRun:
    """One run of a DAG. state: queued, running, success or failed."""

    dag_id: str
    run_id: str
    state: str


@dataclass(frozen=True)
class Pool:
    """A pool: how many tasks it lets run, and how many run or are about to."""

    name: str
    slots: int
    running: int
    queued: int


class AirflowClient:
    """The part of Airflow's REST API that we use. Logs in at the first request, and again when the token expires.

    Every method raises AirflowUnreachable (retry later), AirflowDenied or AirflowRefused.
    """

    def __init__(
        self,
        url: str,
        *,
        password: str,
        username: str = USER,
        timeout_s: float = 30.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.url = url.rstrip("/")
        self._login = {"username": username, "password": password}
        self._http = httpx.Client(base_url=self.url, timeout=timeout_s, transport=transport, trust_env=False)
        self._token: str | None = None
        self._assets: dict[str, int] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    @property
    def token(self) -> str:
        """The bearer token; logs in to get the first one."""
        if self._token is None:
            answer = self._send("POST", "/auth/token", json=self._login)
            self._token = str(_checked(answer)["access_token"])
        return self._token

    def trigger_dag(self, dag_id: str, conf: Mapping[str, Any] | None = None, run_id: str | None = None) -> str:
        """Starts a run and returns its id. Does nothing if the run id exists, so the call can be repeated.

        conf: the DAG's params. Raises UnknownName, and AirflowRefused for an invalid param.
        """
        body: dict[str, Any] = {"logical_date": None, "conf": dict(conf or {})}
        if run_id is not None:
            body["dag_run_id"] = run_id
        answer = self._ask("POST", f"/api/v2/dags/{_part(dag_id)}/dagRuns", json=body)
        if answer.status_code == 409 and run_id is not None:
            return run_id
        return str(_checked(answer)["dag_run_id"])

    def dag_run_state(self, dag_id: str, run_id: str) -> str:
        """queued, running, success or failed. Raises UnknownName."""
        return str(_checked(self._ask("GET", f"/api/v2/dags/{_part(dag_id)}/dagRuns/{_part(run_id)}"))["state"])

    def dag_runs(self, dag_id: str = "~", *, limit: int = 100) -> list[DagRun]:
        """The newest runs of a DAG, or of all DAGs; newest first."""
        query = {"limit": limit, "order_by": "-id"}
        runs = _checked(self._ask("GET", f"/api/v2/dags/{_part(dag_id)}/dagRuns", params=query))["dag_runs"]
        return [DagRun(r["dag_id"], r["dag_run_id"], r["state"]) for r in runs]

    def answer(self, dag_id: str, task_id: str, about: str, option: str) -> None:
        """Answers the open questions of a task whose subject has the text `about`; does nothing if there are none.

        option: the answer, as "Approve" or "Reject" of an ApprovalOperator. One that a person gave meanwhile stays.
        """
        runs = f"/api/v2/dags/{_part(dag_id)}/dagRuns"
        query = {"task_id": task_id, "response_received": False, "order_by": "-created_at", "limit": 100}
        rows = _checked(self._ask("GET", f"{runs}/~/hitlDetails", params=query))["hitl_details"]
        open_runs = [row["task_instance"]["dag_run_id"] for row in rows if about in row["subject"]]
        for run_id in open_runs:
            path = f"{runs}/{_part(run_id)}/taskInstances/{_part(task_id)}/-1/hitlDetails"
            answer = self._ask("PATCH", path, json={"chosen_options": [option]})
            if answer.status_code != 409:
                _checked(answer)

    def asset_event(self, name: str, extra: Mapping[str, Any] | None = None) -> None:
        """Starts the DAGs that wait for an asset. Raises UnknownName if no DAG mentions it."""
        for known in (True, False):  # a cached id may be of a database that was replaced
            body = {"asset_id": self._asset_id(name), "extra": dict(extra or {})}
            answer = self._ask("POST", "/api/v2/assets/events", json=body)
            if answer.status_code != 404 or not known:
                break
            self._assets.pop(name, None)
        _checked(answer)

    def set_pool(self, name: str, slots: int) -> None:
        """Makes a pool, or sets its size."""
        body = {"name": name, "slots": slots}
        answer = self._ask("POST", "/api/v2/pools", json=body)
        if answer.status_code == 409:
            path, body = f"/api/v2/pools/{_part(name)}", {"pool": name, "slots": slots, "include_deferred": False}
            answer = self._ask("PATCH", path, json=body, params={"update_mask": "slots"})
        _checked(answer)

    def pools(self) -> list[Pool]:
        """The pools, and how many of their slots are taken."""
        rows = _checked(self._ask("GET", "/api/v2/pools", params={"limit": 100}))["pools"]
        return [
            Pool(str(r["name"]), int(r["slots"]), int(r.get("running_slots", 0)), int(r.get("queued_slots", 0)))
            for r in rows
        ]

    def version(self) -> str:
        """Airflow's version."""
        return str(_checked(self._ask("GET", "/api/v2/version"))["version"])

    def health(self) -> Health:
        """The last heartbeats. Compare them with a time: Airflow calls a dead component healthy for a while."""
        answer = _checked(self._send("GET", "/api/v2/monitor/health"))
        processor = answer.get("dag_processor") or {}
        return Health(
            scheduler=_time(answer["scheduler"].get("latest_scheduler_heartbeat")),
            dag_processor=_time(processor.get("latest_dag_processor_heartbeat")),
        )

    def import_errors(self, since: datetime) -> list[str]:
        """The DAG files that failed to parse after `since`: name and last line of the error."""
        rows = _checked(self._ask("GET", "/api/v2/importErrors", params={"limit": 100}))["import_errors"]
        return [
            f"{r['filename']}: {r['stack_trace'].strip().splitlines()[-1]}"
            for r in rows
            if (_time(r["timestamp"]) or since) >= since
        ]

    def parsed(self, since: datetime) -> set[str]:
        """The DAGs that were parsed after `since`."""
        rows = _checked(self._ask("GET", "/api/v2/dags", params={"limit": 100}))["dags"]
        return {r["dag_id"] for r in rows if (parsed_at := _time(r["last_parsed_time"])) and parsed_at >= since}

    def _asset_id(self, name: str) -> int:
        if name not in self._assets:
            query = {"name_pattern": name, "limit": 100}
            rows = _checked(self._ask("GET", "/api/v2/assets", params=query))["assets"]
            found = [int(r["id"]) for r in rows if r["name"] == name]
            if not found:
                raise UnknownName(f"no DAG mentions the asset {name!r}")
            self._assets[name] = found[0]
        return self._assets[name]

    def _ask(self, method: str, path: str, **rest: Any) -> httpx.Response:
        """Sends a request with the token. Logs in again and repeats it if the token has expired."""
        answer = self._send(method, path, headers={"Authorization": f"Bearer {self.token}"}, **rest)
        if answer.status_code == 401:
            self._token = None
            answer = self._send(method, path, headers={"Authorization": f"Bearer {self.token}"}, **rest)
        return answer

    def _send(self, method: str, path: str, **rest: Any) -> httpx.Response:
        try:
            return self._http.request(method, path, **rest)
        except httpx.TransportError as error:
            why = first_line(error)
            raise AirflowUnreachable(f"Airflow at {self.url} does not answer: {why}") from error


def _checked(answer: httpx.Response) -> dict[str, Any]:
    """The body of a successful answer. Raises the matching error for any other."""
    if answer.is_success:
        return dict(answer.json()) if answer.content else {}
    if answer.status_code >= 500:
        raise AirflowUnreachable(f"Airflow answered {answer.status_code} to {answer.request.url.path}")
    try:
        detail = answer.json()["detail"]
    except (ValueError, KeyError, TypeError):
        detail = answer.text[:200]
    line = f"{answer.request.method} {answer.request.url.path}: {answer.status_code} {detail}"
    if answer.status_code in (401, 403):
        raise AirflowDenied(line)
    raise UnknownName(line) if answer.status_code == 404 else AirflowRefused(line)


def _part(name: str) -> str:
    """A name as one part of a path."""
    return quote(name, safe="~")


def _time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
