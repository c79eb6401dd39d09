"""Secrets on disk, and locks between threads and between processes."""

import signal
import subprocess
import sys
import threading

import pytest

from engine.files import alone, private_file, private_folder, write_secret
from storage.lease import InUse

HOLD = """
import sys, time
from pathlib import Path
from engine.files import alone
with alone(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_secret_is_readable_by_its_owner_only_and_leaves_no_other_file(tmp_path):
    for text in ("first", "second"):
        write_secret(tmp_path / "token", text)
    assert (tmp_path / "token").read_text() == "second\n"
    assert (tmp_path / "token").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["token"]


def mode(path):
    return path.stat().st_mode & 0o777


def test_a_private_folder_is_closed_to_other_users_also_if_it_was_open_before(tmp_path, caplog):
    new = tmp_path / "new"
    private_folder(new)
    assert mode(new) == 0o700 and not caplog.records
    old = tmp_path / "old"
    old.mkdir()
    (old / "queue.db").touch()
    old.chmod(0o755)
    (old / "queue.db").chmod(0o664)
    outside = tmp_path / "outside"
    outside.touch()
    outside.chmod(0o644)
    (old / "link").symlink_to(outside)
    for _ in range(2):
        private_folder(old)
        assert (mode(old), mode(old / "queue.db"), mode(outside)) == (0o700, 0o600, 0o644)
    assert [record.getMessage() for record in caplog.records] == [
        f"{old} was open to other users of this machine; now only its owner can open it"
    ]


def test_a_folder_of_all_users_is_refused_and_left_as_it_is(tmp_path):
    tmp_path.chmod(0o1777)
    with pytest.raises(ValueError, match="choose a folder of its own"):
        private_folder(tmp_path)
    assert tmp_path.stat().st_mode & 0o7777 == 0o1777


def test_a_private_file_keeps_what_it_holds(tmp_path):
    path = tmp_path / "queue.db"
    private_file(path)
    assert mode(path) == 0o600
    path.write_text("rows")
    private_file(path)
    assert path.read_text() == "rows"


def test_a_second_thread_waits_for_the_lock_or_is_refused(tmp_path):
    lock, order, refused = tmp_path / "new" / "lock", [], threading.Event()

    def second():
        with pytest.raises(InUse, match=str(lock)), alone(lock, wait=False):
            pass
        order.append("refused")
        refused.set()
        with alone(lock):
            order.append("entered")

    with alone(lock):
        thread = threading.Thread(target=second)
        thread.start()
        assert refused.wait(60)
        thread.join(0.3)  # a thread that does not wait ends in this time
        assert thread.is_alive() and order == ["refused"]
        order.append("left")
    thread.join(60)
    assert order == ["refused", "left", "entered"]


def test_an_error_in_the_block_releases_the_lock_and_what_is_in_the_file_stays(tmp_path):
    (tmp_path / "lock").write_text("a mark")
    with pytest.raises(ZeroDivisionError), alone(tmp_path / "lock"):
        raise ZeroDivisionError
    with alone(tmp_path / "lock", wait=False):
        assert (tmp_path / "lock").read_text() == "a mark"
    assert (tmp_path / "lock").read_text() == "a mark"


@pytest.mark.server
def test_a_lock_ends_with_its_process_also_if_that_is_killed(tmp_path):
    lock = tmp_path / "lock"
    with subprocess.Popen([sys.executable, "-c", HOLD, str(lock)], stdout=subprocess.PIPE, text=True) as other:
        try:
            assert other.stdout.readline() == "held\n"
            with pytest.raises(InUse), alone(lock, wait=False):
                pass
        finally:
            other.send_signal(signal.SIGKILL)
    with alone(lock, wait=False):
        pass
