"""All settings in one frozen object: from the environment (`MASKLETS_…`), a TOML file, or the defaults.

What works on a store reads them from `Services.settings`. The rooms beside `engine/` know no settings and take plain
arguments; only the queue's rules are a section here, too (`QueuePolicy`). Two underscores name a nested field:
`MASKLETS_STORAGE__ROOT=s3://bucket/prefix`, in `masklets.toml`: `[storage] root = "…"`. The environment wins over the
file. An unknown setting is an error in both.
"""

from __future__ import annotations

import json
import os
import tomllib
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from annotation_queue.records import LEASE_S, PROJECT_PATTERN, QueuePolicy
from engine import setting_names
from engine.notice_settings import NoticeSettings
from engine.settings_section import Section

AbsolutePath = Annotated[Path, AfterValidator(Path.absolute)]  # other processes may start in another folder


class StorageSettings(Section):
    """Where the data lives."""

    root: str | None = None  # folder or s3://bucket/prefix; None: the folder `store` in `home`
    s3_endpoint: str | None = None  # URL of an S3 server; None: AWS
    s3_timeout_s: float = Field(60.0, gt=0)  # seconds without an answer after which a request is sent again
    cache_gib: float = Field(
        100.0, gt=0
    )  # GiB of local copies of a bucket's files; used ones may exceed it for an hour
    catalog_uri: str | None = None  # SQLAlchemy URI of the Iceberg catalog; None: SQLite in `home`
    # what `export` does with an earlier release that holds a withdrawn video: stop, or leave the video out
    withdrawn: Literal["refuse", "skip"] = "refuse"
    # licence of the datasets that `export --format hf` and `push` write, as the Hub calls it, such as cc-by-4.0; None:
    # the card names only the licences that the sources of the videos state
    license: str | None = None


class IngestSettings(Section):
    """Which videos are admitted."""

    source: str | None = None  # folder or s3://bucket/prefix of raw videos; None: each command must name one
    min_s: float = Field(1.0, gt=0)  # shortest video, seconds
    max_s: float = Field(14400.0, gt=0)  # longest video, seconds: memory does not grow with the length
    min_side_px: int = Field(64, ge=16)  # of the shorter side
    max_side_px: int = Field(4096, ge=64)  # of the longer side
    held_out_share: float = Field(0.2, ge=0, lt=1)  # share of the videos in val: rounds are measured on them
    test_share: float = Field(0.0, ge=0, lt=1)  # share of the videos in test: rounds measure nothing on them
    # columns of metadata.csv or metadata.parquet; the first that a video has decides its split: no author is in two
    split_by: tuple[str, ...] = ("author", "place")
    workers: int = Field(1, ge=1)  # videos normalised at the same time: if the process is killed, this work is lost
    # refuse a video that shows what an admitted one shows: encoded, scaled, cut, mirrored or marked again. False: only
    # the same bytes are refused
    near_duplicates: bool = True
    near_distance: int = Field(12, ge=0, le=24)  # bits of 64 that may differ between the hashes of a second
    near_share: float = Field(0.8, gt=0, le=1)  # of the seconds of the shorter video that must be alike
    batch_videos: int = Field(100, ge=1)  # most videos of a batch; a larger source becomes several batches
    blur_faces: bool = False  # blur faces before a video is stored; its metadata says so
    # ONNX file of YuNet, which finds the faces: face_detection_yunet_2023mar.onnx of the OpenCV Zoo (MIT licence)
    face_detector: AbsolutePath | None = None

    @model_validator(mode="after")
    def _blurring_needs_a_detector(self) -> Self:
        if self.blur_faces and self.face_detector is None:
            raise ValueError("blur_faces is true: set face_detector, the ONNX file that finds the faces")
        return self

    @model_validator(mode="after")
    def _some_are_trained_on(self) -> Self:
        if self.held_out_share + self.test_share >= 1:
            raise ValueError("held_out_share and test_share leave no videos to train on: their sum must be below 1")
        return self


