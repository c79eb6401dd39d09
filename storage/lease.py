"""A lease in the store: of all processes on all machines that share a store, one at a time holds it.

    leases/<name>/<token>     JSON: how often its holder has renewed it, or that it was released

A token is a number; the highest one is the lease, and the process that made it, create-only, holds it and renews it
from a thread. When nobody has renewed it for `TTL_S`, by the clock of the process that waits, the next token may be
made: so no two clocks are compared. A holder that was paused for longer finds a higher token (`Lease.check`) and must
stop.

A pause can also come after the check. So what is done under a lease must stay right when two do it: by create-only
writes, and by commits that fail when another one came first. The lease saves them from doing the work twice.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from storage.blobs.base import BlobError, BlobMissing, Blobs

log = logging.getLogger(__name__)

TTL_S = 60.0  # a lease that is not renewed for so long may be taken
RENEW_S = 10.0  # between two renewals
POLL_S = 1.0  # between two looks of a process that waits


class InUse(Exception):
    """Another process or another thread holds the lock."""


class LockLost(Exception):
    """This process was paused or cut off for so long that another one has taken its lock: run it again."""


class Lease:
    """A lease that this process holds, or held."""

    def __init__(self, blobs: Blobs, name: str, token: int) -> None:
        self.token = token
        self._blobs, self._name = blobs, name
        self._renewals = 0
        self._ended = threading.Event()

    def check(self) -> None:
        """Raises LockLost if another process has taken the lease. Costs one listing."""
        if (newest := max(_tokens(self._blobs, self._name), default=0)) != self.token:
            raise LockLost(f"the lease {self._name!r} was taken by another process: token {newest}, not {self.token}")

    def renew(self) -> None:
        """Tells those who wait that the holder is alive. Raises LockLost."""
        self.check()
        self._renewals += 1
        _write(self._blobs, self._name, self.token, {"renewed": self._renewals})

    def keep(self) -> None:
        """Renews the lease until it is released or lost. A store that does not answer for a while is asked again."""
        while not self._ended.wait(RENEW_S):
            try:
                self.renew()
            except LockLost as error:
                log.warning("%s", error)
                return
            except BlobError as error:
                log.warning("the lease %r cannot be renewed: %s", self._name, error)

    def stop(self) -> None:
        """Lets `keep` end."""
        self._ended.set()

    def release(self) -> None:
        """Lets the next process take the lease at once. `keep` must have ended: it would renew the lease again."""
        self.stop()
        try:
            self.check()
            _write(self._blobs, self._name, self.token, {"released": True})
        except (LockLost, BlobError) as error:  # then the others wait for `TTL_S`; the work itself is done
            log.warning("the lease %r is not released: %s", self._name, error)


@contextmanager
def leased(blobs: Blobs, name: str, *, wait: bool = True) -> Iterator[Lease]:
    """Holds the lease of this name in the block. Not reentrant.

    wait: False raises InUse at once if another process holds it, or held it and was killed.
    """
    lease = Lease(blobs, name, _take(blobs, name, wait))
    thread = threading.Thread(target=lease.keep, name=f"lease {name}", daemon=True)
    thread.start()
    try:
        yield lease
    finally:
        lease.stop()
        thread.join()  # first: a renewal on its way would overwrite the release
        lease.release()


def _take(blobs: Blobs, name: str, wait: bool) -> int:
    seen: tuple[int, bytes] | None = None
    since = 0.0
    while True:
        newest = max(_tokens(blobs, name), default=0)
        try:
            state = blobs.read(_key(name, newest)) if newest else b""
        except BlobMissing:  # a later holder has removed it
            continue
        if newest and not json.loads(state).get("released"):
            if (newest, state) != seen:
                seen, since = (newest, state), time.monotonic()
            if time.monotonic() - since < TTL_S:
                if not wait:
                    raise InUse(f"{blobs.uri_of(_key(name, newest))} is held by another process")
                time.sleep(POLL_S)
                continue
        if _make(blobs, name, newest + 1):
            return newest + 1


def _make(blobs: Blobs, name: str, token: int) -> bool:
    """Makes a token; False if another process was faster. Removes earlier tokens."""
    if not blobs.create(_key(name, token), json.dumps({"renewed": 0}).encode()):
        return False
    others = [other for other in _tokens(blobs, name) if other != token]
    if max(others, default=0) > token:  # this process was paused before `create`, and the token was removed meanwhile
        blobs.delete(_key(name, token))
        return False
    for other in others:
        blobs.delete(_key(name, other))
    return True


def _tokens(blobs: Blobs, name: str) -> list[int]:
    return [int(token) for key in blobs.keys(_key(name)) if (token := key.rpartition("/")[2]).isdecimal()]


def _write(blobs: Blobs, name: str, token: int, state: dict[str, object]) -> None:
    blobs.write(_key(name, token), json.dumps(state).encode())


def _key(name: str, token: int | None = None) -> str:
    return f"leases/{name}/" if token is None else f"leases/{name}/{token:012d}"
