"""A server with a model that finds the disc, and one ticket to correct."""

from __future__ import annotations

import httpx
import pytest

from annotation_queue.api.app import create_app
from annotation_queue.records import Kind
from tests.annotation_queue.refinement.refining import ANN, FRAMES
from tests.annotation_queue.synthetic_queue import (
    SyntheticMedia,
    SyntheticModel,
    add_people,
    serving,
    track_ticket,
)


@pytest.fixture
def model():
    return SyntheticModel()


@pytest.fixture
def bench(tickets, model):
    """A server with one track ticket, which ann holds: (client, ticket)."""
    accounts = add_people(tickets.database)
    tickets.open_batch("b", [track_ticket(frame_count=FRAMES)])
    ticket = tickets.claim(ANN, [Kind.TRACK], claim_id="c")
    with serving(create_app(tickets, SyntheticMedia(FRAMES), accounts=accounts, segmenter=model)) as url:
        token = accounts.issue_token("ann")
        with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=60) as client:
            yield client, ticket
