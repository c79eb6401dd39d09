"""A running queue, and how tests open batches in it."""

from __future__ import annotations

from contextlib import contextmanager

import pytest

from annotation_queue.api.app import create_app
from annotation_queue.client import QueueClient
from annotation_queue.database import Database
from annotation_queue.tickets.store import TicketStore
from tests.annotation_queue.synthetic_queue import SyntheticMedia, add_people, serving, verify_tickets


class Queue:
    """A running queue: its URL, its people, and the ids of the batches that it delivered."""

    def __init__(self, url, accounts, delivered):
        self.url = url
        self.accounts = accounts
        self.delivered = delivered

    def client(self, name):
        """A client of the person with this name."""
        return QueueClient(self.url, token=self.accounts.issue_token(name), patience_s=60)


@contextmanager
def running(folder):
    """A queue with synthetic videos of 48 frames, on a new SQLite file in `folder`."""
    database = Database(f"sqlite:///{folder}/queue.db")
    accounts, delivered = add_people(database), []
    app = create_app(TicketStore(database), SyntheticMedia(48), accounts=accounts, deliver=delivered.append)
    with pytest.MonkeyPatch.context() as patch, serving(app) as url:
        patch.setattr("annotation_queue.api.app.DELIVER_S", 0.05)
        yield Queue(url, accounts, delivered)
    database.close()


def open_batch(pipeline, request, count):
    """Opens a batch of `count` verify tickets, named after the test."""
    prefix = request.node.name.replace("[", "-").replace("]", "")[:60]
    return pipeline.open_batch(prefix, verify_tickets(count, frame_count=8, prefix=prefix))
