"""The review page's files: `web/` as static files, index.html at /."""

from __future__ import annotations

import functools
import hashlib
import os
from pathlib import PurePath

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse
from starlette.staticfiles import NotModifiedResponse
from starlette.types import Scope

# The page's kinds of files. Fixed here, since the types that Python knows differ between machines.
MEDIA_TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}


class PageFiles(StaticFiles):
    """Static files whose ETag follows from their content, so a browser never takes an old version for the new one."""

    def file_response(
        self, full_path: str | os.PathLike[str], stat_result: os.stat_result, scope: Scope, status_code: int = 200
    ) -> Response:
        """The file, or 304 if the browser has it. Any other kind of file is not found."""
        media_type = MEDIA_TYPES.get(PurePath(full_path).suffix)
        if media_type is None:
            raise HTTPException(404)
        headers = {"ETag": _etag(os.fspath(full_path), stat_result.st_mtime_ns), "Cache-Control": "no-cache"}
        response = FileResponse(full_path, status_code, headers, media_type, stat_result=stat_result)
        if self.is_not_modified(response.headers, Request(scope).headers):
            return NotModifiedResponse(response.headers)
        return response


@functools.lru_cache(maxsize=256)
def _etag(path: str, _: int) -> str:
    with open(path, "rb") as file:
        return f'"{hashlib.file_digest(file, "sha256").hexdigest()[:16]}"'


def add_page(app: FastAPI) -> None:
    """Serves the page at / and its files under /web."""
    files = PageFiles(packages=[("annotation_queue", "web")])
    router = APIRouter(include_in_schema=False)

    @router.get("/")
    async def index(request: Request) -> Response:
        return await files.get_response("index.html", request.scope)

    app.include_router(router)
    app.mount("/web", files)
