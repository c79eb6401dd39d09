"""Backup and restore of what is not in the store: the databases of the queue, the catalog and the registry.

The order is registry, catalog, queue, and the store last, by whatever copies buckets or folders. An effect is copied
before its cause: a promoted checkpoint before the tables, the tables before people's answers. So nothing in a backup
refers to something that the backup lacks. And the queue comes last because only its content is nowhere else: every
answer that was acknowledged before its copy began is in the copy. What the catalog and the registry miss of the minutes
between is in the store, where a restore finds it again.

A backup is a folder:

    manifest.json       last: with it, the backup is complete. Sizes and hashes of all files
    queue.db            a copy by SQLite's online backup, or queue.dump, by pg_dump; so for catalog and registry
    artifacts.tar       MLflow's pictures and curves, if this home has any

It holds password hashes and gold answers: only its owner can read it. Secrets of a home (tokens, Airflow's keys) are
not in it; they are made again.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import sqlite3
import subprocess
import tarfile
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from pydantic import TypeAdapter, ValidationError
from sqlalchemy.engine import URL, make_url

from annotation_queue.errors import NoSuchBatch
from engine import batches
from engine.batches import BatchStage
from engine.files import private_file, private_folder
from engine.progress import Tell, ignore
from engine.rounds import record
from engine.services import Services
from engine.settings import Settings
from storage.dataset import releases
from storage.iceberg import table_recovery
from storage.wording import counted

MANIFEST, ARTIFACTS = "manifest.json", "artifacts.tar"
ORDER = ("registry", "catalog", "queue")  # effects before their causes; see above
FORMAT = 1


class BackupError(Exception):
    """A backup cannot be made or restored."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """One file of a backup."""

    name: str  # "registry", "catalog", "queue" or "artifacts"
    file: str
    kind: str  # "sqlite", "postgresql" or "tar"
    size: int  # bytes
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a backup holds."""

    format: int
    made_at: str  # ISO 8601, UTC: when its first copy began
    store: str  # the store that its catalog belongs to
    parts: tuple[Part, ...]
    left_out: tuple[str, ...]  # what has a backup of its own


@dataclass(frozen=True, kw_only=True)
class Restored:
    """What a restore did, and what people have to know."""

    parts: tuple[str, ...]
    tables: tuple[str, ...]  # whose catalog entry moved on to what the store has
    opened_again: tuple[str, ...]  # batches whose tickets the next `open review` opens again
    notes: list[str] = field(default_factory=list)


_MANIFEST = TypeAdapter(Manifest)


