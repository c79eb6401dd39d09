"""A round's training in processes of its own: killed callers, failures, and a caller that is asked to stop."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import nullcontext, suppress

import psutil
import pytest

from engine.files import held
from engine.rounds import launching, record, retraining, starting
from engine.rounds.launching import FailedForGood, TrainingFailed
from engine.services import connect
from engine.settings import RoundSettings, Settings

PYTHON = sys.executable  # as a launcher, it starts one process
TORCHRUN = f"{PYTHON} -m torch.distributed.run --standalone --nproc-per-node 2"
TRAINS_FOR_EVER = """
import sys, time
from engine.rounds import member, record
record.start_of = lambda *_: (print("it trains", flush=True), time.sleep(1000))
member.main(sys.argv[-1])
"""
LIKE_TORCHRUN = f"""
import signal, subprocess, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
member = subprocess.Popen([sys.executable, "-c", {TRAINS_FOR_EVER!r}, *sys.argv], start_new_session=True)
try:
    member.wait()
finally:
    member.terminate()
    member.wait()
"""
PROGRESS = {"stage": "clips", "step": 1, "steps": 2, "losses": {}, "lr": 0.1, "seconds": 1.0}


def runs(process):
    with suppress(psutil.NoSuchProcess):
        return process.status() != psutil.STATUS_ZOMBIE
    return False


def launched_by(settings, launcher):
    return settings.model_copy(update={"rounds": settings.rounds.model_copy(update={"launcher": launcher})})


def test_a_retry_finds_the_processes_of_a_killed_caller_again(settings, s, true_release, monkeypatch):
    round_id = starting.start(s, true_release.name)
    folder, lock = retraining.folder_of(s, round_id), record.lock_of(s, round_id)
    chosen = launched_by(settings, TORCHRUN)
    code = "import sys; from engine.rounds import retraining; from engine.services import connect\n"
    code += "with connect() as s: retraining.train(s, sys.argv[1])"
    environment = os.environ | chosen.environment() | {"OMP_NUM_THREADS": "1"}
    caller = subprocess.Popen([PYTHON, "-c", code, round_id], env=environment)

    def launched():
        found = []
        for child in psutil.Process(caller.pid).children():
            with suppress(psutil.Error):  # it has ended: importing libraries starts short programs
                found += child.cmdline()
        return launching.MEMBER in found

    while caller.poll() is None and not launched():
        time.sleep(0.02)
    caller.send_signal(signal.SIGKILL)
    caller.wait()
    assert held(lock), "the processes of the killed caller still run"

    monkeypatch.setattr(launching, "_launched", None)  # a retry starts no others
    seen = []
    with connect(chosen) as again:
        retraining.train(again, round_id, seen.append)
    assert not held(lock)
    meta = json.loads(s.blobs.read(f"checkpoints/{round_id}/meta.json"))
    assert meta["round"]["round_id"] == round_id
    assert not (folder / "state.pt").exists() and not (folder / "checkpoint").exists()


def test_the_reason_of_a_failure_reaches_the_caller(settings, s, true_release):
    round_id = starting.start(s, true_release.name)
    s.blobs.delete(f"releases/{true_release.name}/manifest.json")
    failures = f"rounds/{round_id}/failures/"
    with connect(launched_by(settings, PYTHON)) as chosen:
        with pytest.raises(FailedForGood, match=f"{true_release.name}.*training.log"):
            retraining.train(chosen, round_id)
    assert len(list(s.blobs.keys(failures))) == 1, "a retry cannot help"
    with connect(launched_by(settings, "false")) as chosen:
        with pytest.raises(TrainingFailed, match="the launcher ended with status 1"):
            retraining.train(chosen, round_id)
    assert len(list(s.blobs.keys(failures))) == 1, "a retry may help"
    with connect(launched_by(settings, "/no/such/launcher")) as chosen:
        with pytest.raises(ValueError, match="rounds.launcher: .*No such file"):
            retraining.train(chosen, round_id)
    assert not held(record.lock_of(s, round_id))


@pytest.mark.parametrize("order", [(True, False), (False, True)])
def test_members_that_lose_their_connection_do_not_hide_why_the_first_one_stopped(tmp_path, order):
    for for_good in order:
        launching.leave_problem(tmp_path, "diverged" if for_good else "connection lost", for_good=for_good)
    failure = launching._failure(tmp_path, 1)
    assert isinstance(failure, FailedForGood) and str(failure).startswith("diverged (see")


@pytest.mark.server
def test_a_caller_that_is_asked_to_stop_sees_the_progress_and_ends_the_processes(tmp_path):
    curve, lock = tmp_path / "curve.jsonl", tmp_path / "lock"
    curve.write_text(json.dumps(PROGRESS | {"step": 0}) + "\n")  # of an earlier attempt
    script = tmp_path / "launcher.sh"
    script.write_text(f"echo '{json.dumps(PROGRESS)}' >> {curve}; sleep 1000")
    settings = Settings(home=tmp_path, rounds=RoundSettings(launcher=f"sh {script}"))

    def stop(progress):
        assert (progress.step, held(lock)) == (1, True)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        launching.train_in_processes(settings, "round-001-abc", tmp_path, lock, lambda: False, stop)
    assert not held(lock)


@pytest.mark.server
@pytest.mark.parametrize("stopped", [True, False], ids=["the caller is asked to stop", "the launcher is killed"])
def test_a_process_in_a_session_of_its_own_ends_with_its_launcher(tmp_path, stopped):
    (tmp_path / "launcher.py").write_text(LIKE_TORCHRUN)
    settings = Settings(home=tmp_path, rounds=RoundSettings(launcher=f"{PYTHON} {tmp_path / 'launcher.py'}"))
    log, members = tmp_path / "training.log", []

    def look():
        if not members and "it trains" in log.read_text():
            launcher = next(p for p in psutil.Process().children() if launching.MEMBER in p.cmdline())
            members.extend(launcher.children())
            if stopped:
                raise KeyboardInterrupt
            launcher.kill()

    try:
        with (
            launching._inherited(tmp_path / "lock", look) as held,
            pytest.raises(KeyboardInterrupt) if stopped else nullcontext(),
        ):
            launching._launched(settings, "round-001-abc", log, held, look)
        assert len(members) == 1 and not (stopped and runs(members[0])), "the launcher ended it"
        deadline = time.monotonic() + 60
        while runs(members[0]):
            assert time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        for process in members:
            with suppress(psutil.NoSuchProcess):
                process.kill()