class AutoSettings(Section):
    """How candidates are made. model.proposals.GridConfig has the other thresholds."""

    chunk_videos: int = Field(4, ge=1)  # videos in one Airflow task
    # most candidates of one window (see `window_s`; most videos are one); the best ones are kept. 0: none, people
    # select every object (see `review.select`)
    max_objects: int = Field(24, ge=0)
    window_s: float = Field(20.0, ge=1)  # seconds; a longer shot is searched in windows that share a frame
    # seconds from one search for new objects to the next; 0: only the first frame of each window is searched
    keyframe_s: float = Field(1.0, ge=0)
    # default: SA-V's 2,304 points on 21 crops; quick: 256 points on the whole frame; None: by the model's size, because
    # a small model finds mostly false objects in crops
    preset: Literal["default", "quick"] | None = None
    min_iou: float | None = Field(None, ge=0, le=1)  # estimated IoU of a mask, 0 to 1; None: by the model's size
    min_stability: float | None = Field(None, ge=0, le=1)  # stability of a mask, 0 to 1; None: by the model's size
    # how much other clicks in a mask agree with it, 0 to 1, for models up to 256 px; None: 0.55
    min_agreement: float | None = Field(None, ge=0, le=1)
    # what to find, as "person. dog."; the words become labels, and are classes of `review.ontology`, if there is one.
    # None: everything, with grids of points
    text: str | None = None
    # finds the words, by its name on the Hugging Face hub or in a folder: Grounding DINO or OWLv2, such as
    # google/owlv2-base-patch16-ensemble
    detector: str = "IDEA-Research/grounding-dino-tiny"
    min_text_score: float = Field(0.3, ge=0, le=1)  # score of the detector's box
    # frames a second that candidates are tracked through: half as many, half the time; masks are kept at 6 a second.
    # benchmarks/results/track-fps.json has the price. None: by the model's size, because a small model drifts less at 6
    track_fps: Literal[24, 12, 6] | None = None

    @field_validator("text")
    @classmethod
    def _has_words(cls, text: str | None) -> str | None:
        if text is not None and not _words(text):
            raise ValueError(f"text has no words: {text!r}")
        return text

    @property
    def words(self) -> list[str]:
        """The words of `text` in lower case, each once; empty for None."""
        return _words(self.text or "")


def _words(text: str) -> list[str]:
    parts = (" ".join(part.lower().split()) for part in text.split("."))
    return list(dict.fromkeys(part for part in parts if part))


class ModelSettings(Section):
    """Which model works until a round promotes one, and where models run."""

    checkpoint: str = "micro"  # a name, a hub name such as facebook/sam2.1-hiera-tiny, or a folder
    device: str = "auto"  # "auto", "cpu", "cuda", "cuda:1"
    # bfloat16 is faster on GPUs and on CPUs with AMX, and changes masks a little. Training ignores this: weights and
    # losses are float32, and on a GPU the model computes in bfloat16
    dtype: Literal["float32", "bfloat16"] = "float32"
    registry_uri: str | None = None  # MLflow tracking server and registry; None: SQLite in `home`
    embeddings_gib: float = Field(2.0, gt=0)  # GiB of cached frame embeddings; one takes 16 MiB at 1024 px, 1 at 256
    threads: int | None = Field(None, ge=1)  # CPU threads of torch; None: torch's default


def _networks(text: str | None) -> list[IPv4Network | IPv6Network]:
    """The networks and addresses of a list with commas. Raises ValueError."""
    return [ip_network(part.strip(), strict=False) for part in (text or "").split(",") if part.strip()]


class QueueSettings(Section, QueuePolicy):
    """The review queue. `QueuePolicy` has the fields that say who gets which ticket, and how it is judged."""

    database_uri: str | None = None  # SQLAlchemy URI; None: SQLite in `home`
    host: str = "127.0.0.1"  # address that the server listens on
    port: int = Field(8765, ge=0, le=65535)
    url: str | None = None  # where people and programs reach the queue; None: http://host:port
    lease_s: float = Field(LEASE_S, gt=0)  # seconds that a ticket stays with a person whose page sends nothing
    token: SecretStr | None = None  # the pipeline's token; None: made once and kept in `home`
    secure_cookie: bool = False  # True if people reach the page over HTTPS; also if `url` begins with https
    # addresses and networks with a comma, "10.0.0.7, 10.1.0.0/16": only these tell the queue by X-Forwarded-For which
    # address a request comes from; None: no proxy
    trusted_proxies: str | None = None
    # login with an OpenID Connect provider, in addition to passwords
    oidc_issuer: str | None = None  # URL of the provider; its redirect URI for us is `url` and a slash; None: passwords
    oidc_client_id: str | None = None  # required with an issuer
    oidc_client_secret: SecretStr | None = None  # None: a public client
    oidc_name_claim: str = "preferred_username"  # claim with the account name; users must not be able to change it
    # roles of a person without an account: "annotator", "verifier" or both with a comma; None: they cannot log in
    oidc_roles: str | None = None

    @field_validator("trusted_proxies")
    @classmethod
    def _are_networks(cls, text: str | None) -> str | None:
        _networks(text)
        return text

    @property
    def proxies(self) -> list[str]:
        """The addresses and networks of `trusted_proxies`."""
        return [str(network) for network in _networks(self.trusted_proxies)]


