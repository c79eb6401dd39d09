"""The bodies of all routes: validation ends at the first mistake of each list."""

from __future__ import annotations

from typing import Annotated, Any, get_type_hints

import pytest
from fastapi.routing import APIRoute
from pydantic import TypeAdapter, ValidationError

from annotation_queue.api import batches, logins, people, refinement, tickets
from annotation_queue.api.batches import AddGold
from annotation_queue.api.sent import LISTS, FailFast
from annotation_queue.api.tickets import Finish, OperationsBody

ROUTERS = (logins.router, logins.oidc_router, people.router, tickets.router, batches.router, refinement.router)
BODIES = {
    f"{sorted(route.methods)[0]} {route.path}": get_type_hints(route.endpoint, include_extras=True)["body"]
    for router in ROUTERS
    for route in router.routes
    if isinstance(route, APIRoute) and route.dependant.body_params
}
WRONG: list[Any] = [7] * 1000


def lists_in(part: Any) -> list[dict[str, Any]]:
    """The schemas of lists in a schema."""
    found = [part] if isinstance(part, dict) and part.get("type") in LISTS else []
    parts = part.values() if isinstance(part, dict) else part if isinstance(part, list | tuple) else ()
    return found + [each for inside in parts for each in lists_in(inside)]


@pytest.mark.parametrize("route", BODIES)
def test_every_list_of_a_body_ends_at_its_first_mistake(route):
    assert all(each.get("fail_fast") for each in lists_in(TypeAdapter(BODIES[route]).core_schema))


def test_the_routes_with_lists_are_found():
    assert len(BODIES) > 15 and sum(bool(lists_in(TypeAdapter(body).core_schema)) for body in BODIES.values()) > 5
    assert len(lists_in(TypeAdapter(Finish).core_schema)) == 7
    assert not any(each.get("fail_fast") for each in lists_in(TypeAdapter(Finish).core_schema))


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (Finish, {"outcome": {"reasons": WRONG, "masklet": {"frame_idx": WRONG, "rle": WRONG, "score": ["x"] * 1000}}}),
        (OperationsBody, {"operations": WRONG}),
        (AddGold, {"tickets": [{"ticket": {"masklet": {"rle": WRONG}}, "truth": {"rle": WRONG}}] * 10}),
    ],
)
def test_a_thousand_mistakes_give_few_errors(kind, body):
    fast: Any = Annotated[kind, FailFast()]
    with pytest.raises(ValidationError) as few:
        TypeAdapter(fast).validate_python(body)
    with pytest.raises(ValidationError) as many:
        TypeAdapter(kind).validate_python(body)
    assert few.value.error_count() < 50 and many.value.error_count() > 900
    assert few.value.errors()[0] == many.value.errors()[0]
