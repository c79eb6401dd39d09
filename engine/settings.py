"""Everything that can be set, in one frozen object: from the environment (`MASKLETS_…`), a TOML file, or the defaults.

Only `services.py` and the command line read it; everything else takes plain arguments. A nested field is set with two
underscores: `MASKLETS_STORAGE__ROOT=s3://bucket/prefix`, or in `masklets.toml` as `[storage] root = "…"`. The
environment wins over the file. A setting that does not exist is refused, wherever it was written.
"""

from __future__ import annotations

import os
import tomllib
from difflib import get_close_matches
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class StorageSettings(_Part):
    """Where the data lives."""

    root: str | None = None  # folder or s3://bucket/prefix; None: the folder `store` in `home`
    s3_endpoint: str | None = None  # URL of an S3 server that is not AWS
    catalog_uri: str | None = None  # SQLAlchemy URI of the Iceberg catalog; None: SQLite in `home`


class IngestSettings(_Part):
    """Which videos are admitted."""

    source: str | None = None  # folder or s3://bucket/prefix of raw videos
    min_s: float = Field(1.0, gt=0)  # seconds
    max_s: float = Field(600.0, gt=0)  # seconds
    min_side_px: int = Field(64, ge=16)
    max_side_px: int = Field(4096, ge=64)
    held_out_share: float = Field(0.2, ge=0, lt=1)  # of the videos, kept from training
    workers: int = Field(2, ge=1)  # videos normalised at once


class AutoSettings(_Part):
    """How candidates are made. The other thresholds of the grids are in model.image.GridConfig."""

    chunk_videos: int = Field(4, ge=1)  # videos a mapped task
    max_objects: int = Field(24, ge=1)  # candidates a video, best first
    preset: Literal["default", "quick"] | None = None  # SA-V's 2,304 points in 21 crops, or 256 on the frame;
    # None: by the model's size, as a small one finds a few more objects in crops, and much more that is none
    min_iou: float | None = Field(None, ge=0, le=1)  # estimated IoU of a grid point's mask; None: by the model's size
    min_stability: float | None = Field(None, ge=0, le=1)  # None: by the model's size


class ModelSettings(_Part):
    """Which model proposes where none is promoted yet, and where it runs."""

    checkpoint: str = "micro"  # a name, a hub name such as facebook/sam2.1-hiera-tiny, or a folder
    device: str = "auto"  # "auto", "cpu", "cuda", "cuda:1"
    dtype: Literal["float32", "bfloat16"] = "float32"  # bfloat16: faster on GPUs, and on CPUs with matrix units (AMX);
    # masks differ a little. Training is not concerned
    registry_uri: str | None = None  # MLflow tracking and registry; None: SQLite in `home`
    embeddings_gib: float = Field(2.0, gt=0)  # of frames that people work on; 16 MiB a frame at 1024 px, 1 at 256
    threads: int | None = Field(None, ge=1)  # CPU threads of torch; None: torch's choice


class QueueSettings(_Part):
    """The review queue."""

    database_uri: str | None = None  # SQLAlchemy URI; None: SQLite in `home`
    host: str = "127.0.0.1"
    port: int = Field(8765, ge=0, le=65535)
    url: str | None = None  # where people and programs reach the queue; None: http://host:port
    lease_s: float = Field(90.0, gt=0)
    token: SecretStr | None = None  # of the pipeline; None: made once and kept in `home`
    secure_cookie: bool = False  # True where people reach the page over HTTPS
    # logging in with an OpenID Connect provider, besides by password
    oidc_issuer: str | None = None  # its URL; it must send people back to `url` with a slash at the end
    oidc_client_id: str | None = None
    oidc_client_secret: SecretStr | None = None  # None: a public client
    oidc_name_claim: str = "preferred_username"  # what says whose account it is: nobody may be able to change theirs
    oidc_roles: str | None = None  # "annotator,verifier" or one of them: of whoever has no account; None: no entry
    # who gets which ticket, and how it is judged
    rework_s: float = Field(1800.0, ge=0)  # seconds that a masklet which was sent back waits for its maker first
    other_verifier: bool = True  # what a verifier asked for goes to another one; False for a team with a single one
    overlap: int = Field(2, ge=1)  # verdicts that a ticket of the overlap share takes
    overlap_share: float = Field(0.0, ge=0, le=1)  # of the verify tickets
    makers: int = Field(2, ge=1)  # people who make the masklet of a ticket of the makers' share, each by themselves;
    # as with `overlap`, a ticket waits for ever where fewer people may take it, which `masklets doctor` tells
    makers_share: float = Field(0.0, ge=0, le=1)  # of the track tickets about a masklet that nobody has made yet
    gold_share: float = Field(0.0, ge=0, le=1)  # of each person's claims that get a ticket with a known answer
    gold_iou: float = Field(0.75, ge=0, le=1)  # mean IoU from which a masklet made in one is right
    warmup_tickets: int = Field(0, ge=0)  # of these that a new person does before any other; 0: none
    warmup_accuracy: float = Field(0.8, ge=0, le=1)  # share of the last ones that must be right


