"""Checks this machine: tries everything that the engine needs for real, and answers with one line each."""

from __future__ import annotations

import contextlib
import os
import platform
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import httpx
import numpy as np

from annotation_queue import notices
from annotation_queue.records import Kind, Person, Role
from annotation_queue.rules import kinds_of
from engine import trouble
from engine.ingest import sources
from engine.processes.airflow import POOL
from engine.services import Services, connect
from engine.serving import delivery, serve, webhooks
from engine.settings import Settings
from storage.blobs.base import check_create_only
from storage.errors import first_line
from storage.videos import video
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
            ("settings", _settings),
            ("versions", _versions),
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


def _settings(s: Services) -> str:
    """Raises ValueError in a task of an Airflow elsewhere if a database is a file that only this machine sees."""
    settings = s.settings
    uris = {"catalog": settings.catalog_uri, "queue": settings.queue_database_uri, "registry": settings.registry_uri}
    local = [name for name, uri in uris.items() if uri.startswith("sqlite")]
    names = [name for name in os.environ if name.startswith("MASKLETS_")]
    where = "outside a task"
    if in_task := os.environ.get("AIRFLOW_CTX_DAG_ID"):
        where = f"inside a task of the DAG {in_task}"
        if local and Path(os.environ.get("AIRFLOW_HOME", "")) != settings.airflow_home:
            files = f"{', '.join(local)}: SQLite in {settings.home.absolute()}"
            raise ValueError(f"{files}, which other workers do not see; name a database server")
    return f"{counted(len(names), 'variable')} of MASKLETS_, home {settings.home.absolute()}, {where}"


def _versions(s: Services) -> str:
    """Raises ValueError for a package outside the limits of this version, or an Airflow of another version."""
    from packaging.requirements import Requirement

    installed, outside = 0, list[str]()
    for line in metadata.requires("masklet-engine") or ():
        wanted = Requirement(line)
        try:
            found = metadata.version(wanted.name)
        except metadata.PackageNotFoundError:  # an extra that this machine does not need
            continue
        installed += 1
        if not wanted.specifier.contains(found, prereleases=True):
            outside.append(f"{wanted.name} is {found}, this version takes {wanted.specifier}")
    if outside:
        raise ValueError("; ".join(outside))
    ours = f"Python {platform.python_version()}, masklet-engine {metadata.version('masklet-engine')}"
    return f"{ours}, {counted(installed, 'package')} within their limits"


def _source(s: Services) -> str:
    every = [s.settings.of_project(name).ingest.source for name in s.settings.project_names]
    if not (places := [where for where in every if where is not None]):
        return "not set; a command takes one as its argument, the DAGs take MASKLETS_INGEST__SOURCE"
    said = ("which holds files" if sources.has_files(s, where) else "which is empty" for where in places)
    return "; ".join(f"{where}, {what}" for where, what in zip(places, said, strict=True))


def _store(s: Services) -> str:
    check_create_only(s.blobs)
    return f"{s.blobs.uri}, create-only writes hold"


def _catalog(s: Services) -> str:
    place = s.settings.catalog_uri.rpartition("@")[2]  # a password may hold an @
    videos = s.tables.row_count("videos")
    return f"{place}, {counted(videos, 'video')}"


def _queue_database(s: Services) -> str:
    tickets, accounts = s.open_queue()
    return f"{counted(len(tickets.batches()), 'batch')}, {counted(len(accounts.list()), 'person')}"


def _batches(s: Services) -> str:
    """Raises ValueError if a stage fails, or a drained batch is not delivered."""
    if stuck := trouble.of_everything(s):
        raise ValueError("; ".join(map(trouble.line, stuck)))
    return "none is stuck"


def _ontology(s: Services) -> str:
    lines = []
    for project in s.settings.project_names:
        if (found := s.ontology_of(project)) is None:
            continue
        at = s.settings.of_project(project).review.label_at
        asked = "nothing asks for a label" if at == "never" else f"asked at {at}"
        line = f"{counted(len(found.classes), 'class')}, version {found.version}, {asked}"
        lines.append(f"{project}: {line}" if project else line)
    return "; ".join(lines) or "not set: objects get no labels"


def _people(s: Services) -> str:
    """Raises ValueError if the settings ask for more different people than there are: some tickets would stay open.

    Also for a name among the people of a project that has no account.
    """
    accounts = s.open_queue()[1]
    every = accounts.accounts()
    known = {account.name for account in every}
    people = [
        accounts.projects.of(Person(name=account.name, roles=frozenset(account.roles)))
        for account in every
        if not account.disabled
    ]
    for name, members in accounts.projects.members.items():
        if unknown := sorted(members - known):
            raise ValueError(f"project {name}: {', '.join(unknown)} has no account: masklets users add")
    if not accounts.projects.members:
        return _enough(s, people)
    of = {name: [p for p in people if p.projects is None or name in p.projects] for name in accounts.projects.members}
    return "; ".join(f"{name}: {_enough(s, members, f'project {name}: ')}" for name, members in of.items())


def _enough(s: Services, people: list[Person], where: str = "") -> str:
    """How many of these people may verify and correct. Raises ValueError if the settings ask for more.

    Counts the worst case: a masklet's maker may not verify it, nor may the person who sent it back, except a lead.
    """
    q = s.settings.queue
    kinds = [(kinds_of(person.roles), Role.LEAD in person.roles) for person in people]
    makers = sum(Kind.TRACK in can for can, _ in kinds)
    reviewers = sum(Kind.VERIFY in can for can, _ in kinds)
    both = any({Kind.TRACK, Kind.VERIFY} <= can for can, _ in kinds)
    sends_back = q.other_verifier and any(Kind.VERIFY in can and not leads for can, leads in kinds)
    left = max(0, reviewers - both - sends_back)
    if makers + reviewers > 0:
        if q.makers_share > 0 and makers < q.makers:
            raise ValueError(f"{where}queue.makers asks for {counted(q.makers, 'person')}, {makers} may correct")
        if q.overlap_share > 0 and left < q.overlap:
            needed = f"queue.overlap needs {counted(q.overlap, 'reviewer')} for a ticket"
            raise ValueError(f"{where}{needed}, but only {left} of the {reviewers} may be allowed to judge it")
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
        beat, version = client.health().scheduler, client.version()
        slots = {pool.name: pool.slots for pool in client.pools()}
    if beat is None:
        raise ValueError(f"{s.settings.airflow.url} answers, but no scheduler has ever run")
    if slots.get(POOL, 0) == 0:
        raise ValueError(
            f"the pool {POOL} is missing: tasks that run a model wait forever (airflow pools set {POOL} 1 -)"
        )
    with contextlib.suppress(metadata.PackageNotFoundError):
        if (here := metadata.version("apache-airflow-core")) != version:
            raise ValueError(f"{s.settings.airflow.url} is Airflow {version}, this machine has {here}")
    seen = f"its scheduler was last seen at {beat:%Y-%m-%d %H:%M} UTC"
    return f"{s.settings.airflow.url}: login works; {seen}; {counted(slots[POOL], 'place')} in the pool {POOL}"


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
