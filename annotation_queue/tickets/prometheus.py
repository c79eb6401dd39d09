"""The queue's figures as Prometheus' text format."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from annotation_queue.records import (
    QueueFigures,
)
from annotation_queue.tickets.figures import _ratio


def prometheus(figures: QueueFigures) -> str:
    """The figures as Prometheus' text format 0.0.4. People are left out: their names are nobody else's business."""
    lines: list[str] = []

    def gauge(name: str, about: str, values: Iterable[tuple[Mapping[str, str], float | None]]) -> None:
        lines.extend((f"# HELP masklets_{name} {about}", f"# TYPE masklets_{name} gauge"))
        for labels, value in values:
            if value is not None:
                inside = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels.items())
                lines.append(f"masklets_{name}{{{inside}}} {value:.10g}" if inside else f"masklets_{name} {value:.10g}")

    batches, total = figures.batches, figures.total
    gauge(
        "tickets",
        "Tickets by batch, kind and state.",
        (
            ({"batch": b.batch_id, "kind": b.kind.value, "state": state}, n)
            for b in batches
            for state, n in (("open", b.open), ("leased", b.leased), ("done", b.done))
        ),
    )
    expected = (({"batch": b.batch_id, "kind": b.kind.value}, b.expected_s) for b in batches)
    gauge("expected_seconds", "Time until what is open is done, at the pace of the last quarter of an hour.", expected)
    gauge("answers", "Tickets finished, by outcome.", (({"verdict": v}, n) for v, n in total.verdicts.items()))
    first = None if total.first_pass is None else total.first_pass.right / total.first_pass.of
    gauge("first_pass_ratio", "Share of masklets that their first verifier accepted.", [({}, first)])
    gauge("agreement_ratio", "Agreement on tickets that took several verdicts.", [({}, total.agreement)])
    by_phase = [({"phase": work.name}, work) for work in figures.phases]
    gauge("seconds_per_frame", "Of masklets that people made.", ((k, w.seconds_per_frame) for k, w in by_phase))
    clicks = ((k, w.clicks_per_clicked_frame) for k, w in by_phase)
    gauge("clicks_per_clicked_frame", "Of masklets that people made.", clicks)
    gauge("edited_frames_ratio", "Of masklets that people made.", ((k, w.edited_frames_share) for k, w in by_phase))
    right, of = sum(g.accuracy.right for g in figures.gold), sum(g.accuracy.of for g in figures.gold)
    gauge("gold_accuracy_ratio", "Share of gold tickets that people got right.", [({}, _ratio(right, of))])
    gauge("undelivered_batches", "Drained batches that the pipeline was not told of.", [({}, figures.undelivered)])
    return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