class ReviewSettings(Section):
    """How people work on masklets."""

    phase: Literal["1", "2", "3"] = "3"  # of tickets that correct a masklet
    select: bool = False  # after a video's other tickets: one more, to pick a challenging object without a masklet
    # people mask held-out videos by hand (phase 1), as for SA-V: no model shapes the masklets that measure models
    held_out_by_hand: bool = False
    # TOML or JSON file with the classes, attributes and guidelines of labels, see storage/ontology.py. A batch keeps
    # the ontology that it was opened with. None: no labels, as in SA-V
    ontology: AbsolutePath | None = None
    # which tickets need a label: "select", those that pick an object by hand; "verify", those that accept a masklet;
    # "never": people may give one anyway, if there is an ontology
    label_at: Literal["never", "select", "verify"] = "never"
    # Publish a batch in steps. A step has the videos whose tickets are all settled. It is due when they are this share
    # of the batch's videos (0: never) ...
    publish_share: float = Field(0.0, ge=0, lt=1)
    # ... or so many hours after the review opened, or after the last step, if there is one such video. 0: never
    publish_after_hours: float = Field(0.0, ge=0)

    @model_validator(mode="after")
    def _has_labels(self) -> Self:
        if self.label_at != "never" and self.ontology is None:
            raise ValueError(f"label_at is {self.label_at}: set ontology, the file that says which labels there are")
        return self


class VerifierSettings(Section):
    """What the verifier that learns from people's verdicts may do. By default, it only reports how good it is."""

    order: bool = False  # people get the verify tickets first about which the verifier is least sure
    # track each candidate with the checkpoint before, too: the verifier learns from how well the two agree, and `order`
    # puts first where they disagree. Tracks a quarter of the frames again if `auto.track_fps` is 24, and all if it is 6
    compare: bool = False
    accept: bool = False  # the verifier accepts candidates alone where `precision` is proved; never held-out ones
    reject: bool = False  # the verifier rejects candidates alone, under the same conditions
    refine: bool = False  # candidates that people would surely not accept are corrected without a review before
    precision: float = Field(0.98, ge=0.5, lt=1)  # at least this share of the verifier's decisions must be right
    audited_share: float = Field(0.05, ge=0, le=1)  # people still judge this share of what the verifier could decide


class CheckSettings(Section):
    """When masks look wrong (`masklets validate`). These are warnings, never refusals. 0 switches a check off."""

    flicker_frames: int = Field(1, ge=0)  # longest absence that counts as flicker, in annotated frames (6 a second)
    ghost_frames: int = Field(1, ge=0)  # longest appearance that counts as a ghost, in annotated frames
    jump_share: float = Field(0.25, ge=0, le=1)  # least move between two annotated frames, of the frame's diagonal
    jump_area: float = Field(3.0, ge=0)  # least factor between the areas of two neighbouring masks
    speck_share: float = Field(0.00014, ge=0, lt=1)  # largest speck, of the frame's area: 200 px at SA-V's mean size
    hole_share: float = Field(0.00014, ge=0, lt=1)  # largest hole, of the frame's area


class RoundSettings(Section):
    """When a retraining round starts by itself, and its budget."""

    min_new_masklets: int = Field(200, ge=1)  # published ones of the split train, since the last round
    # training steps; None: four a masklet, within bounds, as `steps_for` in engine/rounds/recipes.py says
    steps: int | None = Field(None, ge=1)
    # peak learning rate; None: 3e-4 if `model.checkpoint` is micro, else 5e-6, see `lr_for` in engine/rounds/recipes.py
    lr: float | None = Field(None, gt=0)
    image_size: int | None = Field(None, ge=32, multiple_of=32)  # px; None: the checkpoint's
    # CPU threads of torch in a round, of all its processes on this machine; None: model.threads in each
    threads: int | None = Field(None, ge=1)
    # command that starts the processes of a round's training, as "torchrun --standalone --nproc-per-node 8"; None: one
    # process
    launcher: str | None = None
    # the processes share the clips of a step: the same result in less time; false: each adds as many of its own
    share_batch: bool = False
    parts: Literal["all", "memory", "decoder"] = "all"  # which weights change: all, all but the encoder, the decoder
    # The gate; gains and losses in J&F points (0 to 100). A gain that chance may explain is never enough.
    min_gain: float = Field(0.0, ge=0, le=100)
    min_masklets: int = Field(10, ge=1)  # held-out masklets to measure on
    min_videos: int = Field(3, ge=2)  # of these masklets
    max_slice_loss: float = Field(5.0, ge=0, le=100)  # of a group of masklets, see engine/protocols/slices.py
    max_forgotten: float = Field(10.0, ge=0, le=100)  # on the general set, by all rounds together
    # "person": a person must approve a checkpoint that passed the gate, in Airflow or by `masklets rounds approve`
    approval: Literal["none", "person"] = "none"
    # What a round must not forget: a release, an SA-V folder or a DAVIS root, measured before and after it. "micro":
    # the synthetic clips that `micro` was measured on. None: these if `model.checkpoint` is micro, else not measured.
    general: str | None = None
    replay: float = Field(0.25, ge=0, lt=1)  # share of the training clips that come from the general set
    # learn where no object is from the candidates that people rejected for this reason; false where people left objects
    # of interest without a masklet and rejected candidates on them
    rejected: bool = True


