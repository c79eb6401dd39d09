"""TCP ports of this machine: which one is free, and whether a given one is."""

from __future__ import annotations

import socket


class PortTaken(Exception):
    """Another program listens on the port, or this user may not."""


def free_port(host: str = "127.0.0.1") -> int:
    """A port that no program listens on now."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def check_port(host: str, port: int) -> int:
    """The port, or a free one for port 0. Raises PortTaken."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise PortTaken(f"cannot listen on {host}:{port}: {error.strerror}") from None
        return int(probe.getsockname()[1])
