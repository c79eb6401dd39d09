"""The command `push`: what reaches huggingface_hub, and errors in one line."""

import json
import sys

import huggingface_hub
import pytest
from huggingface_hub.utils._paths import filter_repo_objects

from engine import hub_upload
from engine.services import connect
from engine.settings import Settings
from tests.engine.views.small_releases import masklet_of, publish, track


@pytest.fixture
def settings(tmp_path):
    return Settings(home=tmp_path / "home")


GONE = {"data/train/00007.parquet", "videos/val/gone[1].mp4"}  # of what is on the Hub: no longer in the release


@pytest.fixture
def calls(settings, monkeypatch):
    """A store with a release, and what the command asks of the Hub."""
    with connect(settings) as s:
        publish(s, [masklet_of("m", track(0))])
    found = []

    def create_repo(repo_id, **facts):
        found.append({"repo_id": repo_id} | facts)
        return f"https://huggingface.co/datasets/{repo_id}"

    def upload_folder(**facts):
        folder = facts["folder_path"]
        names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
        deleted = set(filter_repo_objects(there, allow_patterns=facts["delete_patterns"]))
        sent = set(filter_repo_objects(names, ignore_patterns=facts["ignore_patterns"]))
        found.append(facts | {"sent": sent, "not sent": len(names - sent), "deleted": deleted})

    there = ["README.md", "data/train/00007.parquet", "videos/train/v1.mp4", "videos/val/gone[1].mp4"]
    monkeypatch.setattr(huggingface_hub, "list_repo_files", lambda repo_id, repo_type: there)
    monkeypatch.setattr(huggingface_hub, "create_repo", create_repo)
    monkeypatch.setattr(huggingface_hub, "upload_folder", upload_folder)
    return found


@pytest.mark.slow
def test_a_dataset_is_made_and_the_folder_of_the_export_is_uploaded(command, calls, settings):
    said = command("push", "ada/cells", "--private")
    assert said == "release-0001: 4 files at https://huggingface.co/datasets/ada/cells\n"
    made, uploaded = calls
    assert made == {"repo_id": "ada/cells", "repo_type": "dataset", "private": True, "exist_ok": True}
    folder = uploaded.pop("folder_path")
    assert folder.is_relative_to(settings.home / "cache") and not folder.exists()
    assert uploaded.pop("ignore_patterns") and uploaded.pop("delete_patterns") and uploaded.pop("not sent") == 2
    assert uploaded == {
        "repo_id": "ada/cells",
        "repo_type": "dataset",
        "commit_message": "Upload release-0001",
        "deleted": GONE,
        "sent": {"README.md", "croissant.json", "data/train/00000.parquet", "videos/train/v1.mp4"},
    }


@pytest.mark.slow
def test_videos_stay_here_on_request_also_if_the_folder_has_some(command, calls, tmp_path):
    out = tmp_path / "out"
    command("export", str(out), "--format", "hf", "--media")
    facts = json.loads(command("push", "ada/cells", "--no-media", "--folder", str(out), "--json"))
    assert facts["url"].endswith("ada/cells") and not calls[0]["private"]
    assert calls[1]["folder_path"] == out and (out / "videos" / "train" / "v1.mp4").is_file()
    assert calls[1]["sent"] == {"README.md", "croissant.json", "data/train/00000.parquet"}
    assert calls[1]["deleted"] == GONE, "videos of the release that an earlier push brought stay on the Hub"


def test_a_name_that_the_hub_cannot_have_is_refused_before_anything_is_written(mistake, settings):
    for name in ("cells", "a/b/c", "a/x..y"):
        said = mistake("push", name)
        assert name in said and len(said.strip().splitlines()) == 1
    assert not settings.home.exists()


@pytest.mark.slow
@pytest.mark.parametrize("error", [OSError("no token:\n\nlog in"), LookupError("no token: log in")])
def test_an_error_of_the_hub_is_one_line_and_the_folder_stays(mistake, calls, settings, monkeypatch, error):
    def refuse(**_):
        raise error

    monkeypatch.setattr(huggingface_hub, "upload_folder", refuse)
    assert mistake("push", "ada/cells") == "masklets: ada/cells: no token: log in\n"
    assert list(settings.home.glob("cache/push/*/README.md"))


def test_without_the_library_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ValueError, match=r"pip install 'masklet-engine\[hub\]'"):
        hub_upload.check("ada/cells")
