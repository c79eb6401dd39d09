"""The verdicts that stand: those that people gave and did not take back. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from itertools import chain

from storage.records import Operation

ONLY = "kind in ('verdict', 'unsubmit')"  # the operations that this follows from: not the strokes, which are large


def standing_verdicts(operations: Iterable[Operation]) -> list[Operation]:
    """The operations `verdict` that stand, by ticket and in order.

    operations: all of ONLY of each ticket; others do no harm.
    A take-back ends the last verdict of its person on its ticket. One without a verdict before it changes nothing.
    """
    given: dict[tuple[str, str], list[Operation]] = defaultdict(list)  # (ticket, person) -> verdicts that stand
    for act in sorted(operations, key=_place):
        mine = given[act.ticket_id, act.person]
        if act.kind == "verdict":
            mine.append(act)
        elif act.kind == "unsubmit" and mine:
            mine.pop()
    return sorted(chain.from_iterable(given.values()), key=_place)


def _place(act: Operation) -> tuple[str, int]:
    return act.ticket_id, act.seq
