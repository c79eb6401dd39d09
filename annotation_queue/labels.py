"""Labels: what is said of a ticket's object, and when a ticket asks for it. Pure: no database, no clock.

A ticket's payload may name the version of an ontology (`ontology`): then its object may get a label. It may also say
which tickets ask for one (`label_at`): those that pick an object by hand ("select"), or those that accept one
("verify"). A label is chosen by an operation of its own, so it can be undone and is in the log.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from annotation_queue.draft import effective
from annotation_queue.records import Kind, NewOperation, Ticket
from storage.masklet_rules import attributes_problem
from storage.ontology import Ontology
from storage.records import Operation, Verdict

LABEL_AT = ("never", "select", "verify")


@dataclass(frozen=True, kw_only=True)
class Label:
    """What is said of an object."""

    name: str | None = None  # its class
    attributes: str | None = None  # JSON object with sorted keys; None: there are none

    @property
    def values(self) -> dict[str, Any]:
        """The attributes by name."""
        found: dict[str, Any] = json.loads(self.attributes or "{}")
        return found


def check_rules(payload: Mapping[str, Any]) -> None:
    """ValueError for a ticket's payload whose words about labels are unknown, or ask for one without an ontology."""
    version, at = payload.get("ontology"), payload.get("label_at", "never")
    if version is not None and not isinstance(version, str):
        raise ValueError(f"ontology is the version of one, not {version!r:.80}")
    if at not in LABEL_AT:
        raise ValueError(f"label_at is one of {', '.join(LABEL_AT)}, not {at!r:.80}")
    if at != "never" and version is None:
        raise ValueError(f"label_at is {at}, and no ontology says which labels there are")


def of_payload(payload: Mapping[str, Any]) -> Label:
    """The label in an operation of the kind "label". Raises ValueError if it is malformed."""
    name, attributes = payload.get("label"), payload.get("attributes") or {}
    if name is not None and not isinstance(name, str):
        raise ValueError(f"a label is a text or null, not {name!r:.80}")
    text = json.dumps(attributes, sort_keys=True)
    if problem := attributes_problem(text):
        raise ValueError(problem)
    return Label(name=name, attributes=text if attributes else None)


def check_operation(ontology: Ontology | None, operation: NewOperation) -> None:
    """ValueError unless the ontology of a ticket has the label of this operation. ontology: None without one."""
    if ontology is None:
        raise ValueError("this ticket takes no label: its batch was opened without an ontology")
    said = of_payload(json.loads(operation.payload))
    if problem := ontology.problem(said.name, said.values):
        raise ValueError(problem)


def chosen(before: Label, operations: Iterable[Operation]) -> Label:
    """The label after these operations of a ticket, in order. before: the label that the ticket came with."""
    found = [operation for operation in effective(list(operations)) if operation.kind == "label"]
    return of_payload(json.loads(found[-1].payload)) if found else before


def asks(ticket: Ticket, verdict: Verdict | None) -> bool:
    """Whether a ticket needs a label before this answer. verdict: None for a masklet."""
    payload = json.loads(ticket.payload)
    at = payload.get("label_at", "never")
    if at == "verify":
        return ticket.kind is Kind.VERIFY and verdict is Verdict.ACCEPT
    picks = ticket.kind is Kind.SELECT or (ticket.masklet_id is None and "begun_by" in payload)
    return at == "select" and picks and verdict is None


def lacking(ontology: Ontology, label: Label, verdict: Verdict | None) -> str | None:
    """Why a ticket that asks for a label cannot be answered, in one line, or None."""
    problem = ontology.problem(label.name, label.values)
    if problem is None:
        missing = ontology.missing(label.name, label.values)
        problem = missing and f"this ticket asks for {missing}"
    return problem and f"{problem}: choose it before you {verdict.value if verdict else 'submit'}"
