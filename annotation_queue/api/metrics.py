"""The queue's figures as Prometheus metrics. Knows nothing about HTTP or the database.

People are left out: their names are personal data, which a monitoring system should not keep.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4 as CONTENT_TYPE
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from annotation_queue.figure_records import QueueFigures

__all__ = ["CONTENT_TYPE", "exposition"]

Values = Iterable[tuple[dict[str, str], float | None]]  # by labels; None: nothing was counted, so there is no sample


def exposition(figures: QueueFigures) -> bytes:
    """The figures in Prometheus' text format, of CONTENT_TYPE."""
    registry = CollectorRegistry()
    registry.register(_Figures(figures))
    return generate_latest(registry)


class _Figures(Collector):
    def __init__(self, figures: QueueFigures) -> None:
        self._figures = figures

    def collect(self) -> Iterator[Metric]:
        """One gauge for each figure."""
        batches, total = self._figures.batches, self._figures.total
        yield _gauge(
            "tickets",
            "Tickets by batch, kind and state.",
            (
                ({"batch": b.batch_id, "kind": b.kind.value, "state": state}, n)
                for b in batches
                for state, n in (("open", b.open), ("leased", b.leased), ("done", b.done))
            ),
        )
        yield _gauge(
            "expected_seconds",
            "Time until the open tickets are done, at the pace of the last 15 minutes.",
            (({"batch": b.batch_id, "kind": b.kind.value}, b.expected_s) for b in batches),
        )
        yield _gauge(
            "answers", "Finished tickets by verdict.", (({"verdict": v}, n) for v, n in total.verdicts.items())
        )
        first = total.first_pass
        yield _gauge(
            "first_pass_ratio",
            "Share of masklets that their first verifier accepted.",
            [({}, None if first is None else first.right / first.of)],
        )
        yield _gauge("agreement_ratio", "Agreement on tickets with several verdicts.", [({}, total.agreement)])
        phases = [({"phase": work.name}, work) for work in self._figures.phases]
        yield _gauge(
            "seconds_per_frame",
            "Work time for each annotated frame of masklets that people made.",
            ((labels, work.seconds_per_frame) for labels, work in phases),
        )
        yield _gauge(
            "clicks_per_clicked_frame",
            "Clicks on each clicked frame of masklets that people made.",
            ((labels, work.clicks_per_clicked_frame) for labels, work in phases),
        )
        yield _gauge(
            "edited_frames_ratio",
            "Share of edited frames in masklets that people made.",
            ((labels, work.edited_frames_share) for labels, work in phases),
        )
        right, of = (sum(getattr(g.accuracy, part) for g in self._figures.gold) for part in ("right", "of"))
        yield _gauge(
            "gold_accuracy_ratio", "Share of gold tickets that people got right.", [({}, right / of if of else None)]
        )
        yield _gauge(
            "undelivered_batches",
            "Drained batches that the pipeline does not know of yet.",
            [({}, self._figures.undelivered)],
        )


def _gauge(name: str, about: str, values: Values) -> Metric:
    family = GaugeMetricFamily(f"masklets_{name}", about)
    for labels, value in values:
        if value is not None:
            family.add_sample(family.name, labels, value)
    return family
