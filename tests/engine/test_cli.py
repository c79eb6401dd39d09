"""The command line as people meet it: one clear line for a mistake, JSON for programs, kills that cost nothing."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from engine import batches
from engine.batches import Stage
from engine.services import connect
from storage import masklets


def masklets_command(settings, *words, **more):
    environment = os.environ | settings.environment() | {"OMP_NUM_THREADS": "1"} | more.pop("environment", {})
    return subprocess.run(
        [sys.executable, "-m", "engine.cli", *words],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        **more,
    )


@pytest.mark.parametrize(
    ("words", "environment", "line"),
    [
        (["ingest", "/no/such/folder"], {}, "no such folder: /no/such/folder"),
        (["ingest"], {"MASKLETS_STORAGE__ROOT": "gs://elsewhere"}, "gs://elsewhere"),
        (["validate"], {}, "there is no release yet"),
        (["validate", "nothing"], {}, "nothing"),
        (["train", "--release", "../../etc"], {}, "../../etc"),
        (["users", "add", "ada", "--role", "king"], {}, "king"),
        (["stats"], {"MASKLETS_ROUNDS__STEPS": "many"}, "MASKLETS_ROUNDS__STEPS"),
        (["stats"], {"MASKLETS_STORAGE__CATALOG_URI": "postgresql+psycopg://127.0.0.1:1/x"}, "127.0.0.1:1"),
    ],
)
def test_a_mistake_is_one_line_that_says_what_and_where(settings, words, environment, line):
    done = masklets_command(settings, *words, environment=environment)
    assert done.returncode == 2
    assert line in done.stderr and len(done.stderr.strip().splitlines()) == 1, done.stderr


def test_a_checkpoint_that_is_not_there_stops_before_anything_is_marked(settings, clips):
    done = masklets_command(settings, "run", str(clips), environment={"MASKLETS_MODEL__CHECKPOINT": "/no/model"})
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1].startswith("masklets: ") and "/no/model" in done.stderr
    with connect(settings) as s:
        (batch_id,) = batches.pending(s.blobs, Stage.PROPOSED)
        assert masklets.markers(s.blobs, "candidates", batch_id) == []


def test_run_simulate_goes_from_videos_to_a_release_and_again_does_nothing(settings, clips):
    first = masklets_command(settings, "run", str(clips), "--simulate", "--json")
    assert first.returncode == 0, first.stderr
    facts = json.loads(first.stdout)
    assert facts["ingest"]["admitted"] == 3 and len(facts["releases"]) == 1
    again = json.loads(masklets_command(settings, "run", str(clips), "--simulate", "--json").stdout)
    assert again["ingest"]["admitted"] == 0 and again["batches"] == [] and again["releases"] == []
    stats = json.loads(masklets_command(settings, "stats", "--json").stdout)
    assert list(stats["batches"].values()) == [Stage.PUBLISHED.value]
    if facts["releases"] != [""]:
        checked = json.loads(masklets_command(settings, "validate", "--json").stdout)
        assert checked["problems"] == []


def test_killed_again_and_again_it_ends_as_if_never_killed(settings, clips, tmp_path):
    """kill -9 while videos are admitted and proposed for; every run goes on where the last one was cut."""

    def home(name):
        return settings.model_copy(update={"home": tmp_path / name})

    def candidates(chosen):
        with connect(chosen) as s:
            (batch_id,) = batches.reached(s.blobs)
            rows = list(masklets.rows(s.blobs, "candidates", batch_id))
            return batch_id, sorted((row.masklet_id, row.rle) for row in rows), len(s.tables.videos())

    script = (
        "from engine import auto_masklets, ingest; from engine.services import connect\n"
        "with connect() as s:\n"
        "    ingest.run(s)\n"
        "    for b in auto_masklets.pending(s):\n"
        "        [auto_masklets.run(s, b, c) for c in auto_masklets.chunks(s, b)]\n"
        "        auto_masklets.finish(s, b)\n"
    )

    def start(chosen):
        environment = os.environ | chosen.environment() | {"OMP_NUM_THREADS": "1"}
        return subprocess.Popen([sys.executable, "-c", script], env=environment)

    whole, killed = home("whole"), home("killed")
    assert start(whole).wait(300) == 0

    def reached(pattern):
        return len(list((tmp_path / "killed" / "store").glob(pattern)))

    for pattern, count in (("videos/*/video.mp4", 1), ("videos/*/record.json", 2), ("commits/candidates/*/*", 1)):
        child = start(killed)
        deadline = time.monotonic() + 120
        while reached(pattern) < count and child.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.002)
        child.send_signal(signal.SIGKILL)
        child.wait()
    assert start(killed).wait(300) == 0
    assert candidates(killed) == candidates(whole)
