"""`Sent[T]`: the type of a route's body. Its validation ends at the first wrong item of each list.

Pydantic reports every wrong item otherwise. A body of 2 MB with half a million of them stopped the event loop for 6 s,
and the answer names only the first.
"""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema

T = TypeVar("T")

LISTS = ("list", "tuple", "set", "frozenset")  # kinds of schemas that have items


class FailFast:
    """The annotation that changes the schema of a body. (pydantic's own annotation changes one list.)"""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """The body's schema, with `fail_fast` in each list below it."""
        schema = handler(source)
        _set(schema, handler, set())
        return schema


Sent = Annotated[T, FailFast()]


def _set(part: Any, handler: GetCoreSchemaHandler, seen: set[int]) -> None:
    if isinstance(part, list | tuple):
        for each in part:
            _set(each, handler, seen)
    elif isinstance(part, dict) and id(part) not in seen:
        seen.add(id(part))
        if part.get("type") == "definition-ref":
            _set(handler.resolve_ref_schema(part), handler, seen)
            return
        if part.get("type") in LISTS:
            part["fail_fast"] = True
        for each in part.values():
            _set(each, handler, seen)
