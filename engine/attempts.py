"""Attempts at dangerous work, such as decoding a stranger's video: one that kills its worker twice is not tried again.

    attempts/<stage>/<subject>/<n>.json           create-only, before the n-th attempt: its process; deleted at its end
    attempts/<stage>/<subject>/failed-<n>.json    create-only: the n-th error for which the subject may be to blame

An attempt ends with a result, an error or a polite stop (Ctrl-C, SIGTERM). What is left belongs to an attempt that runs
now, or to one whose process was killed: out of memory, a crash in a decoder, a power cut. A process of this machine
that lives is not counted. Whether a process of another machine lives cannot be seen: it counts as killed at once, or,
where a false suspicion would cost the video, after an hour. Knows no video and no model.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Container, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import FrameType
from typing import Any

from storage.blobs.base import BlobError, BlobMissing, Blobs, read_json
from storage.wording import counted

MOST = 2  # killed workers, or errors that are the subject's own, after which it is given up
_FAILED = "/failed-"
MAY_RUN_S = 3600.0  # for so long, an attempt on another machine may be at work


@dataclass(frozen=True, eq=False)
class _Mark:
    """The blob of one attempt of this process."""

    blobs: Blobs
    key: str
    data: bytes


_running = set[_Mark]()
_unsettled = set[_Mark]()  # of attempts that ended while the store did not answer: their blobs may be there
_lock = threading.Lock()


def killed(blobs: Blobs, stage: str, among: Container[str] | None = None, *, surely: bool = False) -> Counter[str]:
    """How many workers each subject of a stage may have killed. Reads the attempts that have not ended.

    among: of these subjects only: the attempts of all other workers are not read.  surely: without those of other
    machines that may be at work now.
    """
    found = Counter[str]()
    for key in blobs.keys(f"attempts/{stage}/"):
        if _FAILED in key or (among is not None and key.split("/")[2] not in among):
            continue
        with suppress(BlobMissing):
            facts = read_json(blobs, key)
            if not (_lives(facts) or (surely and _may_live(facts))):
                found[key.split("/")[2]] += 1
    return found


def failures(blobs: Blobs, stage: str) -> Counter[str]:
    """How many errors each subject of a stage is to blame for."""
    return Counter(key.split("/")[2] for key in blobs.keys(f"attempts/{stage}/") if _FAILED in key)


def note_failure(blobs: Blobs, stage: str, subject: str) -> int:
    """Notes an error for which a subject is to blame. Returns how many it has now."""
    number = 1
    while not blobs.create(f"attempts/{stage}/{subject}{_FAILED}{number}.json", b"{}"):
        number += 1
    return number


def detail(kills: int) -> str:
    """Why a subject is given up, in one line."""
    return f"{counted(kills, 'worker')} died at it without an error: of too little memory, or of a crash"


@contextmanager
def attempt(blobs: Blobs, stage: str, subject: str) -> Iterator[None]:
    """Marks an attempt for as long as the block runs."""
    _settle(blobs)
    mark = _begin(blobs, f"attempts/{stage}/{subject}")
    try:
        yield
    finally:
        _end(mark, made=True)


def _begin(blobs: Blobs, folder: str) -> _Mark:
    """Makes the mark of an attempt, with the first number that is free. Raises BlobError."""
    data, number = _this_process(), 1
    while True:
        mark = _Mark(blobs, f"{folder}/{number}.json", data)
        with _lock:  # before it is made, so that a stop in between removes it
            _running.add(mark)
        made = None
        try:
            made = blobs.create(mark.key, data)
        finally:
            with _lock:
                if made:
                    _running.add(mark)  # again, if a stop ended it before it was made
                else:
                    _running.discard(mark)
                if made is None:  # the store gave no answer: the mark may exist
                    _unsettled.add(mark)
        if made:
            return mark
        number += 1


@contextmanager
def stoppable() -> Iterator[None]:
    """What leaves the block ends the attempts of this process; in the main thread, SIGTERM leaves it as SystemExit.

    They end at once, while threads are still at work on them: what kills the process from then on is not their fault.
    At the end of the block, the marks of earlier attempts that an outage left are removed, too.
    """
    before: Any = signal.getsignal(signal.SIGTERM)

    def stop(number: int, frame: FrameType | None) -> None:
        if callable(before):
            before(number, frame)
        raise SystemExit(128 + number)

    catches = before not in (None, signal.SIG_IGN) and threading.current_thread() is threading.main_thread()
    if catches:
        signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except BaseException:
        for mark in list(_running):
            _end(mark, made=False)
        raise
    finally:
        _settle()
        if catches:
            signal.signal(signal.SIGTERM, before)


def forget(blobs: Blobs, stage: str, subject: str) -> None:
    """Removes what is noted about a subject that is done or was given up."""
    for key in list(blobs.keys(f"attempts/{stage}/{subject}/")):
        blobs.delete(key)


def _end(mark: _Mark, *, made: bool) -> None:
    """Removes the mark of an attempt. made: it is certain that this process made it."""
    with _lock:
        is_mine = mark in _running
        _running.discard(mark)
    if is_mine:
        _remove(mark, made=made)


def _settle(blobs: Blobs | None = None) -> None:
    """Removes the marks that an outage left, of one store or of all: otherwise they would count as kills."""
    with _lock:
        marks = {mark for mark in _unsettled if blobs is None or mark.blobs == blobs}
        _unsettled.difference_update(marks)
    for mark in marks:
        _remove(mark, made=False)


def _remove(mark: _Mark, *, made: bool) -> None:
    """Removes a mark; if the store does not answer, `_settle` tries again. made: without it, another's mark stays."""
    try:
        if made or mark.blobs.read(mark.key) == mark.data:
            mark.blobs.delete(mark.key)
    except BlobMissing:
        pass
    except BlobError:  # the error of the work counts, not this one
        with _lock:
            _unsettled.add(mark)


def _this_process() -> bytes:
    import psutil

    started = psutil.Process().create_time()
    facts = {"host": socket.gethostname(), "pid": os.getpid(), "started": started, "begun": time.time()}
    return json.dumps(facts).encode()


def _lives(facts: dict[str, Any]) -> bool:
    """Whether an attempt's process runs on this machine now."""
    import psutil

    if facts.get("host") != socket.gethostname():
        return False
    try:
        process = psutil.Process(int(facts["pid"]))
        # a killed process keeps its id and its time until its parent has noticed
        return bool(process.create_time() == facts["started"] and process.status() != psutil.STATUS_ZOMBIE)
    except (psutil.NoSuchProcess, KeyError, ValueError):
        return False


def _may_live(facts: dict[str, Any]) -> bool:
    """Whether an attempt's process may run on another machine now."""
    return facts.get("host") != socket.gethostname() and time.time() - float(facts.get("begun", 0)) < MAY_RUN_S
