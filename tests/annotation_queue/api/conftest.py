"""One server for all tests of a module, and people who are logged in at it."""

from __future__ import annotations

import httpx
import pytest

from tests.annotation_queue.api.running import running
from tests.annotation_queue.synthetic_queue import PASSWORD


@pytest.fixture(scope="module")
def queue(tmp_path_factory):
    with running(tmp_path_factory.mktemp("queue")) as found:
        yield found


@pytest.fixture
def vera(queue):
    with queue.client("vera") as client:
        yield client


@pytest.fixture
def ann(queue):
    with queue.client("ann") as client:
        yield client


@pytest.fixture
def pipeline(queue):
    with queue.client("pipeline") as client:
        yield client


@pytest.fixture
def browser(queue):
    """An HTTP client that logged in as a browser does."""
    with httpx.Client(base_url=queue.url) as http:
        answer = http.post("/api/login", json={"name": "vera", "password": PASSWORD})
        http.headers["X-CSRF-Token"] = answer.json()["csrf"]
        yield http
