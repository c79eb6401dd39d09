"""A dataset for the Hub: `datasets` and mlcroissant load the folder offline, with equal masks and without names."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from engine.services import connect
from engine.settings import StorageSettings
from engine.views import hub as described
from storage import arrow, rle
from storage.formats import hub
from storage.formats.destination import CannotHold, Progress
from storage.formats.timeline import Timeline
from tests.engine.views.small_releases import masklet_of, publish, track

AUTO = masklet_of("auto", track(0, 0, None, 0, 0, 0), verified_by="zoe@a.org", label="dog")
HAND = masklet_of(
    "hand", track(40, 40, 40, 40, 40, 40), kind="manual", phase="1", annotated_by="ada@a.org", verified_by="zoe@a.org"
)
HELD = masklet_of("held", track(8, 9, 10, 11, 12, 13), "v2", "b2", split="val", verified_by="verifier-0001-0123abcd")
LOAD = """
import json, sys
import datasets
loaded = datasets.load_dataset(sys.argv[1])
print(json.dumps({split: list(rows) for split, rows in loaded.items()}))
"""


@pytest.fixture
def release(s):
    publish(s, [AUTO, HAND])
    return publish(s, [HELD], "release-0002", split="val")


def written(s, release, folder, media=True, progress: Progress | None = None):
    done = hub.export(release, folder, media=media, progress=progress, is_person=lambda name: "@" in name)
    return [*done.files, *described.describe(s, release, folder)]


def rows_of(folder):
    return [
        row
        for path in sorted(folder.glob("data/*/*.parquet"))
        for row in arrow.read_parquet(path.read_bytes()).to_pylist()
    ]


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.server
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools under NumPy 2
def test_datasets_loads_the_folder_offline_with_equal_masks(s, release, tmp_path):
    out = tmp_path / "out"
    files = written(s, release, out)
    assert sorted(str(path.relative_to(out)) for path in files) == [
        "README.md",
        "croissant.json",
        "data/train/00000.parquet",
        "data/val/00000.parquet",
        "videos/train/v1.mp4",
        "videos/val/v2.mp4",
    ]
    offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf")}
    done = subprocess.run(
        [sys.executable, "-c", LOAD, str(out)], env=os.environ | offline, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    loaded = json.loads(done.stdout.splitlines()[-1])
    assert {split: [row["masklet_id"] for row in rows] for split, rows in loaded.items()} == {
        "train": ["auto", "hand"],
        "val": ["held"],
    }
    for row, made in zip(loaded["train"] + loaded["val"], (AUTO, HAND, HELD), strict=True):
        size = [row["height"], row["width"]]
        masks = [coco_mask.decode({"size": size, "counts": counts.encode()}) for counts in row["rle"]]
        expected = [rle.decode(counts, *size) for counts in made.rle]
        assert all(np.array_equal(a, b) for a, b in zip(masks, expected, strict=True))
        assert row["area_px"] == list(made.area_px) and row["frame_idx"] == list(made.frame_idx)
        assert row["time_s"] == pytest.approx([k / 24 for k in made.frame_idx], abs=1e-6)
        assert (out / row["file_name"]).is_file() and row["fps"] == 24 and row["video_frame_count"] == 24
    assert loaded["train"][0]["label"] == "dog" and loaded["train"][1]["label"] is None


def test_people_have_pseudonyms_in_every_file(s, release, tmp_path):
    hub.export(release, tmp_path / "out", media=True, is_person=lambda name: "@" in name)
    assert [(row["annotated_by"], row["verified_by"]) for row in rows_of(tmp_path / "out")] == [
        (None, "person-1"),
        ("person-2", "person-1"),
        (None, "verifier-0001-0123abcd"),
    ]
    for path, content in contents(tmp_path / "out").items():
        assert b"ada@" not in content and b"zoe@" not in content, path


def test_what_the_source_says_about_a_video_is_in_the_rows_of_its_masklets_and_on_the_card(s, tmp_path):
    said = {
        "author": "author-0123456789ab",
        "place": "Oslo",
        "video_environment": "Indoor",
        "country": 47,
        "tripod": True,
    }
    publish(s, [AUTO], source_metadata=json.dumps(said | {"license": "CC BY\n4.0"}))
    release = publish(s, [HELD], "release-0002", split="val")
    written(s, release, tmp_path / "out", media=False)
    told, silent = ({name: row[name] for name in list(hub.COLUMNS)[-6:]} for row in rows_of(tmp_path / "out"))
    assert json.loads(told.pop("metadata")) == said | {"license": "CC BY\n4.0"}
    assert list(told.values()) == ["author-0123456789ab", "Oslo", "Indoor", "47", "CC BY 4.0"]
    assert set(silent.values()) == {None}
    card = (tmp_path / "out" / "README.md").read_text()
    assert "| place | 1 | Oslo 1 |\n| tripod | 1 | true 1 |\n| video_environment | 1 | Indoor 1 |" in card
    assert "| author | 1 | 1 different |" in card and "author-0123456789ab" not in card


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The inplace keyword in DataFrame.reset_index")  # mlcroissant under pandas 3
@pytest.mark.filterwarnings("ignore:ConjunctiveGraph is deprecated")  # rdflib 7 about its own class
def test_croissant_is_valid_and_its_library_reads_the_same_rows(s, release, tmp_path):
    import mlcroissant

    licensed = s.settings.model_copy(update={"storage": StorageSettings(license="cc-by-4.0")})
    with connect(licensed) as other:
        written(other, release, tmp_path / "out")
    assert '\nlicense: "cc-by-4.0"\n' in (tmp_path / "out" / "README.md").read_text()
    dataset = mlcroissant.Dataset(jsonld=tmp_path / "out" / "croissant.json")
    assert not dataset.metadata.issues.errors and dataset.metadata.license == ["cc-by-4.0"]
    found = list(dataset.records("masklets"))
    assert [row["masklets/masklet_id"] for row in found] == [b"auto", b"hand", b"held"]
    assert [tuple(row["masklets/rle"]) for row in found] == [AUTO.rle, HAND.rle, HELD.rle]
    assert set(found[0]) == {f"masklets/{name}" for name in hub.COLUMNS}


@pytest.mark.slow
def test_the_head_of_the_card_is_what_the_hub_reads(s, release, tmp_path):
    from huggingface_hub import DatasetCard

    written(s, release, tmp_path / "out", media=False)
    card = DatasetCard.load(tmp_path / "out" / "README.md")
    assert card.data.configs == [
        {
            "config_name": "default",
            "data_files": [
                {"split": "train", "path": "data/train/*.parquet"},
                {"split": "val", "path": "data/val/*.parquet"},
            ],
        }
    ]
    assert card.data.license is None and card.data.size_categories == ["n<1K"]
    assert card.data.task_categories == ["mask-generation", "image-segmentation"]
    assert "A label names the class of an object." in card.text
    assert card.text.lstrip().startswith("# release-0002") and 'split="train"' in card.text
    croissant = json.loads((tmp_path / "out" / "croissant.json").read_text())
    assert [part["name"] for part in croissant["distribution"]] == ["parquet"]


@pytest.mark.slow
def test_a_stopped_export_goes_on_and_a_second_one_changes_no_byte(s, release, tmp_path, monkeypatch):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    written(s, release, whole)
    seen = []

    def stop(done, total, name):
        seen.append(name)
        if len(seen) == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        written(s, release, stopped, progress=stop)
    real = hub._row

    def row(job, *rest):
        seen.append(job.name)
        return real(job, *rest)

    monkeypatch.setattr(hub, "_row", row)
    written(s, release, stopped)
    assert seen == ["v1", "v2"] and contents(stopped) == contents(whole)
    written(s, release, stopped)
    assert seen == ["v1", "v2"] and contents(stopped) == contents(whole)


def test_full_files_are_followed_by_others(release, tmp_path, monkeypatch):
    monkeypatch.setattr(hub, "FILE_BYTES", 1)
    hub.export(release, tmp_path / "out")
    data = tmp_path / "out" / "data"
    names = ["train/00000.parquet", "train/00001.parquet", "val/00000.parquet"]
    assert [str(path.relative_to(data)) for path in sorted(data.rglob("*.parquet"))] == names
    assert [row["masklet_id"] for row in rows_of(tmp_path / "out")] == ["auto", "hand", "held"]
    assert [row["file_name"] for row in rows_of(tmp_path / "out")] == [None] * 3


@pytest.mark.slow
def test_a_withdrawn_video_leaves_the_folder(s, release, tmp_path):
    out = tmp_path / "out"
    written(s, release, out)
    written(s, release.without(["v2"]), out)
    assert [row["masklet_id"] for row in rows_of(out)] == ["auto", "hand"]
    assert [str(path.relative_to(out)) for path in out.glob("videos/*/*")] == ["videos/train/v1.mp4"]
    assert "2 masklets of 1 video" in (out / "README.md").read_text()
    assert "val" not in (out / "README.md").read_text().partition("\nconfigs:\n")[2].partition("\n---\n")[0]


def test_the_timeline_of_the_source_has_no_videos_beside_it(release, tmp_path):
    with pytest.raises(CannotHold, match="24 fps"):
        hub.export(release, tmp_path / "out", media=True, line=Timeline.SOURCE)
