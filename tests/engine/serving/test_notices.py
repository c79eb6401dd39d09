"""Notices: what is found in the queue and in the store, and what reaches a real receiver."""

import base64
import http.server
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import get_args

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from annotation_queue import notices
from annotation_queue.notices import Event, Failure
from annotation_queue.records import Person, Role
from engine.cli import doctor
from engine.cli import notices as command
from engine.ingest import ingest
from engine.notice_settings import EventName, NoticeSettings
from engine.rounds import retraining, starting
from engine.services import connect
from engine.serving import notices as events
from engine.serving import webhooks
from engine.serving.queue_process import QueueProcess
from engine.settings import QueueSettings, Settings
from storage.records import Verdict
from tests.annotation_queue.annotators import finish
from tests.annotation_queue.synthetic_queue import verify_tickets
from tests.engine.true_releases import measured, release_of
from tests.free_ports import free_port

pytestmark = pytest.mark.server

SECRET = "whsec_" + base64.b64encode(b"0123456789abcdef0123456789abcdef").decode()
VERA = Person(name="vera", roles=frozenset({Role.VERIFIER}))


class Receiver:
    """A program that receives notices. `answers` has a status for each request in turn; the last one repeats.

    A status 0 gives no answer until the receiver is closed.
    """

    def __init__(self, *answers):
        self.answers, self.got, self.closing = list(answers or [204]), [], threading.Event()
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                receiver.got.append((dict(self.headers), body))
                status = receiver.answers.pop(0) if len(receiver.answers) > 1 else receiver.answers[0]
                if status == 0:
                    receiver.closing.wait()
                    return
                self.send_response(status)
                self.send_header("location", receiver.url)
                self.end_headers()

            def log_message(self, *args):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook/of-ops"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.closing.set()
        self.server.shutdown()
        self.server.server_close()

    def verified(self):
        """What it got, checked as a receiver checks it."""
        return [Webhook(SECRET).verify(body, headers) for headers, body in self.got]


@contextmanager
def receiving(*answers):
    receiver = Receiver(*answers)
    try:
        yield receiver
    finally:
        receiver.close()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def until(done, limit_s=60):
    deadline = time.monotonic() + limit_s
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def hook(name, url, **more):
    return {"name": name, "url": url, "secret": SECRET, **more}


@pytest.fixture
def home(tmp_path):
    return tmp_path / "home"


def opened(home, *hooks, **more):
    """Settings with these webhooks."""
    return Settings(home=home, queue=QueueSettings(port=free_port()), notices={"webhooks": hooks, **more})


def drain(s, batch_id):
    tickets, _ = s.open_queue()
    tickets.open_batch(batch_id, verify_tickets(1, prefix=batch_id))
    assert finish(tickets, VERA, Verdict.ACCEPT).batch_drained
    return tickets.database


def with_one_notice(s):
    """The queue's database with one notice to send."""
    database = s.open_queue()[0].database
    events.look(s, database, time.time())
    drain(s, "b1")
    assert events.look(s, database, time.time()) == 1
    return database


def send(s, database, clock=time.time):
    (name, sender), *_ = webhooks.senders(s.settings.notices).items()
    return webhooks.send_due(database, name, sender, clock)


def test_a_notice_is_signed_so_that_the_receiver_can_check_it(home):
    with receiving() as receiver, connect(opened(home, hook("ops", receiver.url))) as s:
        assert send(s, with_one_notice(s)) == 1
        (said,) = receiver.verified()
        assert said["type"] == "batch.drained" and said["data"] == {"batch_id": "b1", "tickets": 1}
        headers, body = receiver.got[0]
        with pytest.raises(WebhookVerificationError):
            Webhook(SECRET).verify(body.replace(b"b1", b"b2"), headers)


@pytest.mark.parametrize(
    ("answer", "failure", "status"),
    [(500, Failure.ANSWER, 500), (302, Failure.ANSWER, 302), (410, Failure.GONE, 410), (0, Failure.TIMEOUT, None)],
)
def test_a_receiver_that_does_not_take_a_notice_is_recorded_and_gets_the_same_again(
    home, monkeypatch, answer, failure, status
):
    with receiving(answer, 204) as receiver, connect(opened(home, hook("ops", receiver.url))) as s:
        database = with_one_notice(s)
        with monkeypatch.context() as patch:
            if failure is Failure.TIMEOUT:
                patch.setattr(webhooks, "TIMEOUT_S", 0.3)
            assert send(s, database) == 0
        with database.read() as c:
            (failed,) = notices.failures(c)
        assert (failed.failure, failed.status, failed.endpoint) == (failure, status, "ops")
        notices.try_again(database, time.time())
        assert send(s, database) == 1
        first, second = receiver.got
        assert first[1] == second[1] and first[0]["webhook-id"] == second[0]["webhook-id"]