class ReviewSettings(_Part):
    """Who judges what."""

    phase: Literal["1", "2", "3"] = "3"  # of tickets that correct a masklet
    select: bool = False  # a ticket a video, after the others, to pick a challenging object that nothing has masked
    held_out_by_hand: bool = False  # held-out videos are masked by hand (phase 1), as SA-V's were, so that no model
    # that is measured on them has shaped them


class RoundSettings(_Part):
    """When a retraining round starts by itself, and its budget."""

    min_new_masklets: int = Field(200, ge=1)  # accepted since the last round
    steps: int = Field(200, ge=1)
    lr: float = Field(1e-4, gt=0)
    image_size: int | None = None  # px; None: the checkpoint's
    min_gain: float = 0.0  # J&F points (0-100) that a checkpoint must gain to be promoted


class AirflowSettings(_Part):
    """The Airflow that `masklets up` runs."""

    host: str = "127.0.0.1"
    port: int = Field(8080, ge=0, le=65535)
    url: str | None = None  # where the queue tells of drained batches; None: no Airflow is told
    password: SecretStr | None = None  # of `admin` at `url`; None: the one that `masklets up` made in `home`
    parallelism: int = Field(4, ge=1)
    gpu_slots: int = Field(1, ge=1)  # size of the pool `gpu`
    ingest_every_s: int = Field(60, ge=5)
    reconcile_every_s: int = Field(900, ge=5)


class Settings(BaseSettings):
    """All settings. Frozen: make another one to change a value."""

    model_config = SettingsConfigDict(
        env_prefix="MASKLETS_",
        env_nested_delimiter="__",
        frozen=True,
        extra="forbid",
        nested_model_default_partial_update=True,
    )

    home: Path = Path("masklets-data")  # databases, caches, logs, secrets; and the store unless `storage.root` is set
    storage: StorageSettings = StorageSettings()
    ingest: IngestSettings = IngestSettings()
    auto: AutoSettings = AutoSettings()
    model: ModelSettings = ModelSettings()
    queue: QueueSettings = QueueSettings()
    review: ReviewSettings = ReviewSettings()
    rounds: RoundSettings = RoundSettings()
    airflow: AirflowSettings = AirflowSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments, then the environment, then the TOML file that MASKLETS_CONFIG names (default masklets.toml).

        Raises ValueError for a variable of no setting and a file that is no TOML, FileNotFoundError for one that is not
        there though it was named.
        """
        named = os.environ.get("MASKLETS_CONFIG")
        file = Path(named or "masklets.toml")
        if named and not file.exists():
            raise FileNotFoundError(f"MASKLETS_CONFIG names no file: {file}")
        known = [*settings_cls.model_fields, "config", "password"]
        for name in os.environ:  # pydantic-settings would pass over them
            part, nested, _ = name.lower().partition("__")
            part = part.removeprefix("masklets_")
            if not name.upper().startswith("MASKLETS_") or part in known:
                continue
            # a name of one part may be somebody else's, as Kubernetes sets some for a service called masklets
            close = get_close_matches(part, known, n=1, cutoff=0.5 if nested else 0.75)
            if nested or close:
                meant = f": is MASKLETS_{close[0].upper()}{'__…' if nested else ''} meant?" if close else ""
                raise ValueError(f"{name} is no setting{meant}")
        try:
            toml = TomlConfigSettingsSource(settings_cls, file)
        except tomllib.TOMLDecodeError as error:
            raise ValueError(f"{file}: {error}") from error
        return init_settings, env_settings, toml

    def environment(self) -> dict[str, str]:
        """The variables that give another process these settings, and no file's; it must inherit no others of ours."""
        variables = {"MASKLETS_HOME": str(self.home.absolute()), "MASKLETS_CONFIG": os.devnull}
        for part in type(self).model_fields:
            values = getattr(self, part)
            if not isinstance(values, BaseModel):
                continue
            for name, value in values:
                if isinstance(value, SecretStr):
                    value = value.get_secret_value()
                if value is not None:
                    variables[f"MASKLETS_{part}__{name}".upper()] = str(value)
        return variables

    @property
    def root(self) -> str:
        """The store's URI."""
        return self.storage.root or str(self.home.absolute() / "store")

    @property
    def catalog_uri(self) -> str:
        return self.storage.catalog_uri or self._sqlite("catalog.db")

    @property
    def queue_database_uri(self) -> str:
        return self.queue.database_uri or self._sqlite("queue.db")

    @property
    def queue_url(self) -> str:
        return self.queue.url or f"http://{self.queue.host}:{self.queue.port}"

    @property
    def registry_uri(self) -> str:
        return self.model.registry_uri or self._sqlite("mlflow.db")

    @property
    def airflow_home(self) -> Path:
        """Where the Airflow of `masklets up` lives."""
        return self.home.absolute() / "airflow"

    def _sqlite(self, name: str) -> str:
        """Raises ValueError for a home whose databases some of the libraries would look for elsewhere."""
        if set("?%#") & set(str(self.home.absolute())):
            raise ValueError(f"home {self.home.absolute()}: a path with ?, % or # cannot be one of a database")
        return f"sqlite:///{self.home.absolute()}/{name}"