def backup(settings: Settings, folder: Path, tell: Tell = ignore) -> Manifest:
    """Copies the three databases into a new folder while everything runs. Raises BackupError."""
    if folder.exists() and any(folder.iterdir()):
        raise BackupError(f"{folder} is not empty: name a new folder")
    private_folder(folder)
    made_at, parts, left_out = datetime.now(UTC).isoformat(timespec="seconds"), list[Part](), list[str]()
    for name, uri in _databases(settings).items():
        if uri.startswith("http"):
            left_out.append(f"{name}: {uri} is a server of its own")
            continue
        url = make_url(uri)
        if _is_sqlite(url) and not Path(url.database or "").exists():
            left_out.append(f"{name}: {url.database} does not exist yet")
            continue
        tell(f"copying {name}")
        target = folder / f"{name}.{'db' if _is_sqlite(url) else 'dump'}"
        private_file(target)
        _copy_sqlite(Path(url.database or ""), target) if _is_sqlite(url) else _dump(url, target)
        parts.append(_part(name, target, "sqlite" if _is_sqlite(url) else "postgresql"))
    artifacts = settings.home.absolute() / "mlflow-artifacts"
    if artifacts.is_dir():
        tell("copying the registry's pictures and curves")
        private_file(folder / ARTIFACTS)
        with tarfile.open(folder / ARTIFACTS, "w") as tar:
            tar.add(artifacts, arcname=artifacts.name)
        parts.append(_part("artifacts", folder / ARTIFACTS, "tar"))
    manifest = Manifest(
        format=FORMAT, made_at=made_at, store=settings.root, parts=tuple(parts), left_out=tuple(left_out)
    )
    private_file(folder / "manifest.part")
    (folder / "manifest.part").write_text(json.dumps(dataclasses.asdict(manifest), indent=1) + "\n")
    (folder / "manifest.part").rename(folder / MANIFEST)
    return manifest


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a backup whose files are as they were written. Raises BackupError."""
    try:
        manifest = _MANIFEST.validate_json((folder / MANIFEST).read_bytes())
    except FileNotFoundError:
        raise BackupError(f"{folder} is no complete backup: {MANIFEST} is missing") from None
    except ValidationError as error:
        raise BackupError(f"{folder / MANIFEST} is damaged: {error.errors()[0]['msg']}") from None
    if manifest.format != FORMAT:
        raise BackupError(f"{folder} has format {manifest.format}, this version reads {FORMAT}")
    for part in manifest.parts:
        file = folder / part.file
        if not file.is_file() or _sha256(file) != part.sha256:
            raise BackupError(f"{file} is missing, or is not what {MANIFEST} says")
    return manifest


def restore(settings: Settings, folder: Path, tell: Tell = ignore) -> Restored:
    """Restores a backup into databases that are empty, and lets them follow the store, which may be newer.

    Nothing else may run on them. Raises BackupError, before anything is written if the backup or the target is wrong.
    """
    manifest = read_manifest(folder)
    databases = _databases(settings)
    if manifest.store != settings.root:
        raise BackupError(f"the backup belongs to the store {manifest.store}, the settings name {settings.root}")
    for part in manifest.parts:
        if part.name in databases:
            _check_target(part, databases[part.name])
    private_folder(settings.home)
    for part in manifest.parts:
        tell(f"restoring {part.name}")
        if part.kind == "tar":
            with tarfile.open(folder / part.file) as tar:
                tar.extractall(settings.home.absolute(), filter="data")
        elif part.kind == "sqlite":
            target = Path(make_url(databases[part.name]).database or "")
            target.parent.mkdir(parents=True, exist_ok=True)
            private_file(target)
            _copy_sqlite(folder / part.file, target)
        else:
            _load(make_url(databases[part.name]), folder / part.file)
    tell("comparing with the store")
    with Services(settings) as s:
        return _follow_store(s, manifest)


def _follow_store(s: Services, manifest: Manifest) -> Restored:
    """What happened between the backup and the loss, as far as the store knows it."""
    names, notes = releases.names(s.blobs), list[str]()
    of_project: dict[str, list[str]] = {}
    for name in names:
        of_project.setdefault(releases.project_of(name), []).append(name)
    known = [releases.load(s.blobs, name) for mine in of_project.values() for name in mine[-2:]]
    restored = {part.name for part in manifest.parts}
    snapshots = {release.snapshots["masklets"] for release in known}
    tables = table_recovery.follow_store(s.settings.catalog_uri, s.blobs, snapshots) if "catalog" in restored else []
    opened_again = []
    if "queue" in restored:
        tickets = s.read_queue()
        assert tickets is not None  # it was restored just now
        for batch_id, marks in sorted(batches.unfinished(s.blobs).items()):
            if BatchStage.IN_REVIEW not in marks or BatchStage.COLLECTED in marks:
                continue
            try:
                tickets.batch(batch_id)
            except NoSuchBatch:
                batches.unmark(s.blobs, batch_id, BatchStage.IN_REVIEW)
                opened_again.append(batch_id)
        decided = [
            batch.batch_id for batch in tickets.batches() if batch.remaining and _is_collected(s, batch.batch_id)
        ]
        if decided:
            notes.append(
                f"{counted(len(decided), 'batch')} with open tickets in this queue, collected after the backup: "
                f"the tickets need no work ({', '.join(decided[:3])})"
            )
    if "registry" in restored and (late := _promoted_later(s)):
        notes.append(f"round {late} was promoted after the backup; the registry serves {s.checkpoint().name}")
    return Restored(
        parts=tuple(part.name for part in manifest.parts),
        tables=tuple(tables),
        opened_again=tuple(opened_again),
        notes=notes,
    )


def _is_collected(s: Services, batch_id: str) -> bool:
    return batches.is_known(s.blobs, batch_id) and BatchStage.COLLECTED in batches.marks_of(s.blobs, batch_id)


def _promoted_later(s: Services) -> str | None:
    """The newest promoted round that the store knows, if another checkpoint is promoted in the registry."""
    promoted = [
        begun for begun in record.all_of(s) if (found := record.result_of(s, begun.round_id)) and found.promoted
    ]
    if not promoted:
        return None
    newest = max(promoted, key=lambda begun: begun.number)
    return newest.round_id if s.checkpoint().round < newest.number else None


# --- databases -------------------------------------------------------------------------------------------------------


def _databases(settings: Settings) -> dict[str, str]:
    """Their URIs, in the order in which they are copied."""
    uris = {
        "registry": settings.registry_uri,
        "catalog": settings.catalog_uri,
        "queue": settings.queue_database_uri,
    }
    return {name: uris[name] for name in ORDER}


def _is_sqlite(url: URL) -> bool:
    return url.get_backend_name() == "sqlite"


def _copy_sqlite(source: Path, target: Path) -> None:
    """A copy of one moment, while other processes write. Raises BackupError for a damaged database."""
    try:
        with (
            closing(sqlite3.connect(f"{source.absolute().as_uri()}?mode=ro", uri=True)) as old,
            closing(sqlite3.connect(target)) as new,
        ):
            old.backup(new)
            (said,) = new.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.DatabaseError as error:
        raise BackupError(f"{source} cannot be copied: {error}") from error
    if said != "ok":
        raise BackupError(f"{source} is damaged: {said}")


def _check_target(part: Part, uri: str) -> None:
    """Raises BackupError unless the database is of the same kind and empty."""
    url = make_url(uri)
    kind = "sqlite" if _is_sqlite(url) else url.get_backend_name()
    if kind != part.kind:
        raise BackupError(f"the backup of {part.name} is of {part.kind}, the settings name {kind}")
    if kind == "sqlite":
        file = Path(url.database or "")
        if file.exists() and file.stat().st_size:
            raise BackupError(f"{file} exists already: restore into an empty home")
    else:
        tables = "SELECT count(*) FROM information_schema.tables WHERE table_schema = 'public'"
        found = _postgres("psql", url, "-Atc", tables).strip()
        if found != "0":
            raise BackupError(f"database {url.database} of {part.name} has {found} tables: restore into an empty one")


def _dump(url: URL, target: Path) -> None:
    _postgres("pg_dump", url, "--format=custom", "--no-owner", "--no-privileges", f"--file={target}")


def _load(url: URL, source: Path) -> None:
    options = ("--no-owner", "--no-privileges", "--exit-on-error", "--single-transaction")
    _postgres("pg_restore", url, *options, f"--dbname={url.database}", str(source))


def _postgres(program: str, url: URL, *arguments: str) -> str:
    """Runs a program of PostgreSQL, and returns what it prints. The password is in its environment, not in `ps`.

    Raises BackupError, also if the program is missing.
    """
    if shutil.which(program) is None:
        raise BackupError(f"{program} is missing: install PostgreSQL's client programs (postgresql-client)")
    host = url.query.get("host") or url.host
    variables = {
        "PGHOST": host if isinstance(host, str) else None,
        "PGPORT": str(url.port) if url.port else None,
        "PGUSER": url.username,
        "PGPASSWORD": url.password,
        "PGDATABASE": url.database,
    }
    environment = dict(os.environ) | {name: value for name, value in variables.items() if value}
    done = subprocess.run([program, *arguments], env=environment, capture_output=True, text=True)
    if done.returncode:
        line = (done.stderr.strip().splitlines() or ["it says nothing"])[-1]
        raise BackupError(f"{program} of {url.database} failed: {line}")
    return done.stdout


def _part(name: str, file: Path, kind: str) -> Part:
    return Part(name=name, file=file.name, kind=kind, size=file.stat().st_size, sha256=_sha256(file))


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
