"""How long the model takes to answer: a histogram for Prometheus, and its figures for the leads' page.

One for each server process. It counts what a person waits for, turns of other people included.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import TypeVar

from prometheus_client import CollectorRegistry, Histogram

from annotation_queue.pipeline_records import ModelTimes

T = TypeVar("T")

CLICK, PROPAGATION, FRAME = "click", "propagation", "frame"  # an answer; its first frame; each further frame
BUCKETS_S = (0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0)


class Timings:
    """The seconds of the answers of one model. Safe to use from several threads."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        about = "Seconds until a person has the mask of a click, the first frame of a propagation, each further frame."
        self._seconds = Histogram("masklets_model_seconds", about, ["what"], buckets=BUCKETS_S, registry=self.registry)

    def note(self, what: str, seconds: float) -> None:
        """Counts an answer. what: CLICK, PROPAGATION or FRAME."""
        self._seconds.labels(what).observe(seconds)

    def timed(self, what: str, each: Callable[[T], None]) -> Callable[[T], None]:
        """`each`, which also counts when it is called: the first time as `what`, then as FRAME, since this call."""
        since, kind = time.perf_counter(), what

        def noting(answer: T) -> None:
            nonlocal since, kind
            now = time.perf_counter()
            self.note(kind, now - since)
            since, kind = now, FRAME
            each(answer)

        return noting

    def summary(self) -> tuple[ModelTimes, ...]:
        """The figures of each kind of answer that came."""
        found = dict[str, dict[str, float]]()
        for family in self._seconds.collect():
            for sample in family.samples:
                name = sample.labels.get("le") or sample.name.rpartition("_")[2]
                found.setdefault(sample.labels["what"], {})[name] = sample.value
        return tuple(
            ModelTimes(what=what, answers=int(n), mean_s=parts["sum"] / n, p95_s=_quantile(parts, 0.95))
            for what, parts in found.items()
            if (n := parts["count"])
        )


def _quantile(parts: dict[str, float], share: float) -> float:
    """The upper end of the bucket that holds the quantile; the last finite one at most."""
    for end in BUCKETS_S:
        if parts[str(end)] >= math.ceil(share * parts["count"]):
            return end
    return BUCKETS_S[-1]
