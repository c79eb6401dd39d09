"""The command about notices: who did not receive what, and sending it again."""

from __future__ import annotations

import time
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from engine.cli import console
from engine.cli.console import Json
from storage.wording import counted

if TYPE_CHECKING:
    from annotation_queue.notices import FailedNotice


def notices(
    retry: Annotated[bool, typer.Option("--retry", help="Send what failed again, without waiting.")] = False,
    send: Annotated[
        bool, typer.Option("--send", help="Look for events and send them now: for a machine without `masklets serve`.")
    ] = False,
    as_json: Json = False,
) -> None:
    """The notices that an endpoint has not received, and why. Webhooks, e-mail and chat are in the settings."""
    from annotation_queue import notices as outbox
    from engine.services import connect
    from engine.serving import notices as events
    from engine.serving import webhooks

    with connect() as s:
        database = s.open_queue()[0].database
        if retry:
            outbox.try_again(database, time.time())
        if send:
            events.look(s, database, time.time())
            events.look_at_tickets(s, database, time.time())
            for name, sender in webhooks.senders(s.settings.notices).items():
                webhooks.send_due(database, name, sender)
        configured = [one.name for one in events.endpoints(s)]
        with database.read() as c:
            failed, counts = outbox.failures(c), outbox.counts(c)
    if as_json:
        endpoints = {
            name: {"received": counts.get(name, (0, 0))[0], "waiting": counts.get(name, (0, 0))[1]}
            for name in dict.fromkeys([*configured, *counts])
        }
        console.print_json({"endpoints": endpoints, "failed": failed})
        return
    if not configured:
        console.out.print("no endpoint is set: see the section [notices] of the settings")
    for name in dict.fromkeys([*configured, *counts]):
        received, left = counts.get(name, (0, 0))
        gone = "" if name in configured else "; it is no longer in the settings"
        console.out.print(f"{name}: {counted(received, 'notice')} received, {left} waiting{gone}")
    if failed:
        rows = [
            (one.endpoint, one.event.value, one.failure.value, str(one.attempts), _next(one, configured), one.detail)
            for one in failed
        ]
        console.print_rows(("endpoint", "event", "failure", "attempts", "next attempt", "detail"), rows)


def _next(failed: FailedNotice, configured: list[str]) -> str:
    if failed.next_at is None or failed.endpoint not in configured:
        return "none"
    return datetime.fromtimestamp(failed.next_at).isoformat(" ", "minutes")
