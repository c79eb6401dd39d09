"""What waits at each stage: the state, not the events, says what there is to do."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from engine.rounds import starting
from engine.services import Services
from engine.stages import propose, publish, review
from storage.errors import first_line

log = logging.getLogger(__name__)


@dataclass
class Waiting:
    """What waits, by the asset whose event would wake its stage; and a line for each stage that could not be asked."""

    pending: dict[str, list[str]] = field(default_factory=dict)  # batches, and the release that is due for a round
    trouble: list[str] = field(default_factory=list)


def run(s: Services) -> Waiting:
    """Asks every stage, whatever the others are troubled by: a queue that is down must not keep publishing waiting."""
    stages: dict[str, Callable[[], list[str]]] = {
        "videos": lambda: sorted({*propose.pending(s), *review.to_open(s)}),
        "reviewed": lambda: review.to_collect(s),
        "collected": lambda: publish.pending(s),
        "release": lambda: [name for name in [starting.due(s)] if name is not None],
    }
    found = Waiting()
    for name, ask in stages.items():
        try:
            found.pending[name] = ask()
        except Exception as error:
            log.exception("what waits for %r is not known", name)
            line = first_line(error)
            found.trouble.append(f"{name}: {line}")
    return found
