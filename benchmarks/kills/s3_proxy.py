"""A proxy in front of an S3 server that spoils a share of the requests, as busy buckets and broken networks do.

    503      the server asks to come back later; nothing was done
    timeout  no answer for longer than the client waits; nothing was done
    reset    the connection breaks before anything was done
    slow     the body of the answer comes in pieces, with pauses
    lost     the request was done, and the connection breaks before the answer

Knows HTTP only. Runs as a process of its own.
"""

from __future__ import annotations

import http.client
import random
import socket
import struct
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

KINDS = ("503", "timeout", "reset", "slow", "lost")
PIECES, PAUSE_S = 3, 0.3  # of a "slow" body
BUSY = b"<Error><Code>SlowDown</Code><Message>come back later</Message></Error>"
_OURS = {"connection", "transfer-encoding", "content-length", "keep-alive"}


class Proxy(ThreadingHTTPServer):
    """Passes requests on to `upstream`.

    hang_s: how long a "timeout" keeps a client waiting before the connection breaks.
    share: of the requests that are spoilt. counts: how often each of KINDS happened, then all requests. gone: while it
    is not 0, every connection breaks. delay_s: that every request waits, as for a store that is far away.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(
        self, port: int, upstream: str, share: float, seed: int, hang_s: float, counts: Any, gone: Any, delay_s: Any
    ) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.upstream, self.share, self.counts, self.gone = urlsplit(upstream).netloc, share, counts, gone
        self.hang_s, self.delay_s = hang_s, delay_s
        self._chance, self._lock = random.Random(seed), threading.Lock()

    def trouble(self, method: str) -> str | None:
        """What happens to the next request; None: nothing."""
        with self._lock:
            self.counts[len(KINDS)] += 1
            if self.gone.value:
                return "reset"
            if self._chance.random() >= self.share:
                return None
            fits = {"GET": ("503", "timeout", "reset", "slow"), "HEAD": ("503", "timeout", "reset")}
            kind = self._chance.choice(fits.get(method, ("503", "timeout", "reset", "lost", "lost")))
            self.counts[KINDS.index(kind)] += 1
            return kind

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away is no news here."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Proxy

    def _pass(self) -> None:
        body = self._body()
        time.sleep(self.server.delay_s.value)
        kind = self.server.trouble(self.command)
        if kind in ("timeout", "reset"):
            if kind == "timeout":
                time.sleep(self.server.hang_s)
            self._break()
            return
        if kind == "503":
            self._answer(503, [("Content-Type", "application/xml")], BUSY, len(BUSY), slow=False)
            return
        upstream = http.client.HTTPConnection(self.server.upstream, timeout=60)
        try:
            headers = {name: value for name, value in self.headers.items() if name.lower() not in _OURS | {"expect"}}
            upstream.request(self.command, self.path, body, headers | {"Content-Length": str(len(body))})
            answer = upstream.getresponse()
            content = answer.read()
        finally:
            upstream.close()
        if kind == "lost":
            self._break()
            return
        said = answer.getheader("Content-Length")
        size = int(said) if self.command == "HEAD" and said is not None else len(content)
        self._answer(answer.status, answer.getheaders(), content, size, slow=kind == "slow")

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _pass

    def _body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        pieces = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            pieces.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(pieces)

    def _answer(self, status: int, headers: list[tuple[str, str]], content: bytes, size: int, slow: bool) -> None:
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() not in _OURS:
                self.send_header(name, value)
        if status not in (204, 304):
            self.send_header("Content-Length", str(size))
        self.end_headers()
        if self.command == "HEAD":
            return
        step = max(1, -(-len(content) // PIECES)) if slow else max(1, len(content))
        for first in range(0, len(content), step):
            if slow:
                time.sleep(PAUSE_S)
            self.wfile.write(content[first : first + step])
            self.wfile.flush()

    def _break(self) -> None:
        """Ends the connection with a reset: the client does not get an orderly end."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.connection.close()

    def log_message(self, format: str, *args: object) -> None:
        """No line for each request."""


def serve(
    port: int, upstream: str, share: float, seed: int, hang_s: float, counts: Any, gone: Any, delay_s: Any
) -> None:
    """Runs a proxy until the process ends."""
    Proxy(port, upstream, share, seed, hang_s, counts, gone, delay_s).serve_forever(poll_interval=0.1)
