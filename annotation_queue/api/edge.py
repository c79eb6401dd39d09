"""The outermost layer: limits bodies and what one person's requests take, and adds the security headers to answers.

Knows nothing about routes; `bodies.py` does.
"""

from __future__ import annotations

import asyncio
from weakref import WeakValueDictionary

from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from annotation_queue.api.asking import secret_of
from annotation_queue.api.bodies import Body
from annotation_queue.api.errors import ANSWERED, answer_to

# Requests of one login or token that are worked on at once; more wait. The threads are 40, and a browser has 6
# connections, so a page never waits here, and one person cannot occupy all threads.
SHARE = 8
# The same for frames, each of which keeps a core busy: a person who asks for hundreds of them leaves cores to others.
# The frames of one video are decoded one after the other anyway.
FRAMES = 2
PICTURES = (".jpg", "/thumbnail")  # how the paths of frames, and of what is made of one, end

SECURITY_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob: data:; style-src 'self'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
}
_HEADERS = [(name.lower().encode(), value.encode()) for name, value in SECURITY_HEADERS.items()]


class Edge:
    """ASGI middleware that rejects a body over its limit before it is parsed."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request, as ASGI defines it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        body = Body(request)

        async def limited() -> Message:
            message = await receive()
            body.check_part(message.get("body", b""))
            return message

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *_HEADERS]
            await send(message)

        try:
            body.check_declared()
            if body.may_be_large:
                await run_in_threadpool(body.check_sender, request.app.state.backend)
        except ANSWERED as error:
            await answer_to(error)(scope, receive, with_headers)
        else:
            await self._app(scope, limited, with_headers)


class Shares:
    """ASGI middleware that works on at most SHARE requests of one login or token at once, and on FRAMES frames."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._shares: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request, as ASGI defines it. An answer that streams gives its place back when it begins."""
        secret = secret_of(Request(scope)) if scope["type"] == "http" else ""
        if not secret:  # no login: such requests are cheap, and passwords are checked in separate threads
            await self._app(scope, receive, send)
            return
        of, count = ("frames", FRAMES) if scope["path"].endswith(PICTURES) else ("all", SHARE)
        share = self._shares.setdefault(f"{of} {secret}", asyncio.Semaphore(count))
        await share.acquire()
        held = True

        def give_back() -> None:
            nonlocal held
            if held:
                held = False
                share.release()

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                give_back()
            await send(message)

        try:
            await self._app(scope, receive, sending)
        finally:
            give_back()
