"""A video that kills its worker twice is quarantined, and the others go on. Real processes, really killed."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import psutil
import pytest

from engine import attempts, batches, trouble
from engine.batches import BatchStage
from engine.ingest import ingest, sources
from engine.services import Services, connect
from engine.settings import IngestSettings, Settings
from engine.stages import propose
from storage.blobs.base import BlobUnreachable
from storage.blobs.folder import LocalBlobs
from storage.dataset import parts
from tests.storage.made_videos import make, numbered

pytestmark = pytest.mark.server

START = """
import os, signal, sys
from types import SimpleNamespace
from engine.services import Services, connect
from engine.ingest import ingest, judge
from engine.stages import propose

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def wait():
    print("at it", flush=True)
    sys.stdin.read()

def fail():
    raise OSError("the disk is full")

act = {"die": die, "wait": wait, "fail": fail}[sys.argv[2]]
"""

INGEST = (
    START
    + """
real = judge.normalise

def normalise(path, target, limits, through):
    if path.name == "bad.mp4":
        act()
    return real(path, target, limits=limits, through=through)

judge.normalise = normalise
with connect() as s:
    ingest.admit(s, sys.argv[1])
"""
)

PROPOSE = (
    START
    + """
from types import SimpleNamespace

def propose_video(s, video, loaded, checkpoint, progress=None):
    if video.source_uri.endswith("bad.mp4"):
        act()
    return []

propose.propose_video = propose_video
propose._pinned_checkpoint = lambda s, batch_id: SimpleNamespace(name="stub")
Services.model = lambda s, checkpoint: None
with connect() as s:
    propose.propose_batch(s, sys.argv[1])
