"""Fixtures with OpenID Connect providers, and queues that know one."""

from __future__ import annotations

import warnings
from contextlib import ExitStack

import httpx
import pytest
from joserfc.jwk import RSAKey

from annotation_queue.api.app import create_app
from annotation_queue.database import Database
from annotation_queue.people.oidc import Provider
from annotation_queue.tickets.store import TicketStore
from tests.annotation_queue.people.providers import CLIENT, SECRET, Liar
from tests.annotation_queue.synthetic_queue import HASTY, SyntheticMedia, add_people, serving, verify_tickets
from tests.free_ports import free_port


@pytest.fixture(scope="module")
def honest():
    """The issuer of a real provider. The claims of a user are those that a test sent to /users/{subject}."""
    with warnings.catch_warnings(record=True):  # it uses a deprecated part of Authlib
        import oidc_provider_mock
    with oidc_provider_mock.run_server_in_thread(require_nonce=True) as server:
        issuer = f"http://localhost:{server.server_port}"
        for name in ("ann", "vera", "stranger", "pipeline"):
            called = {"preferred_username": name, "email": f"{name}@example.org"}
            httpx.put(f"{issuer}/users/subject-of-{name}", json=called).raise_for_status()
        yield issuer


@pytest.fixture(scope="module")
def key():
    return RSAKey.generate_key(2048, {"kid": "one"})


@pytest.fixture
def liar(key):
    """A provider whose answers are correct until a test changes them."""
    liar = Liar(key)
    with serving(liar.app()) as liar.issuer:
        yield liar


@pytest.fixture
def queue(tmp_path):
    """Starts queues that know a provider: gives (URL, accounts)."""
    with ExitStack() as stack:

        def start(issuer, **options):
            database = Database(f"sqlite:///{tmp_path}/queue.db")
            stack.callback(database.close)
            accounts, tickets = add_people(database), TicketStore(database, policy=HASTY)
            tickets.open_batch("batch-1", verify_tickets(3, frame_count=8))
            port = free_port()  # the provider needs the redirect URI before the queue starts
            page = f"http://127.0.0.1:{port}"
            provider = Provider(issuer, CLIENT, SECRET, page=page, **options)
            app = create_app(tickets, SyntheticMedia(8), accounts=accounts, oidc=provider)
            return stack.enter_context(serving(app, port)), accounts

        yield start


@pytest.fixture
def browser():
    """Makes HTTP clients that keep cookies as a browser does."""
    with ExitStack() as stack:
        yield lambda url: stack.enter_context(httpx.Client(base_url=url))
