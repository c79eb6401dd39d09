"""The command `run`: from videos to a release, or until it is stopped or killed."""

import json
import os
import re
import select
import signal
import subprocess
import sys
import time
from itertools import chain
from pathlib import Path

import pytest

from engine import batches
from engine.batches import BatchStage
from engine.services import connect
from engine.settings import QueueSettings, Settings
from storage.dataset import parts
from tests.engine.admitting import admit_and_propose
from tests.free_ports import free_port

pytestmark = pytest.mark.server


def test_run_json_prints_one_object_while_the_review_stays_open(tmp_path):
    (tmp_path / "videos").mkdir()
    bare = Settings(home=tmp_path / "home", queue=QueueSettings(port=free_port()))
    child = subprocess.Popen(
        [sys.executable, "-m", "engine.cli", "run", str(tmp_path / "videos"), "--json"],
        env=os.environ | bare.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None and child.stderr is not None
    try:
        while "Ctrl-C ends it" not in (line := child.stderr.readline()):
            assert line, "it ended"
        assert select.select([child.stdout], [], [], 60)[0], "the JSON object was not printed yet"
        child.send_signal(signal.SIGTERM)
        printed, said = child.communicate(timeout=60)
    finally:
        child.kill()
    assert child.returncode == 130 and "stopped" in said
    assert json.loads(printed)["batches"] == []


def test_run_without_a_review_names_the_next_command(command, clips):
    assert re.search(
        r"^\d+ tickets? to do; next: masklets serve", command("run", str(clips), "--no-review"), re.MULTILINE
    )


def test_a_missing_checkpoint_stops_the_run_before_any_video_is_marked(mistake, settings, clips, monkeypatch):
    monkeypatch.setenv("MASKLETS_MODEL__CHECKPOINT", "/no/model")
    line = mistake("run", str(clips)).strip().splitlines()[-1]
    assert line.startswith("masklets: ") and "/no/model" in line
    with connect(settings) as s:
        (batch_id,) = batches.pending(s.blobs, BatchStage.PROPOSED)
        assert parts.markers(s.blobs, "candidates", batch_id) == []


# pycocotools 2.0.11 does not know numpy 2's `copy` keyword yet.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_run_simulate_goes_from_videos_to_a_release_and_again_does_nothing(command, clips):
    first = json.loads(command("run", str(clips), "--simulate", "--json"))
    assert first["ingest"]["admitted"] == 3 and len(first["releases"]) == 1
    again = json.loads(command("run", str(clips), "--simulate", "--json"))
    assert again["ingest"]["admitted"] == 0 and again["batches"] == [] and again["releases"] == []
    stats = json.loads(command("stats", "--json"))
    assert list(stats["batches"].values()) == [BatchStage.PUBLISHED.value]
    if first["releases"] != [""]:
        assert json.loads(command("validate", "--json"))["problems"] == []


def test_killed_again_and_again_it_ends_as_if_never_killed(settings, clips, tmp_path):
    """kill -9 during ingest and auto-masklets; every run continues where the last one was killed.

    The videos that a killed ingest left become a batch of their own, so only the batches may differ. Only the first
    kill meets videos that are being decoded: a video that is hit twice counts as one that kills its workers.
    """
    whole, killed = (settings.model_copy(update={"home": tmp_path / name}) for name in ("whole", "killed"))

    def candidates(chosen):
        with connect(chosen) as s:
            of = {batch_id: batches.video_ids(s.blobs, batch_id) for batch_id in batches.reached(s.blobs)}
            rows = [row for batch_id in of for row in parts.rows(s.blobs, "candidates", batch_id)]
            assert all(parts.marked(s.blobs, "candidates", batch_id) == set(of[batch_id]) for batch_id in of)
            found = sorted((row.video_id, row.rle, json.loads(row.prompt)["frame_idx"]) for row in rows)
            return found, sorted(chain(*of.values())), sorted(video.video_id for video in s.tables.videos())

    def reached(pattern):
        return len(list((tmp_path / "killed" / "store").glob(pattern)))

    script = "from tests.engine.admitting import admit_and_propose; admit_and_propose()"
    for pattern, count in (("videos/*/video.mp4", 1), ("videos/*/committed", 1), ("commits/candidates/*/*", 1)):
        environment = os.environ | killed.environment() | {"OMP_NUM_THREADS": "1"}
        child = subprocess.Popen([sys.executable, "-c", script], env=environment, cwd=Path(__file__).parents[3])
        deadline = time.monotonic() + 120
        while reached(pattern) < count and child.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.002)
        child.send_signal(signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL
    admit_and_propose(killed)
    admit_and_propose(whole)
    found, in_batches, in_table = candidates(killed)
    assert found and len(in_batches) == 3 and in_batches == in_table
    assert (found, in_batches, in_table) == candidates(whole)