class CampaignPhase(Section):
    """One phase of the plan. It ends when it has all its masklets and all its retrainings."""

    phase: Literal["1", "2", "3"]  # of the tickets that are opened in it
    masklets: int | None = Field(None, ge=1)  # to publish from tickets of this phase; None: no number
    # rounds that end in it, promoted or not; spread evenly over `masklets`, or each after `rounds.min_new_masklets`
    retrainings: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _has_an_end(self) -> Self:
        if self.masklets is None and not self.retrainings:
            raise ValueError(f"phase {self.phase} never ends: set masklets, retrainings or both")
        return self


class CampaignSettings(Section):
    """The plan: which phase new tickets get, and when rounds start. Without phases: `review.phase`, `rounds`."""

    phases: tuple[CampaignPhase, ...] = ()  # in order


class ProjectSettings(Section):
    """One of several projects. What its sections do not set is as in the sections of the same name for all."""

    people: tuple[str, ...] = ()  # who belongs to it, besides admins; none: everybody
    ingest: IngestSettings = IngestSettings()  # `source` is the project's own, and never that of all
    review: ReviewSettings = ReviewSettings()
    campaign: CampaignSettings = CampaignSettings()


class LogSettings(Section):
    """The log lines of `masklets serve`, `up` and `run`. Airflow writes those of tasks."""

    json_lines: bool = False  # one JSON object a line, for programs that collect logs; False: lines to read
    level: Literal["debug", "info", "warning", "error"] = "info"  # of our own lines; other libraries: from warning on


class AirflowSettings(Section):
    """The Airflow that `masklets up` runs, or another one that the queue reports to."""

    host: str = "127.0.0.1"  # address that the API server listens on
    port: int = Field(8080, ge=0, le=65535)  # 0: a free one
    url: str | None = None  # the queue reports drained batches there; None: the queue publishes them itself
    password: SecretStr | None = None  # of the user `admin` at `url`; None: the one that `masklets up` made in `home`
    parallelism: int = Field(4, ge=1)  # tasks at the same time
    gpu_slots: int = Field(1, ge=1)  # size of the pool `gpu`: tasks that use the model at the same time
    ingest_every_s: int = Field(60, ge=5)  # seconds between two looks at the source
    reconcile_every_s: int = Field(900, ge=5)  # seconds between two searches for work that was missed
    upkeep_every_s: int = Field(86400, ge=60)  # seconds between two runs of the store's upkeep


class NoSuchProject(ValueError):
    """The settings have no project of this name."""


OF_PROJECTS = ("ingest", "review", "campaign")  # sections that each project may have


def _as_dict(section: Any) -> dict[str, Any]:
    """What was given for a section: a new dict."""
    return section.model_dump(exclude_unset=True) if isinstance(section, BaseModel) else dict(section or {})


def settings_file() -> Path:
    """The TOML file with settings: the one that MASKLETS_CONFIG names, or masklets.toml. It may be missing."""
    return Path(os.environ.get("MASKLETS_CONFIG") or "masklets.toml")


