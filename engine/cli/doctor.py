"""Checks this machine: tries everything that the engine needs for real, and answers with one line each."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import httpx
import numpy as np

from annotation_queue import notices
from annotation_queue.records import Kind, Role
from annotation_queue.rules import kinds_of
from engine.services import Services, connect
from engine.serving import delivery, serve, webhooks
from engine.settings import Settings
from engine.stages import sources, trouble
from storage import video
from storage.blobs.base import check_create_only
from storage.errors import first_line
from storage.wording import counted


@dataclass(frozen=True)
class Check:
    """One thing that was tried, and its answer."""

    name: str
    ok: bool
    detail: str


def diagnose(settings: Settings) -> list[Check]:
    """Tries everything; a check that fails does not stop the others."""
    with connect(settings) as s:
        checks: list[tuple[str, Callable[[Services], str]]] = [
            ("source", _source),
            ("store", _store),
            ("catalog", _catalog),
            ("queue database", _queue_database),
            ("queue", _queue),
            ("batches", _batches),
            ("people", _people),
            ("ontology", _ontology),
            ("notices", _notices),
            ("login", _login),
            ("airflow", _airflow),
            ("video codecs", _codecs),
            ("checkpoint", _checkpoint),
        ]
        return [_try(name, check, s) for name, check in checks]


def _try(name: str, check: Callable[[Services], str], s: Services) -> Check:
    try:
        return Check(name, True, check(s))
    except Exception as error:  # every kind of failure is an answer
        return Check(name, False, first_line(error))


def _source(s: Services) -> str:
    where = s.settings.ingest.source
    if where is None:
        return "not set; a command takes one as its argument, the DAGs take MASKLETS_INGEST__SOURCE"
    return f"{where}, " + ("which holds files" if sources.has_files(s, where) else "which is empty")


def _store(s: Services) -> str:
    check_create_only(s.blobs)
    return f"{s.blobs.uri}, create-only writes hold"


def _catalog(s: Services) -> str:
    place = s.settings.catalog_uri.rpartition("@")[2]  # a password may hold an @
    return f"{place}, {counted(len(s.tables.videos()), 'video')}"


def _queue_database(s: Services) -> str:
    tickets, accounts = s.open_queue()
    return f"{counted(len(tickets.batches()), 'batch')}, {counted(len(accounts.list()), 'person')}"


def _batches(s: Services) -> str:
    """Raises ValueError if a stage fails, or a drained batch is not delivered."""
    if stuck := trouble.of_everything(s):
        raise ValueError("; ".join(map(trouble.line, stuck)))
    return "none is stuck"


def _ontology(s: Services) -> str:
    found = s.ontology
    if found is None:
        return "not set: objects get no labels"
    asked = "nothing asks for a label" if (at := s.settings.review.label_at) == "never" else f"asked at {at}"
    return f"{counted(len(found.classes), 'class')}, version {found.version}, {asked}"


def _people(s: Services) -> str:
    """Raises ValueError if the settings ask for more different people than there are: some tickets would stay open.

    Counts the worst case: a masklet's maker may not verify it, nor may the person who sent it back, except a lead.
    """
    q, kinds = s.settings.queue, list[tuple[frozenset[Kind], bool]]()
    for account in s.open_queue()[1].accounts():
        if not account.disabled:
            kinds.append((kinds_of(frozenset(account.roles)), Role.LEAD in account.roles))
    makers = sum(Kind.TRACK in can for can, _ in kinds)
    reviewers = sum(Kind.VERIFY in can for can, _ in kinds)
    both = any({Kind.TRACK, Kind.VERIFY} <= can for can, _ in kinds)
    sends_back = q.other_verifier and any(Kind.VERIFY in can and not leads for can, leads in kinds)
    left = max(0, reviewers - both - sends_back)
    if makers + reviewers > 0:
        if q.makers_share > 0 and makers < q.makers:
            raise ValueError(f"queue.makers asks for {counted(q.makers, 'person')}, {makers} may correct")
        if q.overlap_share > 0 and left < q.overlap:
            needed = f"queue.overlap needs {counted(q.overlap, 'reviewer')} for a ticket"
            raise ValueError(f"{needed}, but only {left} of the {reviewers} may be allowed to judge it")
    return f"{reviewers} may verify, {makers} may correct"


def _notices(s: Services) -> str:
    """Raises ValueError for an endpoint that cannot be used, or that has not received something."""
    names = list(webhooks.senders(s.settings.notices))
    database = s.open_queue()[0].database
    with database.read() as c:
        failed = [one for one in notices.failures(c) if one.endpoint in names]
    if failed:
        first = failed[0]
        raise ValueError(f"{first.endpoint} has not received {counted(len(failed), 'notice')}: {first.detail}")
    return f"{counted(len(names), 'endpoint')}, and nothing has failed" if names else "nobody is told anything"


def _queue(s: Services) -> str:
    try:
        answer = httpx.get(f"{s.settings.queue_url}/healthz", timeout=3, trust_env=False)
    except httpx.HTTPError:
        return f"not running at {s.settings.queue_url} (masklets serve starts it)"
    if not answer.is_success:
        raise ValueError(f"{s.settings.queue_url} answers {answer.status_code}")
    s.queue.tickets(limit=1)  # raises if the token belongs to another queue
    return f"{s.settings.queue_url}: running, and takes the pipeline's token"


def _login(s: Services) -> str:
    provider = serve.provider(s.settings)
    if provider is None:
        return "by password"
    provider.begin()
    return f"by password, or with {provider.host}, which answers"


def _airflow(s: Services) -> str:
    if s.settings.airflow.url is None:
        return "not set: the queue publishes drained batches itself"
    with delivery.airflow_client(s.settings) as client:
        client.import_errors(datetime.now(UTC))  # this needs the password, the health does not
        beat = client.health().scheduler
    if beat is None:
        raise ValueError(f"{s.settings.airflow.url} answers, but no scheduler has ever run")
    return f"{s.settings.airflow.url}: login works; its scheduler was last seen at {beat:%Y-%m-%d %H:%M} UTC"


def _codecs(s: Services) -> str:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "probe.mp4"
        shades = np.arange(24, dtype=np.uint8)[:, None, None, None] * np.ones((1, 64, 64, 3), np.uint8) * 8
        video.write(path, shades)
        count = sum(1 for _ in video.frames(path))
    if count != 24:
        raise ValueError(f"wrote 24 frames of H.264, read {count}")
    return "H.264 is written and read back, 24 of 24 frames"


def _checkpoint(s: Services) -> str:
    uri = s.settings.registry_uri
    if uri.startswith("http"):  # MLflow's own client would retry for minutes
        httpx.get(f"{uri.rstrip('/')}/health", timeout=3).raise_for_status()
    checkpoint = s.checkpoint()
    loaded = s.model(checkpoint)
    return f"{checkpoint.name} from {loaded.source}, {loaded.image_size} px, on {s.device} in {s.settings.model.dtype}"