def test_a_receiver_that_is_not_there_is_recorded(home):
    with connect(opened(home, hook("ops", f"http://127.0.0.1:{free_port()}/x"))) as s:
        database = with_one_notice(s)
        assert send(s, database) == 0
        with database.read() as c:
            (failed,) = notices.failures(c)
        assert failed.failure is Failure.UNREACHABLE and (failed.next_at or 0) > time.time()


def test_addresses_and_secrets_are_in_no_log_and_in_no_record(home, caplog):
    caplog.set_level(logging.DEBUG)
    word = SECRET.removeprefix("whsec_")
    with receiving(500) as receiver:
        dead = f"http://127.0.0.1:{free_port()}/hook/of-dead"
        settings = opened(home, hook("ops", receiver.url), hook("dead", dead))
        with connect(settings) as s:
            database = with_one_notice(s)
            with webhooks.Notifier(s, database):
                until(lambda: len(failures(database)) == 2)
            shown = caplog.text + repr(failures(database)) + repr(settings)
    assert "did not receive" in caplog.text
    assert not any(secret in shown for secret in (word, "of-ops", "of-dead"))


def failures(database):
    with database.read() as c:
        return notices.failures(c)


def test_a_sender_that_is_killed_while_it_sends_loses_nothing(home):
    with receiving(0, 204) as receiver, connect(opened(home, hook("ops", receiver.url))) as s:
        database = with_one_notice(s)
        script = (
            "import sys; from engine.services import connect; from engine.serving import webhooks\n"
            "with connect() as s:\n"
            "    database = s.open_queue()[0].database\n"
            "    for name, send in webhooks.senders(s.settings.notices).items():\n"
            "        webhooks.send_due(database, name, send)\n"
        )
        process = subprocess.Popen([sys.executable, "-c", script], env=os.environ | s.settings.environment())
        until(lambda: receiver.got)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert send(s, database) == 0  # the dead process may still be sending, for all that is known
        assert send(s, database, clock=lambda: time.time() + notices.DELIVERY_S + 1) == 1
        first, second = receiver.got
        assert first[0]["webhook-id"] == second[0]["webhook-id"] and first[1] == second[1]


def test_a_queue_that_dies_after_a_batch_has_drained_announces_it_when_it_runs_again(home):
    with receiving() as receiver:
        settings = opened(home, hook("ops", receiver.url))
        with connect(settings) as s:
            events.look(s, s.open_queue()[0].database, time.time())
            drain(s, "b1")  # and nobody looks: the process is dead
        with QueueProcess(settings, deliver=False):
            until(lambda: receiver.got)
        assert [said["data"]["batch_id"] for said in receiver.verified()] == ["b1"]


def test_an_endpoint_that_never_answers_delays_no_other_and_not_the_queue(home):
    with receiving(0) as silent, receiving() as receiver:
        with connect(opened(home, hook("silent", silent.url), hook("ops", receiver.url))) as s:
            database = with_one_notice(s)
            with webhooks.Notifier(s, database):
                until(lambda: silent.got and receiver.got)
                until(lambda: not notices.take(database, "ops", time.time()))
                drain(s, "b2")  # the queue works on
            with database.read() as c:
                assert notices.counts(c) == {"ops": (1, 0), "silent": (0, 1)}


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"url": "ftp://example.org/of-ops"}, "url of ops must begin with https"),
        ({"secret": "whsec_short-and-secret"}, "secret of ops must be whsec_ and the base64"),
    ],
)
def test_an_endpoint_that_cannot_be_used_is_named_without_its_secret(home, wrong, why):
    settings = opened(home, hook("ops", "https://example.org/of-ops") | wrong)
    with pytest.raises(ValueError, match=why) as caught:
        webhooks.senders(settings.notices)
    assert not any(value in str(caught.value) for value in wrong.values())


def test_settings_with_a_mistake_do_not_print_the_secret_beside_it(home):
    with pytest.raises(ValueError, match="url") as caught:
        Settings(notices={"webhooks": [{"name": "ops", "secret": SECRET}]})
    assert SECRET not in str(caught.value)


def test_another_process_gets_the_same_endpoints(home, monkeypatch):
    settings = opened(home, hook("ops", "https://example.org/x", events=["batch.drained"]))
    for name, value in settings.environment().items():
        monkeypatch.setenv(name, value)
    assert Settings() == settings


def test_tickets_that_wait_too_long_make_one_notice_a_batch_and_kind(home):
    with connect(opened(home, ticket_waits_h=1.0)) as s:
        tickets, _ = s.open_queue()
        tickets.open_batch("b", verify_tickets(3))
        now = time.time()
        assert events.waiting(s, tickets.database, 3600.0, now) == []
        (old,) = events.waiting(s, tickets.database, 3600.0, now + 3700)
        data = json.loads(old.payload)["data"]
        assert (data["batch_id"], data["kind"], data["tickets"]) == ("b", "verify", 3)
        finish(tickets, VERA, Verdict.ACCEPT)
        (same,) = events.waiting(s, tickets.database, 3600.0, now + 3800)
        assert same.notice_id == old.notice_id  # the next oldest of the same hour is no news


