"""The commands for the upkeep of the store, over published batches."""

import json
import sys

import pytest

from benchmarks import scale
from engine.cli import main
from engine.services import connect
from engine.settings import Settings
from engine.stages import publish
from engine.views import card
from storage.dataset import releases
from validation import table_checks

pytestmark = pytest.mark.slow


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home with two published batches of two videos."""
    passed = table_checks.Report(success=True, results=(), docs_index=None)
    monkeypatch.setattr(table_checks, "check_tables", lambda *arguments, **named: passed)
    monkeypatch.setenv("MASKLETS_HOME", str(tmp_path / "home"))
    with connect(Settings(home=tmp_path / "home")) as s:
        for number in (1, 2):
            publish.publish_batch(s, scale.collect(s, number, 2)[0])
    return tmp_path / "home"


@pytest.fixture
def said(home, monkeypatch, capsys):
    """A function that runs a command and returns its exit status and what it printed."""

    def run(*words: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["masklets", *words])
        with pytest.raises(SystemExit) as stopped:
            main.main()
        printed = capsys.readouterr()
        return int(stopped.value.code or 0), printed.out + printed.err

    return run


def newest(home) -> releases.Release:
    with connect(Settings(home=home)) as s:
        return releases.load(s.blobs, releases.names(s.blobs)[-1])


def test_compact_makes_a_release_of_large_files_with_the_same_rows(said, home):
    before = newest(home)
    assert said("compact") == (0, "nothing to compact: no 64 MiB of published batches\n")
    status, text = said("compact", "--least-mib", "0.001")
    after = newest(home)
    assert (status, text) == (0, f"4 files into 2 large files, release {after.name}\n")
    assert after.name.startswith("release-0003-compacted-") and after.masklets() == before.masklets()
    assert len(list(after.files("masklets"))) == 2
    found = json.loads(said("compact", "--least-mib", "0.001", "--json")[1])
    assert found == {"groups": 0, "parts": 0, "release": "", "problems": []}
    with connect(Settings(home=home)) as s:
        publish.publish_batch(s, scale.collect(s, 3, 1)[0])
        assert len(newest(home).masklets()) == len(s.tables.masklets()) == 25


def test_tag_gives_a_release_a_name_that_other_commands_take(said, home):
    name = newest(home).name
    assert said("tag", "v1.0") == (0, f"v1.0 is {name}\n")
    assert said("tag", "release-0007")[0] == 2, "a name of the pipeline"
    assert said("tag", "other.release-7-x")[0] == 2
    assert said("tag", "v0.9", "--release", "nothing")[0] == 2
    assert json.loads(said("tag", "v1.1", "--release", "v1.0", "--json")[1]) == {
        "release": "v1.0",
        "name": "v1.1",
        "tagged": True,
    }
    assert newest(home).name == name
    with connect(Settings(home=home)) as s:
        assert f"It is another name of {name}." in s.blobs.read(card.key_of("v1.0")).decode()


def test_withdraw_says_who_and_why_and_validate_and_export_name_the_video(said, home, tmp_path):
    video_id, old = scale.ids_of(1, 2)[0], newest(home).name
    status, text = said("withdraw", video_id, "--why", "the person asked", "--by", "ann")
    assert status == 0 and f"{video_id} withdrawn by ann at 20" in text and text.count("holds it") == 2
    assert f"release release-0003-without-{video_id}" in text
    found = json.loads(said("validate", old, "--json", "--no-warnings")[1])
    assert [act["why"] for act in found["withdrawn"]] == ["the person asked"]
    assert json.loads(said("validate", "--json", "--no-warnings")[1])["withdrawn"] == []
    status, text = said("export", str(tmp_path / "out"), "--release", old)
    assert status == 2 and f"{old} holds what was withdrawn later: {video_id}" in text
    done = json.loads(said("withdraw", video_id, "--why", "x", "--erase", "--json")[1])
    assert done["erased"] > 0 and done["act"]["by"] == "ann"
    assert said("withdraw", "nothing", "--why", "x")[0] == 2


def test_reproduce_gives_the_hash_of_the_manifest_or_names_what_differs(said, home):
    release = newest(home)
    assert said("reproduce") == (0, f"{release.name}: identical, manifest sha256 {release.digest}\n")
    key = next(release.files("media")).key
    release.blobs.write(key, b"changed")
    status, text = said("reproduce", release.name, "--json")
    assert status == 1 and json.loads(text)["differences"][0].startswith(f"{key}: 7 bytes")
