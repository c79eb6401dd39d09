"""Nobody's requests keep everybody else waiting: passwords have threads of their own, and each person has a share."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import httpx
import pytest
from argon2 import PasswordHasher

from annotation_queue.api.app import HASHES, LOGINS_WAITING, create_app
from annotation_queue.api.edge import FRAMES, SHARE
from annotation_queue.client import QueueClient
from annotation_queue.database import Database
from annotation_queue.people.accounts import Accounts
from annotation_queue.records import Role
from annotation_queue.tickets.store import TicketStore
from tests.annotation_queue.synthetic_queue import CHEAP, PASSWORD, SyntheticMedia, serving, verify_tickets
from tests.annotation_queue.waiting import wait_until

pytestmark = pytest.mark.server

THREADS = 40  # of all requests together


class Gate:
    """A place where calls wait until it opens. It counts them."""

    def __init__(self):
        self.open, self._lock = threading.Event(), threading.Lock()
        self.now = self.most = 0

    def __call__(self):
        with self._lock:
            self.now += 1
            self.most = max(self.most, self.now)
        assert self.open.wait(120)
        with self._lock:
            self.now -= 1


class GatedHasher(PasswordHasher):
    """Checks passwords as always, each one after it has passed the gate."""

    def __init__(self, gate):
        super().__init__(CHEAP.time_cost, CHEAP.memory_cost, CHEAP.parallelism)
        self._gate = gate

    def verify(self, hash, password):
        self._gate()
        return super().verify(hash, password)


class GatedMedia(SyntheticMedia):
    """Videos and frames that wait at the gate."""

    def __init__(self, gate):
        super().__init__(48)
        self._gate = gate

    def info(self, video_id):
        self._gate()
        return super().info(video_id)

    def frame(self, video_id, frame_idx):
        self._gate()
        return super().frame(video_id, frame_idx)


@pytest.fixture
def gate():
    gate = Gate()
    yield gate
    gate.open.set()


@contextmanager
def running(folder, gate):
    """A queue whose passwords and frames wait at the gate, and its accounts."""
    database = Database(f"sqlite:///{folder}/queue.db")
    accounts = Accounts(database, hasher=GatedHasher(gate))
    for n in range(200):
        accounts.add(f"person-{n}", [Role.VERIFIER])
    for name, role in (("vera", Role.VERIFIER), ("victor", Role.VERIFIER), ("lea", Role.LEAD)):
        accounts.add(name, [role], PASSWORD)
    tickets = TicketStore(database)
    tickets.open_batch("b", verify_tickets(2, frame_count=8))
    with serving(create_app(tickets, GatedMedia(gate), accounts=accounts)) as url:
        yield url, accounts
        gate.open.set()
    database.close()


def test_requests_are_answered_while_passwords_are_checked(tmp_path, gate):
    many = HASHES + LOGINS_WAITING + 20
    with running(tmp_path, gate) as (url, accounts), ThreadPoolExecutor(many) as threads:
        with QueueClient(url, token=accounts.issue_token("vera"), timeout_s=60, patience_s=0) as vera:
            ticket = vera.claim()
            assert ticket is not None

            def log_in(n):
                who = {"name": "victor" if n % 2 else f"person-{n}", "password": PASSWORD}
                return httpx.post(f"{url}/api/login", json=who, timeout=60)

            asked = [threads.submit(log_in, n) for n in range(many)]
            wait_until(lambda: sum(each.done() for each in asked) == many - HASHES - LOGINS_WAITING)
            assert vera.heartbeat(ticket).leased_by == "vera"  # not one password is checked yet
            refused = [each.result() for each in asked if each.done()]
            assert (gate.now, gate.most) == (HASHES, HASHES)
            for answer in refused:
                assert (answer.status_code, answer.json()["kind"]) == (503, "TooBusy")
                assert int(answer.headers["Retry-After"]) < 10
            gate.open.set()
            statuses = [each.result().status_code for each in asked]
        assert statuses.count(503) == len(refused) and 200 in statuses
        assert set(statuses) <= {200, 401, 429, 503}


def test_a_password_is_set_while_nobody_waits_for_it(tmp_path, gate):
    with running(tmp_path, gate) as (url, accounts):
        headers = {"Authorization": f"Bearer {accounts.issue_token('lea')}"}
        person = {"name": "lea", "roles": ["lead"], "password": PASSWORD}
        assert httpx.post(f"{url}/api/people", json=person, headers=headers).json()["name"] == "lea"


@pytest.mark.parametrize(("path", "share"), [("", SHARE), ("/frames/0.jpg", FRAMES)])
def test_one_person_cannot_occupy_every_thread(path, share, tmp_path, gate):
    many = THREADS + 20
    with running(tmp_path, gate) as (url, accounts), ThreadPoolExecutor(many) as threads:
        with (
            QueueClient(url, token=accounts.issue_token("vera"), timeout_s=60, patience_s=0) as vera,
            QueueClient(url, token=accounts.issue_token("victor"), timeout_s=60, patience_s=0) as victor,
        ):
            wanted, ticket = vera.claim(), victor.claim()
            assert wanted is not None and ticket is not None
            address = f"{url}/api/videos/{wanted.video_id}{path}"
            headers = dict(vera._http.headers)
            asked = [threads.submit(httpx.get, address, headers=headers, timeout=60) for _ in range(many)]
            wait_until(lambda: gate.now == share)
            assert victor.heartbeat(ticket).leased_by == "victor"
            assert gate.now == share
            gate.open.set()
            assert {each.result().status_code for each in asked} == {200}  # those that waited are answered, too
        assert gate.most == share
