"""Slows down the guessing of passwords: the more log-ins failed, the longer the next attempt must wait.

Nobody waits here: an attempt that comes too early is rejected at once, and its password is not checked. No name is ever
locked: an address that has not failed with a name may always try that name once, even while many other addresses guess.
Counts live in this process only, so a restart clears them. Knows nothing about accounts.
"""

from __future__ import annotations

import ipaddress
import math
import threading
from collections.abc import Callable
from dataclasses import dataclass

from cachetools import TTLCache

from annotation_queue.errors import TooManyLogins

FREE = 5  # failures as one name from one address that cost no wait
FREE_OF_NAME = 50  # as one name, from all addresses together
FREE_OF_ADDRESS = 50  # from one address, as any name; many, because an office shares an address
LONGEST_S = 60.0  # waits are 1 s, 2 s, 4 s, … up to this
KEPT_S = 3600.0  # a failure counts for this time
_GROWTH = 7  # failures after which a wait has reached LONGEST_S
_KEPT = 100_000  # names and addresses with failures that are kept; the oldest are evicted

_Who = tuple[str | None, str | None]  # name and address; None for any


@dataclass(frozen=True, kw_only=True)
class _Rule:
    """Failures of `who` beyond `free` make the next attempt wait, counted from the last failure of `since`."""

    who: _Who
    since: _Who
    free: int


class Attempts:
    """The failed log-ins of the last hour. Safe to share between threads."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._failures: TTLCache[_Who, list[float]] = TTLCache(_KEPT, KEPT_S, clock)  # the last times, oldest first
        self._lock = threading.Lock()

    def begin(self, name: str, address: str) -> Callable[[], None]:
        """Count an attempt as a failure before it is checked. Returns a function that undoes this after a success.

        Raises TooManyLogins, with the seconds to wait.
        """
        now, network = self._clock(), _network(address)
        pair: _Who = (name, network)
        rules = (
            _Rule(who=pair, since=pair, free=FREE),
            _Rule(who=(name, None), since=pair, free=FREE_OF_NAME),
            _Rule(who=(None, network), since=(None, network), free=FREE_OF_ADDRESS),
        )
        with self._lock:
            wait_s = max(self._wait_s(rule, now) for rule in rules)
            if wait_s > 0:
                raise TooManyLogins(wait_s=math.ceil(wait_s))
            for rule in rules:
                self._failures[rule.who] = [*self._recent(rule.who, now), now][-(rule.free + _GROWTH) :]

        def forgive() -> None:
            with self._lock:
                self._failures.pop(pair, None)
                for rule in rules[1:]:
                    times = self._failures.get(rule.who, [])
                    if now in times:
                        times.remove(now)

        return forgive

    def _wait_s(self, rule: _Rule, now: float) -> float:
        """Seconds until this rule admits an attempt; 0 or less: it admits one now."""
        beyond = len(self._recent(rule.who, now)) - rule.free
        since = self._recent(rule.since, now)
        if beyond < 0 or not since:
            return 0.0
        return since[-1] + min(2.0**beyond, LONGEST_S) - now

    def _recent(self, who: _Who, now: float) -> list[float]:
        return [t for t in self._failures.get(who, ()) if t > now - KEPT_S]


def _network(address: str) -> str:
    """The address, or its /64 network if it is IPv6: one subscriber has all addresses of such a network."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(ip, ipaddress.IPv4Address):
        return str(ip)
    return str(ip.ipv4_mapped or ipaddress.ip_network((int(ip), 64), strict=False))
