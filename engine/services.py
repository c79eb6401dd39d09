"""The one place that opens the catalog, the blobs, the queue and the model from the settings.

`connect` gives the `Services` that stages take. Each of them is opened at its first use. Stages know nothing about
settings files or the environment.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Self
from weakref import WeakValueDictionary

from engine import locks
from engine.files import alone, private_file, private_folder, write_secret
from engine.settings import Settings
from storage import ontology
from storage.blobs import stores
from storage.blobs.base import BlobMissing, Blobs, read_json
from storage.dataset import parts
from storage.iceberg.tables import Tables
from storage.ontology import Ontology
from storage.records import Video
from storage.videos.video import FrameReader

if TYPE_CHECKING:  # imported where they are used: torch takes seconds, and some machines do not have it
    from annotation_queue.client import QueueClient
    from annotation_queue.people.accounts import Accounts
    from annotation_queue.tickets.store import TicketStore
    from engine.locks import Held
    from engine.registry import Checkpoint, Registry
    from model.checkpoints import LoadedModel
    from model.detector import Detector


class NoPipelineToken(Exception):
    """The pipeline has no token: start `masklets serve` on this home once, or set MASKLETS_QUEUE__TOKEN."""

    def __str__(self) -> str:
        return (self.__doc__ or "").strip()


class Services:
    """The store, catalog, queue, registry and models of these settings. A context manager: leaving it closes them."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._open = ExitStack()
        self._models: WeakValueDictionary[tuple[str, str], LoadedModel] = WeakValueDictionary()  # by name and dtype
        self._model: LoadedModel | None = None  # the one that was asked for last; all others live while they are used
        self._ontologies: dict[str, Ontology | None] = {}  # by project
        self._lock = threading.Lock()  # threads of the queue open the catalog together

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._open.close()

    @cached_property
    def home(self) -> Path:
        """The local folder of databases, caches and secrets; made, or closed to other users, at its first use."""
        private_folder(self.settings.home)
        return self.settings.home.absolute()

    @cached_property
    def blobs(self) -> Blobs:
        storage = self.settings.storage
        return stores.connect(
            self.settings.root,
            cache=self.home / "cache",
            cache_limit=round(storage.cache_gib * 2**30),
            endpoint_url=storage.s3_endpoint,
            timeout_s=storage.s3_timeout_s,
        )

    @cached_property
    def tables(self) -> Tables:
        warehouse = self.blobs.uri_of("warehouse")
        return self._open.enter_context(
            Tables.open(self._private(self.settings.catalog_uri), warehouse, self.settings.storage.s3_endpoint)
        )

    @cached_property
    def queue(self) -> QueueClient:
        """The queue's HTTP API, logged in as the pipeline. Raises NoPipelineToken."""
        from annotation_queue.client import QueueClient

        return self._open.enter_context(QueueClient(self.settings.queue_url, token=self._pipeline_token()))

    @cached_property
    def registry(self) -> Registry:
        from engine.registry import Registry

        return Registry(self._private(self.settings.registry_uri), self.home / "mlflow-artifacts")

    def ontology_of(self, project: str) -> Ontology | None:
        """The ontology that the settings name for a project, read once; None without one.

        Raises OntologyError, NoSuchProject.
        """
        if project not in self._ontologies:
            path = self.settings.of_project(project).review.ontology
            self._ontologies[project] = None if path is None else ontology.read(path)
        return self._ontologies[project]

    def ontologies(self) -> list[Ontology]:
        """The ontologies of all projects, each once. Raises OntologyError."""
        every = map(self.ontology_of, self.settings.project_names)
        return list({found.version: found for found in every if found is not None}.values())

    def alone(self, name: str, *, wait: bool = True) -> AbstractContextManager[Held]:
        """A lock over all machines that share this catalog and this store: see `engine/locks.py`."""
        return locks.alone(self._private(self.settings.catalog_uri), self.blobs, name, wait=wait)

    def checkpoint(self) -> Checkpoint:
        """The promoted checkpoint; before the first promotion, the one that the settings name."""
        from engine.registry import Checkpoint

        promoted = self.registry.promoted()
        return promoted or Checkpoint(name=self.settings.model.checkpoint, round=0, key=None)

    def parent(self, checkpoint: Checkpoint) -> Checkpoint | None:
        """The checkpoint from which a round made this one; None if no round made it."""
        from engine.registry import Checkpoint

        if checkpoint.key is None:
            return None
        begun = read_json(self.blobs, f"{checkpoint.key}/meta.json")["round"]
        return Checkpoint(name=begun["parent"], round=begun["parent_round"], key=begun["parent_key"])

    def model(self, checkpoint: Checkpoint, *, to_train: bool = False) -> LoadedModel:
        """The weights of a checkpoint. Raises NoCheckpoint.

        The model that was asked for last stays in memory. An earlier one is loaded again if nobody uses it any more.
        to_train: float32 instead of the dtype of the settings.
        """
        from model import checkpoints

        dtype = "float32" if to_train else self.settings.model.dtype
        key = (checkpoint.name, dtype)
        loaded = self._models.get(key)
        if loaded is None:
            where = checkpoint.name if checkpoint.key is None else str(self._fetch_folder(checkpoint.key))
            loaded = self._models[key] = checkpoints.load(where, device=self.device, dtype=dtype)
        self._model = loaded
        return loaded

    @cached_property
    def detector(self) -> Detector:
        """Finds the words of `auto.text`. Raises NoDetector."""
        from model import detector

        return detector.load(self.settings.auto.detector, self.device)

    @property
    def device(self) -> str:
        """The device that models run on. Also sets the number of CPU threads."""
        from model import devices

        devices.set_threads(self.settings.model.threads)
        return devices.pick_device(self.settings.model.device)

    @contextmanager
    def frames(self, video: Video) -> Iterator[FrameReader]:
        """A reader of a stored video's frames, closed after the block."""
        with FrameReader(self.blobs.fetch(video.video_key)) as reader:
            yield reader

    def video(self, video_id: str) -> Video:
        """The row of an admitted video. Raises ValueError if there is none."""
        if not video_id.isalnum():
            raise ValueError(f"no admitted video {video_id!r}")
        try:
            batch_id = self.blobs.read(f"videos/{video_id}/committed").decode()
            marker = parts.marker(self.blobs, "videos", batch_id, video_id)
            rows: list[Video] = [] if marker is None else parts.read_part(self.blobs, marker)
            if rows:  # otherwise it was erased
                return rows[0]
        except BlobMissing:  # an earlier version admitted it, or its batch was committed just now: the table knows it
            pass
        with self._lock:
            tables = self.tables
        found = tables.videos(where=f"video_id == '{video_id}'")
        if not found:
            raise ValueError(f"no admitted video {video_id!r}")
        return found[0]

    def open_queue(self, grace_s: float = 0.0) -> tuple[TicketStore, Accounts]:
        """The queue's own database, for the process that serves it. Makes the pipeline's account and token if needed.

        grace_s: leases that expired while no server ran stay with their holders for this many seconds.
        """
        from annotation_queue.database import Database
        from annotation_queue.people.accounts import PIPELINE, Accounts
        from annotation_queue.projects import Projects
        from annotation_queue.records import QueuePolicy, Role
        from annotation_queue.tickets.store import TicketStore

        database = Database(self._private(self.settings.queue_database_uri))
        self._open.callback(database.close)
        members = {name: frozenset(of.people) for name, of in self.settings.projects.items()}
        accounts = Accounts(database, projects=Projects(members))
        token = self.home / "pipeline.token"
        with alone(self.home / "pipeline.lock"):  # two processes make one token
            if not _is_known(accounts, token):  # the file is missing, or its token belongs to another database
                accounts.add(PIPELINE, [Role.PIPELINE])
                write_secret(token, accounts.issue_token(PIPELINE))
        queue = self.settings.queue
        policy = QueuePolicy(**queue.model_dump(include=set(QueuePolicy.model_fields)))
        return TicketStore(database, lease_s=queue.lease_s, policy=policy, grace_s=grace_s), accounts

    def read_queue(self) -> TicketStore | None:
        """The queue's own database, to read it. Makes no file, table, account or token.

        None if it is an SQLite file that does not exist: this machine reaches the queue by its URL only, or there is no
        queue yet. Raises DatabaseUnreachable, WrongSchema.
        """
        from sqlalchemy.engine import make_url

        from annotation_queue.database import Database
        from annotation_queue.tickets.store import TicketStore

        url = make_url(self.settings.queue_database_uri)
        if url.get_backend_name() == "sqlite" and not Path(url.database or "").exists():
            return None
        database = Database(self.settings.queue_database_uri, upgrade=False)
        self._open.callback(database.close)
        return TicketStore(database)

    def _private(self, uri: str) -> str:
        """The URI of a database. An SQLite file in the home is made first, so that no other user can read it."""
        folder = f"sqlite:///{self.home}/"
        if uri.startswith(folder):
            private_file(self.home / uri.removeprefix(folder))
        return uri

    def _pipeline_token(self) -> str:
        if self.settings.queue.token is not None:
            return self.settings.queue.token.get_secret_value()
        try:
            return (self.home / "pipeline.token").read_text().strip()
        except FileNotFoundError:
            raise NoPipelineToken from None

    def _fetch_folder(self, key: str) -> Path:
        """A local copy of every blob below `key`, as a folder."""
        folder = self.home / "cache" / "folders" / key
        for blob in self.blobs.keys(f"{key}/"):
            here = folder / blob.removeprefix(f"{key}/")
            if not here.exists():
                here.parent.mkdir(parents=True, exist_ok=True)
                temporary = here.with_name(f".{here.name}.{secrets.token_hex(4)}")
                temporary.write_bytes(self.blobs.read(blob))
                temporary.replace(here)
        return folder


def _is_known(accounts: Accounts, token: Path) -> bool:
    """Whether the queue's database has the token of this file."""
    from annotation_queue.errors import NotLoggedIn

    try:
        accounts.caller(token.read_text().strip())
    except (FileNotFoundError, NotLoggedIn):
        return False
    return True


def connect(settings: Settings | None = None) -> Services:
    """The services of these settings; None reads them from the environment."""
    return Services(settings or Settings())
