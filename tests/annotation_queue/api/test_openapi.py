"""Requests made from the API's own description: each answer is as described, or one clear error."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings

from annotation_queue.api.app import create_app
from annotation_queue.database import Database
from annotation_queue.people.oidc import Provider
from annotation_queue.records import Kind, Person, Role
from annotation_queue.tickets.store import TicketStore
from tests.annotation_queue.synthetic_queue import SyntheticMedia, add_people, verify_tickets

schemathesis = pytest.importorskip("schemathesis", reason="the dev extra brings it")


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """The application, and the token of a person with every role, so that only the content can be refused."""
    database = Database(f"sqlite:///{tmp_path_factory.mktemp('openapi')}/queue.db")
    accounts, tickets = add_people(database), TicketStore(database)
    accounts.add("eve", list(Role))
    tickets.open_batch("b", verify_tickets(20, frame_count=4))
    eve = Person(name="eve", roles=frozenset(Role))
    tickets.claim(eve, [Kind.VERIFY], claim_id="c")
    unreachable = Provider("http://127.0.0.1:9", "masklets", page="http://127.0.0.1:8")
    yield create_app(tickets, SyntheticMedia(8), accounts=accounts, oidc=unreachable), accounts
    database.close()


def test_the_api_describes_itself(served):
    app, _ = served
    assert {"Ticket", "Masklet", "Submission", "Batch"} <= set(app.openapi()["components"]["schemas"])


@pytest.mark.server
def test_every_request_gets_the_described_answer_or_an_error_of_one_line(served):
    from schemathesis.specs.openapi.checks import response_schema_conformance

    app, accounts = served
    answers: Counter[str] = Counter()
    for operation in schemathesis.openapi.from_asgi("/api/openapi.json", app).get_all_operations():

        @given(case=operation.ok().as_strategy())
        @settings(
            max_examples=6, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck)
        )
        def asked(case):
            token = accounts.issue_token("eve")  # for each request: logging out revokes it
            case.headers = {**(case.headers or {}), "Authorization": f"Bearer {token}"}
            response = case.call()
            assert response.status_code < 500, (case.method, case.path, response.text)
            if response.status_code >= 400:
                assert set(response.json()) == {"error", "kind"} and "\n" not in response.json()["error"]
            else:
                case.validate_response(response, checks=[response_schema_conformance])
                answers[case.path] += 1

        asked()
    assert len(answers) > 10, answers