@pytest.mark.parametrize(("hours", "found"), [(1.0, 1), (0.0, 0)])
def test_nobody_is_told_of_waiting_tickets_where_they_may_wait_for_ever(home, hours, found):
    with connect(opened(home, hook("ops", "https://example.org/x"), ticket_waits_h=hours)) as s:
        tickets, _ = s.open_queue()
        tickets.open_batch("b", verify_tickets(1))
        assert events.look_at_tickets(s, tickets.database, time.time() + 3700) == found


def test_a_release_and_the_end_of_a_round_are_found_once(s, true_release):
    database = s.open_queue()[0].database
    (release,) = events.published(s, database, 0.0)
    said = json.loads(release.payload)
    assert said["data"]["release"] == true_release.name and said["data"]["masklets"] > 0
    round_id = measured(s, starting.start(s, true_release.name, starting.Budget(seed=1)))
    assert events.decided(s, database, 0.0) == []
    assert retraining.decide(s, round_id).promoted
    (promoted,) = events.decided(s, database, 0.0)
    assert promoted.event is Event.ROUND_PROMOTED
    assert json.loads(promoted.payload)["data"]["round_id"] == round_id
    notices.add(database, None, [release, promoted], [], 0.0)
    assert events.published(s, database, 0.0) == [] == events.decided(s, database, 0.0)


def test_a_round_that_waits_for_a_person_is_announced_and_so_is_the_answer(settings, clips):
    settings = settings.model_copy(update={"rounds": settings.rounds.model_copy(update={"approval": "person"})})
    with connect(settings) as s:
        ingest.admit(s)
        release = release_of(s, "release-0001")
        database = s.open_queue()[0].database
        round_id = measured(s, starting.start(s, release.name, starting.Budget(seed=1)))
        retraining.decide(s, round_id)
        (waits,) = events.decided(s, database, 0.0)
        assert waits.event is Event.ROUND_WAITS
        notices.add(database, None, [waits], [], 0.0)
        retraining.answer(s, round_id, approved=False, by="lea")
        (refused,) = events.decided(s, database, 0.0)
        assert refused.event is Event.ROUND_REFUSED and "lea" in refused.payload


def test_the_settings_and_the_page_of_the_docs_name_every_event():
    assert set(get_args(EventName)) == {event.value for event in Event}
    page = (Path(__file__).parents[3] / "docs/notices.md").read_text()
    assert [event for event in Event if f"| `{event}` |" not in page] == []


@pytest.mark.parametrize("event", list(Event))
def test_people_can_read_every_event(event):
    data = {"batch_id": "b", "release": "r", "round_id": "o", "kind": "verify", "reasons": ["x", "y"]}
    said = json.loads(notices.notice(event, "s", data, 0.0).payload)
    assert any(word in webhooks.sentence(said) for word in ("b", "r", "o"))
    assert "reasons: x, y" in webhooks.details(said)


@pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")  # Apprise imports it
def test_people_are_told_through_apprise(home):
    with receiving() as receiver:
        url = receiver.url.replace("http://", "json://")
        settings = opened(home).model_copy(update={"notices": NoticeSettings(apprise=[{"name": "chat", "url": url}])})
        with connect(settings) as s:
            assert send(s, with_one_notice(s)) == 1
        assert json.loads(receiver.got[0][1])["title"] == "Masklet Engine: batch b1 is reviewed"
        receiver.answers[:] = [500]
        with pytest.raises(webhooks.NotReceived):
            webhooks.senders(settings.notices)["chat"](notices.notice(Event.BATCH_DRAINED, "b", {"batch_id": "b"}, 0.0))


def test_doctor_and_the_command_name_the_endpoint_that_received_nothing(home, monkeypatch, capsys):
    settings = opened(home, hook("ops", f"http://127.0.0.1:{free_port()}/x"))
    with connect(settings) as s:
        assert doctor._notices(s) == "1 endpoint, and nothing has failed"
        send(s, with_one_notice(s))
        with pytest.raises(ValueError, match="ops has not received 1 notice: no connection"):
            doctor._notices(s)
    for name, value in settings.environment().items():
        monkeypatch.setenv(name, value)
    command.notices(as_json=True)
    said = json.loads(capsys.readouterr().out)
    assert said["endpoints"] == {"ops": {"received": 0, "waiting": 1}}
    assert [(one["endpoint"], one["failure"], one["attempts"]) for one in said["failed"]] == [("ops", "unreachable", 1)]
    command.notices(retry=True, send=True)
    assert "ops: 0 notices received, 1 waiting" in capsys.readouterr().out
    command.notices(as_json=True)
    assert json.loads(capsys.readouterr().out)["failed"][0]["attempts"] == 2
