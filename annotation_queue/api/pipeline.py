"""The pipeline as leads see it: why batches wait, the quarantine, the workers, and the Data Docs of checks.

It is that of all projects together, so where an installation has several, only admins see it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response
from pydantic import Field
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse

from annotation_queue.api.asking import Id, WholeManager
from annotation_queue.api.backend import Pipeline, Queue
from annotation_queue.api.sent import Sent
from annotation_queue.pipeline_records import Action, BatchStanding, PipelineView, QuarantinePage, QuarantineRow
from annotation_queue.rules import ID_LENGTH, ID_PATTERN

router = APIRouter(tags=["pipeline"])

MOST_WHY = 500  # characters
AnId = Annotated[str, Field(pattern=ID_PATTERN, max_length=ID_LENGTH)]
Text = Annotated[str | None, Query(max_length=ID_LENGTH)]

#: The files of Data Docs that are served. No scripts: the pages would load them from other hosts.
DOCS_TYPES = {
    ".css": "text/css",
    ".gif": "image/gif",
    ".html": "text/html",
    ".ico": "image/vnd.microsoft.icon",
    ".otf": "font/otf",
    ".png": "image/png",
    ".svg": "image/svg+xml",
}
#: What the queue's security policy would refuse anyway.
_FOREIGN = re.compile(
    rb"<script\b.*?</script>|<style\b.*?</style>|<link\b[^>]*https?:[^>]*>|<img\b[^>]*https?:[^>]*>"
    rb"|\s(?:style|on[a-z]+)=(?:\"[^\"]*\"|'[^']*')",
    re.S | re.I,
)
#: Beside the policy of all answers: a name from a table may hold HTML that Great Expectations does not escape.
_POLICY = {"Content-Security-Policy": "script-src 'none'; form-action 'none'"}
_OURS = b'<link rel="stylesheet" href="/web/styles/data_docs.css">'


@dataclass(frozen=True, kw_only=True)
class Decide:
    """What a lead does about a row of the quarantine; the same act_id again changes nothing."""

    act_id: Annotated[str, Field(pattern="^[0-9A-Za-z]{8,64}$")]
    action: Action
    row_id: AnId
    why: Annotated[str, Field(min_length=1, max_length=MOST_WHY)]


def pipeline_of(queue: Queue) -> Pipeline:
    """The pipeline that this server knows."""
    assert queue.pipeline is not None  # the routes exist only then
    return queue.pipeline


Known = Annotated[Pipeline, Depends(pipeline_of)]


@router.get("/api/pipeline")
def view(_: WholeManager, pipeline: Known) -> PipelineView:
    """The batches that are not published, the workers, what serves, and the newest Data Docs."""
    return pipeline.view()


@router.get("/api/pipeline/{batch_id}")
def batch(batch_id: Id, _: WholeManager, pipeline: Known) -> BatchStanding:
    """How far one batch is and why it waits; also a published one."""
    return pipeline.batch(batch_id)


@router.get("/api/quarantine")
def quarantine(
    _: WholeManager,
    pipeline: Known,
    stage: Text = None,
    reason: Text = None,
    text: Text = None,
    undecided: bool = False,
    after: Annotated[int, Query(ge=0, le=10**9)] = 0,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> QuarantinePage:
    """What was refused, page by page. undecided: only rows about which nobody has decided."""
    return pipeline.quarantine(stage=stage, reason=reason, text=text, undecided=undecided, after=after, limit=limit)


@router.post("/api/quarantine")
def decide(body: Sent[Decide], who: WholeManager, pipeline: Known) -> QuarantineRow:
    """Releases a refused file, or notes that a row was seen. The pipeline records who did it, when and why."""
    return pipeline.decide(body.row_id, body.action, act_id=body.act_id, by=who.name, why=body.why)


@router.get("/docs/{batch_id}/{path:path}", include_in_schema=False)
def docs(batch_id: Id, path: str, _: WholeManager, pipeline: Known) -> Response:
    """A file of a batch's Data Docs. Its pages are shown with our own style and without scripts."""
    found = pipeline.docs(batch_id, path or "index.html")
    media_type = DOCS_TYPES.get(found.suffix) if found else None
    if found is None or media_type is None:
        raise HTTPException(404)
    if media_type != "text/html":
        return FileResponse(found, media_type=media_type, headers=_POLICY)
    page = _FOREIGN.sub(b"", found.read_bytes()).replace(b"</head>", _OURS + b"</head>", 1)
    return Response(page, media_type=media_type, headers=_POLICY)
