"""The outermost layer: limits the size of request bodies, and adds the security headers to every answer.

Knows nothing about routes beyond which paths take large bodies.
"""

from __future__ import annotations

from collections.abc import Callable

from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from annotation_queue.api.errors import DATABASE_AWAY, http_error
from annotation_queue.errors import NotLoggedIn

SMALL_BODY = 1 << 20  # bytes: login, claims, heartbeats
LARGE_BODY = 64 << 20  # bytes: masklets that people made, operations, tickets of the pipeline

SECURITY_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob: data:; style-src 'self'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'self'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
}


class Edge:
    """ASGI middleware that rejects a body over its limit while it arrives."""

    def __init__(self, app: ASGIApp, caller: Callable[[Request], object]) -> None:
        """caller: finds out who asks, or raises NotLoggedIn. A large body is read only from a known caller."""
        self._app = app
        self._caller = caller

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request, as ASGI defines it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = LARGE_BODY if _takes_large_body(scope["path"]) else SMALL_BODY
        received, known = 0, False

        async def check(size: int) -> None:
            nonlocal known
            if size > limit:
                raise HTTPException(413, f"the body is larger than {limit} bytes")
            if size > SMALL_BODY and not known:
                await self._check_caller(Request(scope))
                known = True

        async def limited() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            await check(received)
            return message

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                extra = [(name.lower().encode(), value.encode()) for name, value in SECURITY_HEADERS.items()]
                message["headers"] = [*message.get("headers", ()), *extra]
            await send(message)

        length = dict(scope["headers"]).get(b"content-length", b"0")
        try:
            await check(int(length) if length.isdigit() else 0)
        except HTTPException as error:
            await (await http_error(Request(scope), error))(scope, receive, with_headers)
        else:
            await self._app(scope, limited, with_headers)

    async def _check_caller(self, request: Request) -> None:
        try:
            await run_in_threadpool(self._caller, request)
        except NotLoggedIn as error:
            raise HTTPException(401, str(error)) from None
        except SQLAlchemyError:
            raise HTTPException(503, DATABASE_AWAY) from None


def _takes_large_body(path: str) -> bool:
    return path.endswith(("/finish", "/operations", "/refine")) or path.startswith("/api/batches/")
