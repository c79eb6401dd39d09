"""The queue in numbers."""

from __future__ import annotations

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from annotation_queue.errors import NotAllowed
from annotation_queue.records import Kind, State
from tests.annotation_queue.api.running import open_batch
from tests.annotation_queue.waiting import wait_until


def test_the_stats_count_the_open_tickets(pipeline, request):
    def open_tickets():
        counts = {(c.kind, c.state): c.tickets for c in pipeline.stats().counts}
        return counts.get((Kind.VERIFY, State.OPEN), 0)

    before = open_tickets()
    open_batch(pipeline, request, 3)
    wait_until(lambda: open_tickets() == before + 3)  # the stats are cached for a moment


def test_overseers_see_the_figures_and_prometheus_reads_them(queue, pipeline, vera, request):
    open_batch(pipeline, request, 1)
    with pytest.raises(NotAllowed, match="leads, admins"):
        vera.figures()
    name = request.node.name[:60]
    wait_until(lambda: name in {batch.batch_id for batch in pipeline.figures().batches})
    assert httpx.get(f"{queue.url}/metrics").status_code == 401
    answer = pipeline._http.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    found = {family.name: family.samples for family in text_string_to_metric_families(answer.text)}
    counts = {tuple(sample.labels.items()): sample.value for sample in found["masklets_tickets"]}
    assert counts[("batch", name), ("kind", "verify"), ("state", "open")] == 1
