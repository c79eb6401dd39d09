"""TCP ports for the servers of tests. Knows nothing of who listens on them."""

from __future__ import annotations

import socket

_TAKEN: list[socket.socket] = []


def free_port() -> int:
    """A port on which nobody listens, and which no other process gets until this one ends.

    The socket that takes it never listens, so a server of ours can: both allow that the address is used again.
    """
    taken = socket.socket()
    taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    taken.bind(("127.0.0.1", 0))
    _TAKEN.append(taken)
    return int(taken.getsockname()[1])
