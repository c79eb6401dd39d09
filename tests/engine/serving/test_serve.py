"""The queue as a child process that ends with its parent, and its drained batches."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from annotation_queue.records import Role
from engine import batches
from engine.batches import BatchStage
from engine.loop import NotFinished
from engine.processes import children
from engine.processes.children import ChildFailed, stay
from engine.services import connect
from engine.serving import delivery, serve
from engine.serving.queue_process import QueueProcess
from engine.settings import QueueSettings, Settings
from engine.stages import publish, review
from tests.free_ports import free_port

pytestmark = pytest.mark.server

BATCH = "0123456789abcdef"


@pytest.fixture
def bare(tmp_path):
    """A home with nothing in it, and a free port."""
    return Settings(home=tmp_path / "home", queue=QueueSettings(port=free_port()))


def until(done, limit_s=60):
    deadline = time.monotonic() + limit_s
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def is_dead(pid):
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def listens(settings):
    with socket.socket() as probe:
        return probe.connect_ex((settings.queue.host, settings.queue.port)) == 0


def test_the_queue_ends_when_its_parent_is_killed(bare):
    script = (
        "import threading, time; from engine.settings import Settings\n"
        "from engine.serving.queue_process import QueueProcess\n"
        "def start():\n"  # only the end of the parent's process counts, not the end of a thread
        "    global queue; queue = QueueProcess(Settings()).__enter__()\n"
        "thread = threading.Thread(target=start); thread.start(); thread.join()\n"
        "print(queue.pid, flush=True); time.sleep(600)\n"
    )
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, env=os.environ | bare.environment(), stdout=subprocess.PIPE) as parent:
        try:
            child = int(parent.stdout.readline())
            time.sleep(0.5)
            assert listens(bare) and psutil.pid_exists(child)
        finally:
            parent.kill()
    until(lambda: not listens(bare))
    until(lambda: is_dead(child))


def test_a_queue_that_died_is_started_again_but_not_for_ever(bare, monkeypatch):
    monkeypatch.setattr(children, "MAX_DEATHS", 2)
    told = []
    with QueueProcess(bare, tell=told.append) as queue:
        queue.check()
        assert told == []
        first = queue.pid
        os.kill(first, signal.SIGKILL)
        until(lambda: queue.pid != first)
        until(lambda: listens(bare))
        queue.check()
        os.kill(queue.pid, signal.SIGKILL)
        with pytest.raises(ChildFailed, match=r"the queue died 2 times \(-9\)"):
            stay(queue.check)
    assert told == ["the queue died (-9); starting it again"]


def test_the_child_sees_the_settings_it_was_given_and_nothing_else(bare, monkeypatch, tmp_path):
    file = tmp_path / "masklets.toml"
    file.write_text("[queue]\nport = 1\nlease_s = -5\n")
    monkeypatch.setenv("MASKLETS_CONFIG", str(file))
    monkeypatch.setenv("MASKLETS_QUEUE__DATABASE_URI", "nonsense")
    with QueueProcess(bare):
        assert listens(bare)


def test_a_provider_to_log_in_with_is_what_the_settings_say_and_its_secret_is_never_shown(tmp_path):
    assert serve.provider(Settings(home=tmp_path)) is None
    words = {"oidc_issuer": "https://id.example.org", "oidc_client_id": "masklets", "oidc_client_secret": "precious"}
    chosen = Settings(home=tmp_path, queue=QueueSettings(**words, url="https://review.example.org"))
    assert "precious" not in repr(chosen) + str(chosen.model_dump())
    provider = serve.provider(chosen)
    assert (provider.host, provider.roles) == ("id.example.org", set())
    newcomers = chosen.queue.model_copy(update={"oidc_roles": "annotator, verifier"})
    assert serve.provider(chosen.model_copy(update={"queue": newcomers})).roles == {"annotator", "verifier"}
    for wrong, word in (({"oidc_client_id": None}, "client id"), ({"oidc_roles": "admin"}, "not admin")):
        queue = chosen.queue.model_copy(update=wrong)
        with pytest.raises(ValueError, match=word):
            serve.provider(chosen.model_copy(update={"queue": queue}))


def empty_batch(s, *stages):
    """A batch without videos, sealed in the queue: it is drained from the start."""
    for stage in stages:
        batches.mark(s.blobs, BATCH, stage, {"videos": []})
    s.queue.open_batch(BATCH, [])


def published(s):
    return batches.facts(s.blobs, BATCH, BatchStage.PUBLISHED)


def test_a_batch_that_drains_before_it_is_marked_is_tried_again(bare):
    deliver = delivery.deliverer(bare)
    with QueueProcess(bare), connect(bare) as s:
        empty_batch(s, BatchStage.INGESTED, BatchStage.PROPOSED)
        with pytest.raises(NotFinished, match=BATCH):
            deliver(BATCH)
        time.sleep(2)  # the child delivers it, too
        batches.mark(s.blobs, BATCH, BatchStage.IN_REVIEW, {"tickets": 0})
        until(lambda: published(s), 180)
        assert published(s)["release"] == ""
        deliver(BATCH)
        deliver("another-program")


def test_what_was_left_is_published_at_the_next_start_but_not_what_the_gate_stops(bare, monkeypatch, caplog):
    def stops(s, batch_id):
        raise publish.PublishStopped("far too much of it is bad")

    with QueueProcess(bare, deliver=False), connect(bare) as s:
        empty_batch(s, BatchStage.INGESTED, BatchStage.PROPOSED, BatchStage.IN_REVIEW)
        assert review.to_collect(s) == [BATCH]
        with monkeypatch.context() as patch:
            patch.setattr(publish, "publish_batch", stops)
            tickets, _ = s.open_queue()
            assert tickets.deliver(delivery.deliverer(bare)) == 1  # reported once
            delivery.sweep(bare)
            assert caplog.text.count("far too much of it is bad") == 1, "nothing has changed: it is not checked again"
            s.blobs.create(f"batches/{BATCH}/something-new.json", b"{}")
            delivery.sweep(bare)
        assert published(s) is None and caplog.text.count("far too much of it is bad") == 2
    with QueueProcess(bare), connect(bare) as s:
        until(lambda: published(s), 180)


def test_the_pipeline_and_the_first_person_have_accounts_in_a_new_database_too(bare, tmp_path):
    from engine.cli import people

    def tokens(settings):
        with connect(settings) as s:
            _, accounts = s.open_queue()
            token = (s.home / "pipeline.token").read_text().strip()
            assert accounts.caller(token).person.name == "pipeline"
            password = people.first_password(s)
            assert password and accounts.log_in(people.FIRST, password)
            return token, password

    first = tokens(bare)
    assert tokens(bare) == first
    moved = bare.queue.model_copy(update={"database_uri": f"sqlite:///{tmp_path}/moved.db"})
    new = tokens(bare.model_copy(update={"queue": moved}))
    assert new[0] != first[0] and new[1] != first[1]


def test_two_commands_that_start_together_name_the_same_password_and_it_holds(bare):
    from engine.cli import people

    together = threading.Barrier(4)

    def first(_):
        with connect(bare) as s:
            together.wait()
            return people.first_password(s)

    with ThreadPoolExecutor(4) as pool:
        passwords = set(pool.map(first, range(4)))
    assert len(passwords) == 1
    with connect(bare) as s:
        assert s.open_queue()[1].log_in(people.FIRST, passwords.pop() or "")


def test_a_password_that_does_not_hold_is_not_named_and_none_is_changed(bare, tmp_path):
    from engine.cli import people

    shared = bare.queue.model_copy(update={"database_uri": f"sqlite:///{tmp_path}/shared.db"})
    homes = [bare.model_copy(update={"home": tmp_path / name, "queue": shared}) for name in ("one", "two")]
    with connect(homes[0]) as one, connect(homes[1]) as two:
        password = people.first_password(one) or ""
        assert people.first_password(two) is None, "the account was made from another home"
        assert "does not know" in people.first_login(two)
        _, accounts = one.open_queue()
        assert accounts.log_in(people.FIRST, password)
        accounts.add(people.FIRST, [Role.LEAD], "a new password")
        assert people.first_password(one) is None
        assert accounts.log_in(people.FIRST, "a new password")


def test_only_a_configured_proxy_names_the_address_of_a_client(bare, monkeypatch):
    import uvicorn
    from fastapi.testclient import TestClient

    from annotation_queue.people.attempts import FREE

    def guess(application, **options):
        """Wrong log-ins at what uvicorn would serve."""
        config = uvicorn.Config(application, **options)
        config.load()
        client = TestClient(config.loaded_app, client=("127.0.0.1", 50_000))
        for i in range(2 * FREE):
            body, claimed = {"name": "lead", "password": "wrong"}, {"X-Forwarded-For": f"203.0.113.{i}"}
            client.post("/api/login", json=body, headers=claimed)

    monkeypatch.setattr(uvicorn, "run", guess)

    def addresses(proxies):
        """The addresses that the audit has after wrong log-ins that each claim to come from another address."""
        queue = bare.queue.model_copy(update={"trusted_proxies": proxies})
        chosen = bare.model_copy(update={"queue": queue})
        serve.serve(chosen, deliver=False)
        with connect(chosen) as s:
            lines = s.open_queue()[1].audited(limit=2 * FREE)
            return {json.loads(line.detail)["address"] for line in lines if line.action == "fail to log in"}

    assert addresses(None) == {"127.0.0.1"}
    assert addresses("10.0.0.1, 192.168.0.0/16") == {"127.0.0.1"}
    assert addresses("10.0.0.1, 127.0.0.1/8") == {f"203.0.113.{i}" for i in range(2 * FREE)}


@pytest.mark.parametrize("wrong", ["*", "proxy.example.org", "10.0.0.0/40", "127.0.0.1 10.0.0.1"])
def test_trusted_proxies_are_addresses_and_networks(wrong):
    with pytest.raises(ValueError, match="trusted_proxies"):
        QueueSettings(trusted_proxies=wrong)


def test_the_cookie_is_secure_where_the_settings_say_so(bare):
    from fastapi.testclient import TestClient

    for changes in ({}, {"secure_cookie": True}, {"url": "https://review.example.org"}):
        chosen, secure = bare.model_copy(update={"queue": bare.queue.model_copy(update=changes)}), bool(changes)
        with connect(chosen) as s:
            _, accounts = s.open_queue()
            accounts.add("ada", [Role.VERIFIER], "correct horse")
            client = TestClient(serve.app(s, deliver=False))
            cookie = client.post("/api/login", json={"name": "ada", "password": "correct horse"}).headers["set-cookie"]
        assert ("secure" in cookie.lower()) is secure


def test_a_request_whose_head_never_ends_is_refused(bare):
    with QueueProcess(bare):
        for begin in (b"GET /", b"GET / HTTP/1.1\r\nX-Long: "):
            with socket.create_connection((bare.queue.host, bare.queue.port), timeout=30) as stranger:
                stranger.sendall(begin + b"a" * (1 << 17))
                assert b" 400 " in stranger.recv(1 << 16).splitlines()[0]