"""
)


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "source"
    folder.mkdir()
    for n, name in enumerate(("a", "bad", "c")):
        make(folder / f"{name}.mp4", [numbered(i + 30 * n) for i in range(24)])
    return folder


@pytest.fixture
def s(tmp_path):
    with connect(Settings(home=tmp_path / "home", ingest=IngestSettings(workers=2, near_duplicates=False))) as services:
        yield services


def start(s, script, *arguments) -> subprocess.Popen[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MASKLETS_")} | s.settings.environment()
    command = [sys.executable, "-c", script, *arguments]
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )


def run(s, script, *arguments) -> int:
    with start(s, script, *arguments) as child:
        child.communicate()
        return child.returncode


def left(s) -> list[str]:
    return list(s.blobs.keys("attempts/"))


def refused(s) -> list[tuple[str, str, str]]:
    return [(q.stage, q.reason, q.detail) for q in s.tables.quarantine()]


TWICE = "2 workers died at it without an error: of too little memory, or of a crash"


def test_ingest_gives_a_video_up_that_killed_two_workers_and_admits_the_others(s, source):
    for _ in range(2):
        assert run(s, INGEST, str(source), "die") == -signal.SIGKILL
    assert run(s, INGEST, str(source), "die") == 0
    assert refused(s) == [("ingest", "kills_worker", TWICE)]
    assert sorted(v.source_uri.rsplit("/", 1)[-1] for v in s.tables.videos()) == ["a.mp4", "c.mp4"]
    assert left(s) == [] and ingest.admit(s, str(source)).unchanged == 3, "it is not tried again"


def test_a_killed_worker_counts_at_once_although_its_parent_has_not_noticed(s, source):
    """Until then the system keeps its id. A task that is run again at once must know of the kill."""
    child = start(s, INGEST, str(source), "wait")
    assert child.stdout.readline() == "at it\n"
    assert not attempts.killed(s.blobs, "ingest")
    child.kill()
    while psutil.Process(child.pid).status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)
    assert sum(attempts.killed(s.blobs, "ingest").values()) >= 1
    child.communicate()


def test_a_video_beside_one_that_kills_its_worker_is_not_suspected_for_it(s, source, monkeypatch):
    """Both were at work when the process was killed. The next run judges one at a time."""
    assert run(s, INGEST, str(source), "die") == -signal.SIGKILL
    names = {file.key: file.file_id for file in sources.list_files(s, LocalBlobs(source)).files}
    dead = (b'{"host": "another", "pid": 1, "started": 1.0}',)
    s.blobs.create(f"attempts/ingest/{names['a.mp4']}/1.json", *dead)
    assert run(s, INGEST, str(source), "die") == -signal.SIGKILL
    assert attempts.killed(s.blobs, "ingest")[names["bad.mp4"]] == 2
    assert attempts.killed(s.blobs, "ingest")[names["a.mp4"]] <= 1
    assert run(s, INGEST, str(source), "die") == 0
    assert len(s.tables.videos()) == 2 and len(refused(s)) == 1 and left(s) == []


def test_auto_masklets_give_a_video_up_that_killed_two_workers_and_the_batch_goes_on(s, source):
    (batch_id,) = ingest.admit(s, str(source)).batch_ids
    for _ in range(2):
        assert run(s, PROPOSE, batch_id, "die") == -signal.SIGKILL
        assert len(propose.missing(s, batch_id)) == 1, "the others are done before"
    assert run(s, PROPOSE, batch_id, "die") == 0
    found = list(parts.rows(s.blobs, "quarantine", batch_id))
    assert [(q.stage, q.reason, q.detail) for q in found] == [("auto-masklets", "kills_worker", TWICE)]
    assert found[0].subject in {v.video_id for v in s.tables.videos() if v.source_uri.endswith("bad.mp4")}
    assert batches.pending(s.blobs, BatchStage.IN_REVIEW) == [batch_id] and left(s) == []


def fails_at(monkeypatch, *names: str) -> None:
    """The model fails at these videos in this process, and finds nothing in the others."""

    def propose_video(s, video, loaded, checkpoint, progress=None):
        if video.source_uri.rsplit("/", 1)[-1] in names:
            raise RuntimeError("too many objects")
        return []

    monkeypatch.setattr(propose, "propose_video", propose_video)
    monkeypatch.setattr(propose, "_pinned_checkpoint", lambda s, batch_id: SimpleNamespace(name="stub"))
    monkeypatch.setattr(Services, "model", lambda s, checkpoint: None)


@pytest.mark.parametrize("bad", [("a.mp4",), ("a.mp4", "c.mp4")])
def test_a_video_at_which_the_model_always_fails_is_given_up_and_stops_no_other(s, source, monkeypatch, bad):
    (batch_id,) = ingest.admit(s, str(source)).batch_ids
    fails_at(monkeypatch, *bad)
    ids = {video.video_id for video in s.tables.videos() if video.source_uri.endswith(bad)}
    for _ in range(5):  # where the others came before the bad ones, one of these is blamed in each run
        with contextlib.suppress(propose.NotProposed):
            propose.propose_batch(s, batch_id)
            break
        assert set(propose.missing(s, batch_id)) <= ids
        assert any(id in trouble.stuck(s.blobs)[0].error for id in ids)
    found = list(parts.rows(s.blobs, "quarantine", batch_id))
    assert {(q.subject, q.reason, q.detail) for q in found} == {
        (video_id, "failed", "RuntimeError: too many objects") for video_id in ids
    }
    assert batches.pending(s.blobs, BatchStage.IN_REVIEW) == [batch_id] and left(s) == []


def test_a_machine_on_which_every_video_fails_costs_no_video_at_once(s, source, monkeypatch):
    (batch_id,) = ingest.admit(s, str(source)).batch_ids
    with monkeypatch.context() as patch:
        fails_at(patch, "a.mp4", "bad.mp4", "c.mp4")
        for _ in range(3):
            with pytest.raises(propose.NotProposed, match="too many objects"):
                propose.propose_batch(s, batch_id)
    fails_at(monkeypatch)
    propose.propose_batch(s, batch_id)
    assert list(parts.rows(s.blobs, "quarantine", batch_id)) == [] and left(s) == []


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_a_polite_stop_ends_the_attempt_even_if_the_process_is_killed_afterwards(s, source, stop):
    (batch_id,) = ingest.admit(s, str(source)).batch_ids
    for script, argument in ((INGEST, str(source)), (PROPOSE, batch_id)):
        if script == INGEST:
            make(source / "bad.mp4", [numbered(i + 90) for i in range(24)])
        with start(s, script, argument, "wait") as child:
            assert child.stdout.readline() == "at it\n"
            assert len(left(s)) == 1
            child.send_signal(stop)
            deadline = time.monotonic() + 60
            while left(s) and time.monotonic() < deadline:
                time.sleep(0.02)
            child.kill()
            assert left(s) == []
    assert ingest.admit(s, str(source)).admitted == 1


def test_an_error_of_the_machine_ends_the_attempt(s, source):
    for _ in range(3):
        assert run(s, INGEST, str(source), "fail") == 1
    assert left(s) == [] and ingest.admit(s, str(source)).admitted >= 1 and refused(s) == []


def test_an_attempt_of_a_living_process_of_this_machine_is_no_kill(s):
    with attempts.attempt(s.blobs, "ingest", "x"), attempts.attempt(s.blobs, "ingest", "x"):
        assert [key.rsplit("/", 1)[-1] for key in left(s)] == ["1.json", "2.json"]
        assert not attempts.killed(s.blobs, "ingest")
    assert left(s) == []


def test_of_the_attempts_of_other_workers_none_is_read(s, monkeypatch):
    for subject in ("ours", "theirs"):
        s.blobs.create(f"attempts/ingest/{subject}/1.json", b'{"host": "another", "pid": 1, "started": 1.0}')
    read, real = [], LocalBlobs.read

    def reading(blobs, key):
        read.append(key)
        return real(blobs, key)

    monkeypatch.setattr(LocalBlobs, "read", reading)
    assert attempts.killed(s.blobs, "ingest", {"ours"}) == {"ours": 1}
    assert read == ["attempts/ingest/ours/1.json"]


def test_an_attempt_that_ended_while_the_store_did_not_answer_leaves_no_mark(s, monkeypatch):
    """Its process may end normally long after: the mark would count as a kill."""

    def lost(method, *, done):
        real = getattr(LocalBlobs, method)

        def call(self, key, *data):
            if done:
                real(self, key, *data)
            raise BlobUnreachable("no answer")

        patch.setattr(LocalBlobs, method, call)

    with monkeypatch.context() as patch:
        lost("delete", done=False)
        with attempts.attempt(s.blobs, "ingest", "x"):
            pass
    assert left(s) == ["attempts/ingest/x/1.json"]
    with attempts.attempt(s.blobs, "ingest", "y"):
        assert left(s) == ["attempts/ingest/y/1.json"]
    with monkeypatch.context() as patch:
        lost("create", done=True)
        with pytest.raises(BlobUnreachable), attempts.attempt(s.blobs, "ingest", "x"):
            pass
    assert left(s) == ["attempts/ingest/x/1.json"]
    with attempts.stoppable():
        pass
    assert left(s) == []
    with monkeypatch.context() as patch:
        lost("delete", done=True)
        with attempts.attempt(s.blobs, "ingest", "x"):
            pass
    s.blobs.create("attempts/ingest/x/1.json", b'{"host": "another"}')
    with attempts.attempt(s.blobs, "ingest", "y"):
        assert s.blobs.exists("attempts/ingest/x/1.json"), "it is the mark of another process by now"


@pytest.mark.parametrize(("age_s", "reason"), [(0.0, None), (2 * attempts.MAY_RUN_S, "kills_worker")])
def test_a_file_that_two_other_machines_may_be_at_now_is_not_refused(s, source, age_s, reason):
    """Machines that ingest the same source meet at the same file, so a third one finds two attempts."""
    names = {file.key: file.file_id for file in sources.list_files(s, LocalBlobs(source)).files}
    for n in (1, 2):
        facts = {"host": "another", "pid": 1, "started": 1.0, "begun": time.time() - age_s}
        s.blobs.create(f"attempts/ingest/{names['bad.mp4']}/{n}.json", json.dumps(facts).encode())
    report = ingest.admit(s, str(source))
    assert (report.admitted, report.postponed) == (2, 0 if reason else 1)
    assert [q[1] for q in refused(s)] == ([reason] if reason else [])
    for key in left(s):  # they are done
        s.blobs.delete(key)
    assert ingest.admit(s, str(source)).admitted == (0 if reason else 1)
