"""A simulated reviewer, who takes one ticket after another over HTTP."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress

from annotation_queue.client import QueueClient
from annotation_queue.errors import LeaseLost
from annotation_queue.records import Kind, Reason, Ticket
from storage.records import Verdict

NAME, PASSWORD = "vera", "a long password"
PATIENCE_S = 300.0


class Vera(threading.Thread):
    """The reviewer, until `over` is set."""

    def __init__(self, url: str, judge: Callable[[Ticket, int], Verdict]) -> None:
        """judge: the verdict on a ticket. It gets the number of earlier answers, too."""
        super().__init__(daemon=True)
        self.url, self.judge = url, judge
        self.answers, self.over = 0, threading.Event()

    def run(self) -> None:
        with QueueClient(self.url, username=NAME, password=PASSWORD, patience_s=PATIENCE_S) as client:
            while not self.over.is_set():
                ticket = client.claim([Kind.VERIFY])
                if ticket is None:
                    self.over.wait(0.1)
                    continue
                verdict = self.judge(ticket, self.answers)
                reasons = [Reason.NOT_AN_OBJECT] if verdict is Verdict.REJECT else []
                with suppress(LeaseLost):  # on a starved machine; the ticket comes again
                    client.finish(ticket, verdict=verdict, reasons=reasons)
                    self.answers += 1
