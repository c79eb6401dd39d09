"""The figures of the queue, the pipeline and the model as Prometheus metrics. Knows nothing about HTTP or the database.

People are left out: their names are personal data, which a monitoring system should not keep.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4 as CONTENT_TYPE
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from annotation_queue.figure_records import QueueFigures
from annotation_queue.pipeline_records import PipelineCounts
from annotation_queue.refinement.timings import Timings

__all__ = ["CONTENT_TYPE", "exposition"]

Values = Iterable[tuple[dict[str, str], float | None]]  # by labels; None: nothing was counted, so there is no sample


def exposition(
    figures: QueueFigures, timings: Timings | None = None, counts: PipelineCounts | None = None, *, up: bool = True
) -> bytes:
    """The figures in Prometheus' text format, of CONTENT_TYPE.

    counts: None if this server knows no pipeline, or with `up` False, if it could not be asked.
    """
    registry = CollectorRegistry()
    registry.register(_Figures(figures))
    if counts is not None or not up:
        registry.register(_Pipeline(counts))
    model = b"" if timings is None else generate_latest(timings.registry)
    return generate_latest(registry) + model


class _Pipeline(Collector):
    def __init__(self, counts: PipelineCounts | None) -> None:
        self._counts = counts

    def collect(self) -> Iterator[Metric]:
        """One gauge for each number; only `pipeline_up` if the pipeline could not be asked."""
        counts = self._counts
        yield _gauge("pipeline_up", "Whether store and catalog answer.", [({}, float(counts is not None))])
        if counts is None:
            return
        waiting = [({"stage": stage}, float(n)) for stage, n in sorted(counts.waiting.items())]
        yield _gauge("batches_waiting", "Unpublished batches by the stage that is next.", waiting)
        failing = [({"stage": stage}, float(n)) for stage, n in sorted(counts.failing.items())]
        yield _gauge("stages_failing", "Batches by the stage that fails for them.", failing)
        refused = [({"stage": s, "reason": r}, float(n)) for (s, r), n in sorted(counts.quarantined.items())]
        yield _gauge("quarantine_rows", "What was refused, by stage and reason.", refused)
        yield _gauge(
            "released_files",
            "Files released from quarantine that ingest has not judged again.",
            [({}, counts.released)],
        )
        if counts.checkpoint:
            about = {"checkpoint": counts.checkpoint, "round": str(counts.round)}
            yield _gauge("promoted_checkpoint", "The checkpoint that is promoted: its labels name it.", [(about, 1.0)])
        yield _gauge(
            "scheduler_seen_timestamp_seconds", "Last heartbeat of Airflow's scheduler.", [({}, counts.scheduler_seen)]
        )
        places = [
            ({"pool": pool.name, "state": state}, float(n))
            for pool in counts.pools
            for state, n in (("running", pool.running), ("queued", pool.queued))
        ]
        yield _gauge("pool_tasks", "Tasks in Airflow's pools, by state.", places)


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
