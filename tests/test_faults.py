"""A short form of `python -m benchmarks.faults`: real processes are killed, and nothing is lost or doubled."""

import multiprocessing
import os
import shutil
from collections import Counter
from pathlib import Path

import pytest

from benchmarks import bad_inputs, faults
from benchmarks.kills.jobs import MASKLETS
from benchmarks.kills.servers import ENVIRONMENT
from engine.services import connect
from storage.records import content_id

pytestmark = pytest.mark.server

SHORT = faults.Size(videos=3, batch=5, workers=2, kills=3, timeout_s=2, bad_inputs=0)


def test_kills_and_s3_errors_lose_nothing_and_double_nothing(monkeypatch):
    if not (list(Path("/usr/lib/postgresql").glob("*/bin")) or shutil.which("initdb")):
        assert "CI" not in os.environ
        pytest.skip("no PostgreSQL server is installed")
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    with faults.scene(SHORT, seed=3) as (_, stormy, seen, bucket):
        found = faults.storm(stormy, SHORT, bucket, seen.endpoint, seed=3)
        with connect(seen.settings("seen", SHORT)) as s:
            videos, masklets, operations = s.tables.videos(), s.tables.masklets(), s.tables.operations()
            quarantine = s.tables.quarantine()
        released, wrong = faults.released(seen.settings("seen", SHORT))
    assert found["crashes"] == 0, found["crash"]
    assert (found["kills"], found["left"]) == (3, 0) and found["s3_errors"] > 3
    assert found["most_lost"] <= 1, "videos at work in a killed worker"
    candidates = {content_id(video.video_id, str(n), length=20) for video in videos for n in range(MASKLETS)}
    assert len(videos) == 3 and len(candidates) == 6 and not quarantine
    assert Counter(o.masklet_id for o in operations) == Counter(candidates), "one verdict on each"
    accepted = sorted(each for each in candidates if not faults.is_rejected(each))
    assert sorted(row.masklet_id for row in masklets) == accepted == released and not wrong


def test_bad_inputs_are_read_or_refused_in_one_line():
    found = bad_inputs.try_all(multiprocessing.get_context("forkserver"), 80, 5)
    assert (found["bad_inputs"], found["crashes"], found["hangs"]) == (80, 0, 0), found["crash"]


def test_the_figures_of_the_parts_are_summed_and_all_must_be_equal():
    found: dict = {"kills": 3, "equal": True, "most_lost": 1, "kills_by_role": {"worker": 3}, "crash": ["why"]}
    faults.add(found, {"kills": 2, "equal": False, "most_lost": 0, "kills_by_role": {"worker": 1, "scheduler": 1}})
    faults.add(found, {"equal": True, "crash": [], "outages": 4})
    assert found["kills"] == 5 and found["kills_by_role"] == {"worker": 4, "scheduler": 1}
    assert (found["equal"], found["most_lost"], found["crash"], found["outages"]) == (False, 1, ["why"], 4)
