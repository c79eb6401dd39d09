"""Sends notices: signed HTTP requests after Standard Webhooks, and e-mail or chat through Apprise.

One thread looks for events, and one thread for each endpoint sends. So an endpoint that is slow or gone delays neither
another endpoint nor the loop. A notice is sent until the endpoint takes it; a receiver knows a repeated one by its
`webhook-id`. Addresses and secrets never appear in a log or in the list of failures.

Source: https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import json
import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Self
from urllib.parse import urlsplit

import httpx

from annotation_queue import notices
from annotation_queue.database import Database
from annotation_queue.notices import Failure, Notice
from engine import trouble
from engine.notice_settings import NoticeSettings, WebhookSettings
from engine.services import Services
from engine.serving import notices as events

log = logging.getLogger(__name__)

LOOK_S = 10.0  # between two looks at batches, releases and rounds
TICKETS_S = 600.0  # between two looks at the open tickets: it reads all of them
SEND_S = 1.0  # between two looks for notices that are due
TIMEOUT_S = 15.0  # for each step of one request
SECRET_BYTES = (24, 64)  # that Standard Webhooks allows

Send = Callable[[Notice], None]  # raises NotReceived


class NotReceived(Exception):
    """An endpoint did not take a notice."""

    def __init__(self, failure: Failure, detail: str, status: int | None = None) -> None:
        super().__init__(detail)
        self.failure, self.status = failure, status


@dataclass(frozen=True)
class Webhook:
    """A program that receives notices by HTTP."""

    name: str
    url: str
    secret: str

    def __call__(self, notice: Notice) -> None:
        """Send one notice. Follows no redirect. Raises NotReceived."""
        at = datetime.now(UTC)
        headers = {"content-type": "application/json", "user-agent": "masklet-engine"} | signed(self.secret, notice, at)
        try:
            with (
                httpx.Client(timeout=TIMEOUT_S, follow_redirects=False) as client,
                client.stream("POST", self.url, content=notice.payload.encode(), headers=headers) as answer,
            ):  # a stream: the body of the answer may be endless, and is not read
                status = answer.status_code
        except httpx.TimeoutException as error:
            raise NotReceived(Failure.TIMEOUT, f"no answer within {TIMEOUT_S:g} s") from error
        except httpx.HTTPError as error:  # its own message may contain the address
            raise NotReceived(Failure.UNREACHABLE, f"no connection ({type(error).__name__})") from error
        if status == httpx.codes.GONE:
            raise NotReceived(Failure.GONE, "it answered 410: it wants no more notices", status)
        if not httpx.codes.is_success(status):
            raise NotReceived(Failure.ANSWER, f"it answered {status}", status)


@dataclass(frozen=True)
class ByApprise:
    """People who receive notices by e-mail or chat."""

    name: str
    url: str

    def __call__(self, notice: Notice) -> None:
        """Send one notice. Raises NotReceived; Apprise itself does not say why."""
        from apprise import Apprise

        said = json.loads(notice.payload)
        if not Apprise(self.url).notify(title=f"Masklet Engine: {sentence(said)}", body=details(said)):
            raise NotReceived(Failure.REFUSED, "Apprise could not send it")


def signed(secret: str, notice: Notice, at: datetime) -> dict[str, str]:
    """The headers of Standard Webhooks. at: when it is sent, in UTC."""
    from standardwebhooks import Webhook as Signer

    return {
        "webhook-id": notice.notice_id,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": Signer(secret).sign(notice.notice_id, at, notice.payload),
    }


def sentence(said: Mapping[str, object]) -> str:
    """What a notice says, in a few words. said: the payload of the notice."""
    data = said["data"]
    assert isinstance(data, dict)
    return {
        "batch.drained": "batch {batch_id} is reviewed",
        "release.published": "{release} is published",
        "round.promoted": "{round_id} is promoted",
        "round.refused": "{round_id} is refused",
        "round.waits": "{round_id} waits for approval",
        "ticket.waits": "open {kind} tickets of batch {batch_id} wait",
    }[str(said["type"])].format(**data)


def details(said: Mapping[str, object]) -> str:
    """The data of a notice, one line a field. said: the payload of the notice."""
    data = said["data"]
    assert isinstance(data, dict)
    lines = [f"{said['type']}, {said['timestamp']}"]
    for name, value in data.items():
        text = ", ".join(map(str, value.values() if isinstance(value, dict) else value)) if _is_many(value) else value
        lines.append(f"{name}: {text}")
    return "\n".join(lines)


def _is_many(value: object) -> bool:
    return isinstance(value, (list, dict))


def senders(configured: NoticeSettings) -> dict[str, Send]:
    """How to send to each endpoint, by its name. Raises ValueError for an address or a secret that cannot be used."""
    found: dict[str, Send] = {}
    for webhook in configured.webhooks:
        found[webhook.name] = _webhook(webhook)
    for address in configured.apprise:
        found[address.name] = _by_apprise(address.name, address.url.get_secret_value())
    return found


def _webhook(webhook: WebhookSettings) -> Webhook:
    url, secret = webhook.url.get_secret_value(), webhook.secret.get_secret_value()
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"notices.webhooks: the url of {webhook.name} must begin with https:// or http://")
    try:
        key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    low, high = SECRET_BYTES
    if not low <= len(key) <= high:
        wanted = f"whsec_ and the base64 of random data, {low} to {high} B long"
        raise ValueError(f"notices.webhooks: the secret of {webhook.name} must be {wanted}") from None
    return Webhook(webhook.name, url, secret)


def _by_apprise(name: str, url: str) -> ByApprise:
    try:
        from apprise import Apprise
    except ImportError as error:
        raise ValueError(f"notices.apprise: {name} needs Apprise: pip install 'masklet-engine[notices]'") from error
    if not Apprise().add(url):
        raise ValueError(f"notices.apprise: Apprise does not know the url of {name}")
    return ByApprise(name, url)


def send_due(database: Database, name: str, send: Send, clock: Callable[[], float] = time.time) -> int:
    """Sends every notice that is due for one endpoint. Returns how many it took.

    A process that dies between the answer and the mark sends the notice once more.
    """
    taken = 0
    while (due := notices.take(database, name, clock())) is not None:
        try:
            send(due.notice)
        except NotReceived as error:
            notices.failed(database, due, error.failure, error.status, str(error), clock())
            log.warning("%s did not receive %s (attempt %d): %s", name, due.notice.event, due.attempts, error)
        except Exception as error:  # of a library; its message may contain the address
            notices.failed(database, due, Failure.UNREACHABLE, None, type(error).__name__, clock())
            log.warning("%s did not receive %s: %s", name, due.notice.event, type(error).__name__)
        else:
            notices.delivered(database, due, clock())
            taken += 1
    return taken


class Notifier:
    """The threads that find and send notices. A context manager: entering starts them, leaving stops them.

    A kill is as good as leaving: what was not delivered is sent by the next process.
    """

    def __init__(self, s: Services, database: Database) -> None:
        """Raises ValueError for an endpoint that cannot be used."""
        self._s, self._database = s, database
        self._senders = senders(s.settings.notices)
        self._stop = threading.Event()
        names = [("look", self._look), *((f"notices to {name}", self._sending(name)) for name in self._senders)]
        self._threads = [threading.Thread(target=run, name=name, daemon=True) for name, run in names]

    def __enter__(self) -> Self:
        for library in ("httpx", "httpcore"):  # they log the address of each request
            logging.getLogger(library).setLevel(logging.WARNING)
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout=2)  # one that waits for an answer ends with the process

    def _look(self) -> None:
        next_tickets = 0.0
        while True:
            with contextlib.suppress(Exception):  # recorded and logged; the next look finds the same events
                with trouble.recorded(self._s.blobs, trouble.NO_BATCH, "notices"):
                    events.look(self._s, self._database, time.time())
                    if time.monotonic() >= next_tickets:
                        events.look_at_tickets(self._s, self._database, time.time())
                        next_tickets = time.monotonic() + TICKETS_S
            if self._stop.wait(LOOK_S):
                return

    def _sending(self, name: str) -> Callable[[], None]:
        def run() -> None:
            while not self._stop.wait(SEND_S):
                try:
                    send_due(self._database, name, self._senders[name])
                except Exception as error:  # the database does not answer: the outbox waits
                    log.warning("notices to %s wait: %s", name, type(error).__name__)

        return run