class Settings(BaseSettings):
    """All settings. Frozen: make another one to change a value."""

    model_config = SettingsConfigDict(
        env_prefix="MASKLETS_",
        env_nested_delimiter="__",
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,  # an error about a section would print the secrets beside it
        nested_model_default_partial_update=True,
    )

    home: Path = Path("masklets-data")  # folder of databases, caches, logs and secrets; and of the store, unless set
    storage: StorageSettings = StorageSettings()
    ingest: IngestSettings = IngestSettings()
    auto: AutoSettings = AutoSettings()
    model: ModelSettings = ModelSettings()
    queue: QueueSettings = QueueSettings()
    review: ReviewSettings = ReviewSettings()
    verifier: VerifierSettings = VerifierSettings()
    checks: CheckSettings = CheckSettings()
    rounds: RoundSettings = RoundSettings()
    campaign: CampaignSettings = CampaignSettings()
    notices: NoticeSettings = NoticeSettings()
    airflow: AirflowSettings = AirflowSettings()
    logs: LogSettings = LogSettings()
    # by name, 1 to 40 of a-z, 0-9 and -; as a variable: MASKLETS_PROJECTS with one JSON object
    projects: dict[Annotated[str, Field(pattern=rf"^{PROJECT_PATTERN}$")], ProjectSettings] = {}

    @model_validator(mode="before")
    @classmethod
    def _inherit(cls, given: Any) -> Any:
        """Fills in what the sections of projects do not set: before any of them is checked."""
        if not isinstance(given, dict) or not isinstance(given.get("projects"), dict):
            return given
        whole = {name: _as_dict(given.get(name)) for name in OF_PROJECTS}
        whole["ingest"].pop("source", None)
        projects = {name: _as_dict(of) for name, of in given["projects"].items()}
        for of in projects.values():
            of |= {section: whole[section] | _as_dict(of.get(section)) for section in OF_PROJECTS}
        return given | {"projects": projects}

    @model_validator(mode="after")
    def _projects_fit(self) -> Self:
        sources = [self.ingest.source, *(of.ingest.source for of in self.projects.values())]
        if twice := {source for source in sources if source is not None and sources.count(source) > 1}:
            raise ValueError(f"two projects have the source {min(twice)}: a video belongs to one project")
        named = {name for one in (*self.notices.webhooks, *self.notices.apprise) for name in one.projects}
        if unknown := named - set(self.projects):
            raise ValueError(f"notices: there is no project {min(unknown)!r}")
        return self

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

        Raises ValueError for an unknown variable or key and for a file that is not TOML, FileNotFoundError if
        MASKLETS_CONFIG names a missing file.
        """
        file = settings_file()
        if "MASKLETS_CONFIG" in os.environ and not file.exists():
            raise FileNotFoundError(f"MASKLETS_CONFIG names a missing file: {file}")
        names = set(settings_cls.model_fields)
        for section, group in settings_cls.model_fields.items():
            if isinstance(group.annotation, type) and issubclass(group.annotation, Section):
                names |= {f"{section}.{name}" for name in group.annotation.model_fields}
        # pydantic-settings ignores unknown variables
        setting_names.check_variables(os.environ, {*names, "config"})
        try:
            toml = TomlConfigSettingsSource(settings_cls, file)
        except tomllib.TOMLDecodeError as error:
            raise ValueError(f"{file}: {error}") from error
        setting_names.check_file(file, toml.init_kwargs, names)
        return init_settings, env_settings, toml

    def environment(self) -> dict[str, str]:
        """The variables that give another process these settings. It must inherit no other MASKLETS_ variables."""
        variables = {"MASKLETS_HOME": str(self.home.absolute()), "MASKLETS_CONFIG": os.devnull}
        for section in type(self).model_fields:
            values = getattr(self, section)
            if not isinstance(values, BaseModel):
                continue
            for name, value in values:
                if isinstance(value, SecretStr):
                    value = value.get_secret_value()
                if isinstance(value, tuple):
                    plain = [of.model_dump(exclude_none=True) if isinstance(of, BaseModel) else of for of in value]
                    value = json.dumps(plain, default=SecretStr.get_secret_value)
                if value is not None:
                    variables[f"MASKLETS_{section}__{name}".upper()] = str(value)
        if self.projects:
            dumped = {name: of.model_dump(mode="json", exclude_none=True) for name, of in self.projects.items()}
            variables["MASKLETS_PROJECTS"] = json.dumps(dumped)
        return variables

    def of_project(self, name: str) -> Settings:
        """The settings with the sections of a project in place of those of all; "" is the unnamed project.

        Raises NoSuchProject.
        """
        if not name:
            return self
        if (of := self.projects.get(name)) is None:
            known = ", ".join(self.projects) or "none"
            raise NoSuchProject(f"the settings have no project {name!r:.60}; there are: {known}")
        return self.model_copy(update={section: getattr(of, section) for section in OF_PROJECTS})

    @property
    def project_names(self) -> tuple[str, ...]:
        """The unnamed project "" and the named ones."""
        return ("", *self.projects)

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
        """The URI of a database in `home`. Raises ValueError for a path that SQLAlchemy and MLflow read differently."""
        if set("?%#") & set(str(self.home.absolute())):
            raise ValueError(f"home {self.home.absolute()}: the path of a database cannot contain ?, % or #")
        return f"sqlite:///{self.home.absolute()}/{name}"
