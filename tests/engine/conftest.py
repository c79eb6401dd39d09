"""A home in a temporary folder, a tiny real checkpoint, short clips with truth, datasets, and a running queue."""

import json
import shutil
import threading
import time
from functools import cached_property

import cv2
import numpy as np
import pytest
import uvicorn

from engine.files import alone
from engine.ingest import ingest
from engine.registry import Registry
from engine.services import connect
from engine.serving import serve
from engine.settings import (
    AutoSettings,
    IngestSettings,
    ModelSettings,
    QueueSettings,
    ReviewSettings,
    RoundSettings,
    Settings,
)
from engine.stages import imports, propose
from engine.synthetic import scene, video_files
from engine.verifier import fitting
from storage.dataset import releases
from storage.formats import davis
from storage.videos.video import FrameReader
from tests.engine.labelled_folders import write_sav_frames
from tests.engine.true_releases import release_of
from tests.free_ports import free_port

SCENE = scene.Scene(height=96, width=128, frames=24, objects=(2, 3), clutter=(0, 0), size=(0.2, 0.35), leave=0.0)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """A folder with a real, random SAM 2 video model of 1.7M parameters at 128 px."""
    import torch

    from model import architecture, checkpoints

    torch.set_num_threads(1)
    model = architecture.build(
        architecture.Shape(image_size=128, embed_dim=16, blocks=(1, 1, 2, 1), decoder_mlp=64, memory_mlp=128)
    )
    architecture.init_weights(model, 3)
    return checkpoints.save(model, tmp_path_factory.mktemp("tiny"), card="A random model for tests.", meta={})


@pytest.fixture(scope="session")
def clips(tmp_path_factory):
    """A folder with three short clips and their truth."""
    folder = tmp_path_factory.mktemp("clips")
    video_files.write_videos(folder, 3, SCENE, seed=5)
    return folder


@pytest.fixture
def settings(tmp_path, checkpoint, clips):
    return Settings(
        home=tmp_path / "home",
        # the videos of many tests show the same numbers
        ingest=IngestSettings(source=str(clips), held_out_share=0.34, near_duplicates=False),
        auto=AutoSettings(preset="quick", min_iou=0, min_stability=0, min_agreement=0, max_objects=3),
        model=ModelSettings(checkpoint=str(checkpoint), device="cpu", threads=1),
        queue=QueueSettings(port=free_port()),
        review=ReviewSettings(held_out_by_hand=True),
        rounds=RoundSettings(min_new_masklets=1, steps=2, lr=1e-5),
    )


@pytest.fixture(scope="session", autouse=True)
def mlflow_tables_once(tmp_path_factory):
    """Each new registry begins with a copy of MLflow's empty tables: MLflow needs a second to create its 50 tables."""
    empty = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    opened = vars(Registry)["_client"].func

    def client(registry):
        if registry._is_new():
            if not empty.exists():
                opened(Registry(f"sqlite:///{empty}", empty.with_name("artifacts")))
            with alone(registry._artifacts.with_name("mlflow.lock")):
                if registry._is_new():
                    shutil.copyfile(empty, registry._uri.removeprefix("sqlite:///"))
        return opened(registry)

    quick = cached_property(client)
    quick.__set_name__(Registry, "_client")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Registry, "_client", quick)
        yield


@pytest.fixture(autouse=True)
def few_trees(monkeypatch):
    """Twenty trees are fitted in a fifth of the time, and tell right from wrong nearly as well."""
    monkeypatch.setattr(fitting, "TREES", 20)


@pytest.fixture(scope="session")
def known_candidates():
    """What the model found in this run of the tests, by everything that it depends on."""
    return {}


@pytest.fixture
def searched_once(known_candidates, monkeypatch):
    """The model searches each clip once, for all tests that only need candidates: it would find the same ones again."""
    search = propose.propose_video

    def propose_video(s, video, loaded, checkpoint, progress=None):
        key = (video, loaded.source, checkpoint, s.settings.auto.model_dump_json())
        if key not in known_candidates:
            known_candidates[key] = search(s, video, loaded, checkpoint, progress)
        return list(known_candidates[key])

    monkeypatch.setattr(propose, "propose_video", propose_video)


@pytest.fixture
def s(settings):
    with connect(settings) as services:
        yield services


@pytest.fixture
def queue(settings):
    """The queue of these settings, on its port, in a thread. What to do with drained batches is left to the test."""
    with connect(settings) as services:
        application = serve.app(services, deliver=False)
        config = uvicorn.Config(application, port=settings.queue.port, log_level="error", ws="none")
        config.timeout_graceful_shutdown = 1  # s: a client that stays would hold up the end of a test
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        deadline = time.monotonic() + 60
        while not server.started:
            assert time.monotonic() < deadline and thread.is_alive()
            time.sleep(0.02)
        yield services
        server.should_exit = True
        thread.join(10)


@pytest.fixture
def sav_folder(tmp_path, clips):
    """Three annotated videos in SA-V's layout; the second annotation is in another folder than its video."""
    root = tmp_path / "sa-v"
    (root / "sav_000").mkdir(parents=True)
    (root / "notes").mkdir()
    for n, path in enumerate(sorted(clips.glob("*.mp4"))):
        shutil.copy(path, root / "sav_000" / f"{path.stem}.mp4")
        note = json.loads(path.with_suffix(".truth.json").read_text())
        count = len(note["masklet_id"])
        note["masklet_edited_frame_count"] = [3 * (n % 2) + k for k in range(count)]
        note["video_split"] = "val" if n == 2 else "train"
        (root / ("notes" if n == 1 else "sav_000") / f"{path.stem}_manual.json").write_text(json.dumps(note))
    return root


@pytest.fixture
def davis_root(tmp_path, clips):
    """The first clip as a DAVIS root: a picture and an id mask for each of nine frames."""
    root = tmp_path / "davis"
    path = sorted(clips.glob("*.mp4"))[0]
    for kind in ("JPEGImages", "Annotations"):
        (root / kind / "480p" / "one").mkdir(parents=True)
    (root / "ImageSets" / "2017").mkdir(parents=True)
    (root / "ImageSets" / "2017" / "val.txt").write_text("one\n")
    with FrameReader(path) as reader:
        for i in range(9):
            cv2.imwrite(str(root / "JPEGImages" / "480p" / "one" / f"{i:05d}.jpg"), reader.read(i)[..., ::-1])
            ids = np.zeros((reader.height, reader.width), np.uint8)
            ids[20 + i : 60 + i, 20:60] = 3
            davis.write_ids(root / "Annotations" / "480p" / "one" / f"{i:05d}.png", ids)
    return root


@pytest.fixture
def sav_val(tmp_path):
    return write_sav_frames(tmp_path / "sav_val", "sav_000002")


@pytest.fixture
def release(s, sav_folder):
    for path in (sav_folder / "notes").iterdir():  # an import needs the annotations beside their videos
        shutil.copy(path, sav_folder / "sav_000" / path.name)
    name = imports.import_folder(s, sav_folder / "sav_000").release
    return releases.load(s.blobs, name)


@pytest.fixture
def true_release(s):
    """A release of the ingested clips with their true masklets."""
    ingest.admit(s)
    return release_of(s, "release-0001")
