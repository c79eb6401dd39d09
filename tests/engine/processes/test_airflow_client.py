"""The client of Airflow's API over a fake network."""

from __future__ import annotations

import json

import httpx
import pytest

from engine.processes.airflow_client import AirflowClient, AirflowUnreachable


class FakeAirflow:
    """Answers as Airflow's API does; `tokens` are accepted."""

    def __init__(self) -> None:
        self.tokens = ["first"]
        self.logins = 0
        self.asset_id = 1
        self.events: list[int] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == "/auth/token":
            self.logins += 1
            return httpx.Response(201, json={"access_token": self.tokens[-1]})
        if request.headers["Authorization"] != f"Bearer {self.tokens[-1]}":
            return httpx.Response(401, json={"detail": "Invalid token"})
        if request.url.path == "/api/v2/assets":
            assets = [{"id": 99, "name": "reviewed-again"}, {"id": self.asset_id, "name": "reviewed"}]
            return httpx.Response(200, json={"assets": assets})
        if request.url.path == "/api/v2/assets/events":
            body = json.loads(request.content)
            if body["asset_id"] != self.asset_id:
                return httpx.Response(404, json={"detail": "no such asset"})
            self.events.append(body["asset_id"])
            return httpx.Response(200, json={})
        return httpx.Response(503, text="starting")


def test_the_client_logs_in_again_when_its_token_expired_and_finds_an_asset_that_has_a_new_id() -> None:
    fake = FakeAirflow()
    with AirflowClient("http://airflow", password="p", transport=httpx.MockTransport(fake)) as client:
        client.asset_event("reviewed")
        client.asset_event("reviewed")
        assert fake.logins == 1
        fake.tokens.append("second")
        fake.asset_id = 2
        client.asset_event("reviewed")
    assert fake.logins == 2
    assert fake.events == [1, 1, 2]


def test_an_airflow_that_starts_or_is_gone_is_unreachable() -> None:
    def gone(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    for answer, match in ((FakeAirflow(), "503"), (gone, "refused")):
        with AirflowClient("http://airflow", password="p", transport=httpx.MockTransport(answer)) as client:
            with pytest.raises(AirflowUnreachable, match=match):
                client.dag_runs("ingest")
