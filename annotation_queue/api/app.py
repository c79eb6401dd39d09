"""The routes: each parses, calls the store and returns. The only place that knows HTTP codes and cookies.

Bodies and answers are the records of `records.py` as JSON. An error is {"error": one line, "kind": the exception's
name}. A browser carries a cookie and, on every request that changes something, the header X-CSRF-Token; a program
carries "Authorization: Bearer <token>", and may do what the token's scopes and its person's roles both allow.

A ticket, its masklet, its operations and its video are shown to whoever holds the ticket or finished it, to leads,
admins and the pipeline. /metrics is for a Prometheus that carries the token of one of the latter, best one of scope
`read`: by address alone nobody is trusted, as a proxy on this machine would make everybody local.
"""

import contextlib
import gc
import hashlib
import json
import secrets
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Iterator, MutableMapping
from dataclasses import dataclass, replace
from importlib import resources
from typing import Annotated, Any, Generic, Protocol, TypeVar

from fastapi import Depends, FastAPI, Path, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import Field
from sqlalchemy.exc import DataError, InterfaceError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException

from annotation_queue.errors import (
    BatchSealed,
    LeaseLost,
    LoginRefused,
    NoSuchBatch,
    NoSuchFrame,
    NoSuchMasklet,
    NoSuchTicket,
    NoSuchVideo,
    NotAllowed,
    NotLoggedIn,
    ProviderUnreachable,
    QueueError,
    TooLate,
    TooManyLogins,
    WrongPassword,
)
from annotation_queue.people.accounts import LOGIN_S, Accounts, Caller, Login, token_id_of
from annotation_queue.people.oidc import FLOW_S, Provider
from annotation_queue.records import (
    Account,
    Appended,
    Audited,
    Batch,
    Finished,
    Gold,
    Kind,
    NewGold,
    NewOperation,
    NewTicket,
    Other,
    Person,
    QueueFigures,
    Reason,
    Recent,
    ResultPage,
    Role,
    Scope,
    State,
    Stats,
    Submission,
    Ticket,
    VideoInfo,
)
from annotation_queue.refinement import live as live_routes
from annotation_queue.refinement.live import Live
from annotation_queue.refinement.segmenter import Segmenter
from annotation_queue.rules import ID_LENGTH, ID_PATTERN, OVERSEERS
from annotation_queue.tickets.prometheus import prometheus
from annotation_queue.tickets.store import HEARTBEAT_S, Store
from storage.records import FPS, STRIDE, Masklet, Operation

T = TypeVar("T")

STATUS: dict[type[Exception], int] = {
    NotLoggedIn: 401,
    WrongPassword: 401,
    LoginRefused: 401,
    NotAllowed: 403,
    NoSuchTicket: 404,
    NoSuchBatch: 404,
    NoSuchMasklet: 404,
    NoSuchVideo: 404,
    NoSuchFrame: 404,
    LeaseLost: 409,
    TooLate: 409,
    BatchSealed: 409,
    ProviderUnreachable: 424,
    TooManyLogins: 429,
    ValueError: 422,
    OverflowError: 422,  # a number that no column holds
}

COOKIE = "masklets"
FLOW_COOKIE = "masklets-login"  # of a login at a provider, while it is under way
SMALL_BODY = 1 << 20  # bytes: login, claims, heartbeats, operations
LARGE_BODY = 64 << 20  # bytes: a masklet that a person made, tickets of the pipeline
STATS_S = 1.0  # how old the numbers of /api/stats may be
FIGURES_S = 1.0  # how old those of /api/figures and /metrics may be
SEEN_S = 10.0  # how long a person's right to see a video is remembered: a page asks for its frames one by one

HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob: data:; style-src 'self'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'self'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
}


class Media(Protocol):
    """Where the page's videos come from. Methods are called from several threads."""

    def info(self, video_id: str) -> VideoInfo:
        """Size and length of a video. Raises NoSuchVideo."""

    def frame(self, video_id: str, frame_idx: int) -> bytes:
        """JPEG of exactly this frame of the stored 24 fps video. Raises NoSuchVideo, NoSuchFrame."""


@dataclass(frozen=True, kw_only=True)
class Credentials:
    """What a browser logs in with."""

    name: str
    password: str


@dataclass(frozen=True, kw_only=True)
class Ways:
    """How people log in, besides by password."""

    oidc: str | None  # the host of the OpenID Connect provider


@dataclass(frozen=True, kw_only=True)
class Elsewhere:
    """Where a browser goes to log in."""

    url: str


@dataclass(frozen=True, kw_only=True)
class Answered:
    """What a provider sent a browser back with."""

    state: Annotated[str, Field(max_length=4096)]
    code: Annotated[str, Field(max_length=4096)] | None = None
    error: Annotated[str, Field(max_length=4096)] | None = None


@dataclass(frozen=True, kw_only=True)
class Me:
    """Who is logged in, and what their page must know."""

    name: str
    roles: frozenset[Role]
    skills: frozenset[str]
    csrf: str | None
    lease_s: float
    heartbeat_s: float
    fps: int
    stride: int  # annotated frames are every `stride`-th
    reasons: tuple[Reason, ...]  # in the order of the keys 1 to 9
    live: bool  # whether a model answers clicks


@dataclass(frozen=True, kw_only=True)
class Claim:
    """Which ticket is wanted; the same claim_id again gives the same ticket."""

    claim_id: str
    kinds: tuple[Kind, ...] | None = None  # in order of preference; None: whatever the roles permit
    ticket_id: str | None = None
    batch_id: str | None = None


@dataclass(frozen=True, kw_only=True)
class Hold:
    """The lease that a request relies on."""

    token: int


@dataclass(frozen=True, kw_only=True)
class Acts:
    """Operations, in order, under a lease."""

    token: int
    operations: tuple[NewOperation, ...]


@dataclass(frozen=True, kw_only=True)
class Finish:
    """An outcome under a lease."""

    token: int
    outcome: Submission


@dataclass(frozen=True, kw_only=True)
class TakeBack:
    """The operation that takes a finished ticket back; the same operation_id again gives the same ticket."""

    operation_id: str  # made by the client
    created_at: str  # ISO 8601, UTC, on the client's clock


@dataclass(frozen=True, kw_only=True)
class NewObject:
    """A further object in the video of a ticket that is held; the same claim_id again gives the same ticket."""

    token: int
    claim_id: str  # made by the client


@dataclass(frozen=True, kw_only=True)
class AddGold:
    """Gold tickets to add beside a batch."""

    tickets: tuple[NewGold, ...]


@dataclass(frozen=True, kw_only=True)
class Added:
    """How many were not there before."""

    added: int


@dataclass(frozen=True, kw_only=True)
class SetPerson:
    """A person to add, or to change; None leaves a part as it is."""

    name: str
    roles: tuple[Role, ...]
    skills: tuple[str, ...] | None = None
    password: str | None = None


@dataclass(frozen=True, kw_only=True)
class Disable:
    """Whether a person is shut out."""

    disabled: bool = True


@dataclass(frozen=True, kw_only=True)
class IssueToken:
    """What a new token may be used for, None for whatever its person may do, and how long it lasts."""

    scopes: tuple[Scope, ...] | None = None
    expires_s: Annotated[float, Field(gt=0, le=1e9)] | None = None  # None: until it is revoked


@dataclass(frozen=True, kw_only=True)
class Issued:
    """A new token; it is shown this once."""

    token: str
    token_id: str


@dataclass(frozen=True, kw_only=True)
class Revoked:
    """How many credentials ended, browser logins included."""

    revoked: int


@dataclass(frozen=True, kw_only=True)
class OpenBatch:
    """Tickets to add to a batch; `sealed` says that these are the last."""

    tickets: tuple[NewTicket, ...] = ()
    sealed: bool = True


@dataclass(frozen=True, kw_only=True)
class Health:
    """That the server answers and reaches its database."""

    ok: bool
    undelivered: int


Id = Annotated[str, Path(pattern=ID_PATTERN, max_length=ID_LENGTH)]
FrameIdx = Annotated[int, Path(ge=0, le=10_000_000)]


def create_app(
    store: Store,
    media: Media,
    *,
    accounts: Accounts | None = None,
    deliver: Callable[[str], object] | None = None,
    deliver_every_s: float = 1.0,
    secure_cookie: bool = False,
    segmenter: Segmenter | None = None,
    oidc: Provider | None = None,
) -> FastAPI:
    """The queue as an ASGI application: the API under /api, and the page at /.

    accounts: the people; those of the store's database by default.
    deliver: called with the id of each drained batch, in a thread, again later if it raises; None leaves the outbox
        to another process.
    secure_cookie: True where the page is served over HTTPS.
    segmenter: the model of live refinement; without one, masklets are corrected by hand alone.
    oidc: whom people may log in with, besides by password.
    """
    live = None if segmenter is None else Live(store, media.info, segmenter)
    people = accounts or Accounts(store.database)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        gc.collect()
        gc.freeze()  # what was imported so far stays: to look through it for garbage stops every request for a while
        try:
            with _delivering(store, deliver, deliver_every_s) if deliver else contextlib.nullcontext():
                yield
        finally:
            gc.unfreeze()
            if live is not None:
                live.close()

    app = FastAPI(
        title="Masklet Engine: the review queue",
        version="1",
        lifespan=lifespan,
        openapi_url="/api/openapi.json",
        docs_url=None,  # its page loads scripts from elsewhere
        redoc_url=None,
    )
    app.add_middleware(_Edge, caller=lambda request: people.caller(_secret_of(request)))
    for error, status in STATUS.items():
        app.add_exception_handler(error, _answer(status))
    app.add_exception_handler(QueueError, _answer(400))
    for error in (OperationalError, InterfaceError, PoolTimeout):
        app.add_exception_handler(error, _database_failed)
    app.add_exception_handler(DataError, _unfit)
    app.add_exception_handler(Exception, _broken)
    app.add_exception_handler(RequestValidationError, _malformed)
    app.add_exception_handler(HTTPException, _http_error)

    # --- who asks ----------------------------------------------------------------------------------------------

    def caller(request: Request) -> Caller:
        found = people.caller(_secret_of(request))
        if _bearer_of(request) is not None:
            if found.scopes is not None and request.method not in ("GET", "HEAD"):
                needed = _scope_of(request.url.path)
                if needed not in found.scopes:
                    raise NotAllowed(f"this takes a token of the scope {needed or 'of no limit'}")
            return found
        if request.method not in ("GET", "HEAD"):
            sent = request.headers.get("x-csrf-token", "")
            if found.csrf is None or not secrets.compare_digest(sent.encode(), found.csrf.encode()):
                raise NotAllowed("the request lacks this login's X-CSRF-Token")
        return found

    # These ask nobody, so they are async: FastAPI would send each to a thread else.

    async def person(who: Annotated[Caller, Depends(caller)]) -> Person:
        return who.person

    async def pipeline(who: Annotated[Person, Depends(person)]) -> Person:
        if not who.roles & {Role.PIPELINE, Role.ADMIN}:
            raise NotAllowed("only the pipeline may do that")
        return who

    async def overseer(who: Annotated[Person, Depends(person)]) -> Person:
        if not who.roles & OVERSEERS:
            raise NotAllowed("only leads, admins and the pipeline may see that")
        return who

    async def manager(who: Annotated[Person, Depends(person)]) -> Person:
        if not who.roles & {Role.LEAD, Role.ADMIN}:
            raise NotAllowed("only leads and admins may do that")
        return who

    Somebody = Annotated[Person, Depends(person)]
    Pipeline = Annotated[Person, Depends(pipeline)]
    Overseer = Annotated[Person, Depends(overseer)]
    Manager = Annotated[Person, Depends(manager)]

    def seen_ticket(ticket_id: Id, who: Somebody) -> Ticket:
        if not store.may_see(who, ticket_id):  # whether there is one or not: nothing follows from gold
            raise NotAllowed(f"ticket {ticket_id} is not in {who.name}'s hands")
        return store.ticket(ticket_id)

    watching = _Remembered(SEEN_S)

    def seen_video(video_id: Id, who: Somebody) -> str:
        if not watching((who, video_id), lambda: store.may_see_video(who, video_id)):
            raise NotAllowed(f"{who.name} has no ticket on video {video_id}")
        return video_id

    SeenTicket = Annotated[Ticket, Depends(seen_ticket)]
    SeenVideo = Annotated[str, Depends(seen_video)]

    def me_of(who: Person, csrf: str | None) -> Me:
        return Me(
            name=who.name,
            roles=who.roles,
            skills=who.skills,
            csrf=csrf,
            lease_s=store.lease_s,
            heartbeat_s=min(HEARTBEAT_S, store.lease_s / 3),
            fps=FPS,
            stride=STRIDE,
            reasons=tuple(Reason),
            live=live is not None,
        )

    def logged_in(login: Login, response: Response) -> Me:
        response.set_cookie(
            COOKIE,
            login.secret,
            max_age=int(LOGIN_S),
            httponly=True,
            samesite="strict",
            secure=secure_cookie,
        )
        return me_of(login.person, login.csrf)

    @app.get("/api/login", tags=["people"])
    def ways_to_log_in() -> Ways:
        return Ways(oidc=None if oidc is None else oidc.host)

    @app.post("/api/login", tags=["people"])
    def log_in(body: Credentials, request: Request, response: Response) -> Me:
        return logged_in(people.log_in(body.name, body.password, address=_address(request)), response)

    if oidc is not None:
        flow: dict[str, Any] = {"path": "/api/login", "httponly": True, "samesite": "lax", "secure": secure_cookie}

        @app.post("/api/login/oidc", tags=["people"])
        def begin_elsewhere(response: Response) -> Elsewhere:
            begun = oidc.begin()
            response.set_cookie(FLOW_COOKIE, begun.secret, max_age=int(FLOW_S), **flow)
            return Elsewhere(url=begun.url)

        @app.post("/api/login/oidc/finish", tags=["people"])
        def finish_elsewhere(body: Answered, request: Request, response: Response) -> Me:
            secret = request.cookies.get(FLOW_COOKIE, "")
            if not oidc.is_of(secret, body.state):  # somebody else's login: it must not become this browser's
                raise LoginRefused()
            if body.code is None:
                raise LoginRefused(f"{oidc.host} refused this login: {body.error or 'it gave no code'}")
            with people.counting(_address(request)):
                login = people.admit(oidc.finish(secret, body.code), oidc.roles)
            response.delete_cookie(FLOW_COOKIE, **flow)
            return logged_in(login, response)

    @app.post("/api/logout", status_code=204, tags=["people"])
    def log_out(request: Request, _: Somebody) -> Response:
        people.log_out(request.cookies.get(COOKIE, ""))
        # the frames that were seen here; not what waits in the browser's database to be sent
        response = Response(status_code=204, headers={"Clear-Site-Data": '"cache"'})
        response.delete_cookie(COOKIE, httponly=True, samesite="strict", secure=secure_cookie)
        return response

    @app.get("/api/me", tags=["people"])
    def me(who: Annotated[Caller, Depends(caller)]) -> Me:
        return me_of(who.person, who.csrf)

    @app.get("/api/me/recent", tags=["people"])
    def recent(who: Somebody) -> list[Recent]:
        return store.recent(who)

    @app.get("/api/people", tags=["people"])
    def everybody(_: Manager) -> list[Account]:
        return people.accounts()

    @app.post("/api/people", tags=["people"])
    def set_person(body: SetPerson, who: Manager) -> Account:
        people.add(body.name, body.roles, body.password, skills=body.skills, by=who)
        return next(account for account in people.accounts() if account.name == body.name)

    @app.post("/api/people/{name}/disable", status_code=204, tags=["people"])
    def disable(name: Id, body: Disable, who: Manager) -> Response:
        people.disable(name, body.disabled, by=who)
        return Response(status_code=204)

    @app.post("/api/people/{name}/tokens", tags=["people"])
    def issue_token(name: Id, body: IssueToken, who: Manager) -> Issued:
        token = people.issue_token(name, body.scopes, expires_s=body.expires_s, by=who)
        return Issued(token=token, token_id=token_id_of(token))

    @app.delete("/api/people/{name}/tokens", tags=["people"])
    def revoke_tokens(name: Id, who: Manager) -> Revoked:
        return Revoked(revoked=people.revoke_tokens(name, by=who))

    @app.delete("/api/people/{name}/tokens/{token_id}", status_code=204, tags=["people"])
    def revoke_token(name: Id, token_id: Id, who: Manager) -> Response:
        people.revoke_token(name, token_id, by=who)
        return Response(status_code=204)

    @app.get("/api/audit", tags=["people"])
    def audited(_: Manager, limit: Annotated[int, Query(ge=1, le=1000)] = 100) -> list[Audited]:
        return people.audited(limit=limit)

    # --- tickets -----------------------------------------------------------------------------------------------

    @app.post("/api/tickets/claim", responses={204: {"description": "There is no ticket for you."}}, tags=["tickets"])
    def claim(body: Claim, who: Somebody) -> Ticket:
        ticket = store.claim(who, body.kinds, claim_id=body.claim_id, ticket_id=body.ticket_id, batch_id=body.batch_id)
        return ticket if ticket is not None else Response(status_code=204)  # type: ignore[return-value]

    @app.get("/api/tickets", tags=["tickets"])
    def tickets(
        who: Somebody,
        kind: Kind | None = None,
        state: State | None = None,
        batch_id: Annotated[str | None, Query(pattern=ID_PATTERN, max_length=ID_LENGTH)] = None,
        limit: Annotated[int, Query(ge=1, le=500)] = 50,
    ) -> list[Ticket]:
        return store.tickets(kind=kind, state=state, batch_id=batch_id, limit=limit, seen_by=who)

    @app.get("/api/tickets/{ticket_id}", tags=["tickets"])
    def ticket(found: SeenTicket) -> Ticket:
        return found

    @app.get("/api/tickets/{ticket_id}/masklet", response_model=Masklet, tags=["tickets"])
    def masklet(found: SeenTicket) -> Response:
        return Response(store.masklet_json(found.ticket_id), media_type="application/json")

    @app.get("/api/tickets/{ticket_id}/operations", tags=["tickets"])
    def operations(found: SeenTicket, who: Somebody, branch: bool = False) -> list[Operation]:
        oversees = bool(who.roles & OVERSEERS)
        if branch and not oversees:
            raise NotAllowed("what came after a lease was lost is for a lead to look at")
        done = store.operations(found.ticket_id, branch=branch)
        if oversees:
            return done
        if found.kind is Kind.VERIFY and found.state is not State.DONE:
            return [_without_masklet(o) for o in done if o.person == who.name]  # nobody's verdict sways another's
        return [_without_masklet(o) for o in done]

    @app.get("/api/tickets/{ticket_id}/others", tags=["tickets"])
    def others(found: SeenTicket, who: Somebody) -> list[Other]:
        return store.others(found.ticket_id, seen_by=who)

    @app.post("/api/tickets/{ticket_id}/objects", tags=["tickets"])
    def new_object(ticket_id: Id, body: NewObject, who: Somebody) -> Ticket:
        return store.new_object(ticket_id, body.token, who, claim_id=body.claim_id)

    @app.get("/api/branches", tags=["tickets"])
    def branches(_: Overseer, limit: Annotated[int, Query(ge=1, le=1000)] = 100) -> list[Operation]:
        return store.branches(limit)

    @app.post("/api/tickets/{ticket_id}/heartbeat", tags=["tickets"])
    def heartbeat(ticket_id: Id, body: Hold, who: Somebody) -> Ticket:
        return store.heartbeat(ticket_id, body.token, who)

    @app.post("/api/tickets/{ticket_id}/release", tags=["tickets"])
    def release(ticket_id: Id, body: Hold, who: Somebody) -> Ticket:
        return store.release(ticket_id, body.token, who)

    @app.post("/api/tickets/{ticket_id}/end-lease", tags=["tickets"])
    def end_lease(ticket_id: Id, body: Hold, who: Manager) -> Ticket:
        return store.end_lease(ticket_id, body.token, by=who)

    @app.post("/api/tickets/{ticket_id}/operations", tags=["tickets"])
    def append_operations(ticket_id: Id, body: Acts, who: Somebody) -> Appended:
        return store.append_operations(ticket_id, body.token, who, body.operations)

    @app.post("/api/tickets/{ticket_id}/finish", tags=["tickets"])
    def finish(ticket_id: Id, body: Finish, who: Somebody) -> Finished:
        return store.finish(ticket_id, body.token, who, body.outcome)

    @app.post("/api/tickets/{ticket_id}/unsubmit", tags=["tickets"])
    def unsubmit(ticket_id: Id, body: TakeBack, who: Somebody) -> Ticket:
        return store.unsubmit(ticket_id, who, operation_id=body.operation_id, created_at=body.created_at)

    if live is not None:
        live_routes.add(app, live, person, seen_ticket)

    # --- videos ------------------------------------------------------------------------------------------------

    @app.get("/api/videos/{video_id}", tags=["videos"])
    def video(video_id: SeenVideo) -> VideoInfo:
        return media.info(video_id)

    @app.get("/api/videos/{video_id}/frames/{frame_idx}.jpg", response_class=Response, tags=["videos"])
    def frame(video_id: SeenVideo, frame_idx: FrameIdx) -> Response:
        data = media.frame(video_id, frame_idx)
        # kept for one login: whoever logs in next at the same machine is asked who they are
        cache = {"Cache-Control": "private, max-age=31536000, immutable", "Vary": "Cookie, Authorization"}
        return Response(data, media_type="image/jpeg", headers=cache)

    # --- the pipeline ------------------------------------------------------------------------------------------

    @app.put("/api/batches/{batch_id}", tags=["pipeline"])
    def open_batch(batch_id: Id, body: OpenBatch, _: Pipeline) -> Batch:
        return store.open_batch(batch_id, body.tickets, sealed=body.sealed)

    @app.get("/api/batches", tags=["pipeline"])
    def batches(_: Overseer, drained: bool | None = None) -> list[Batch]:
        return [batch for batch in store.batches() if drained is None or batch.drained == drained]

    @app.get("/api/batches/{batch_id}", tags=["pipeline"])
    def batch(batch_id: Id, _: Overseer) -> Batch:
        return store.batch(batch_id)

    @app.get("/api/batches/{batch_id}/result", tags=["pipeline"])
    def result(
        batch_id: Id,
        _: Pipeline,
        after: Annotated[str | None, Query(max_length=2 * ID_LENGTH)] = None,
        limit: Annotated[int, Query(ge=1, le=1000)] = 200,
    ) -> ResultPage:
        return store.result_page(batch_id, after=after, limit=limit)

    @app.post("/api/batches/{batch_id}/gold", tags=["pipeline"])
    def add_gold(batch_id: Id, body: AddGold, who: Overseer) -> Added:
        return Added(added=store.add_gold(batch_id, body.tickets, by=who))

    @app.get("/api/gold", tags=["pipeline"])
    def gold(_: Overseer) -> list[Gold]:
        return store.gold()

    # --- numbers -----------------------------------------------------------------------------------------------

    cached_stats = _Cached(store.stats, STATS_S)

    @app.get("/api/stats", tags=["numbers"])
    def stats(_: Somebody) -> Stats:
        return cached_stats()

    cached_figures = _Cached(store.figures, FIGURES_S)

    @app.get("/api/figures", tags=["numbers"])
    def figures(_: Overseer) -> QueueFigures:
        return cached_figures()

    @app.get("/metrics", response_class=Response, tags=["numbers"])
    def metrics(_: Overseer) -> Response:
        return Response(prometheus(cached_figures()), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get("/healthz", tags=["numbers"])
    def health() -> Health:
        return Health(ok=True, undelivered=cached_stats().undelivered)

    # --- the page ----------------------------------------------------------------------------------------------

    page = _page_files()

    @app.get("/", include_in_schema=False)
    def index(request: Request) -> Response:
        return _static(page["index.html"], request)

    @app.get("/web/{name}", include_in_schema=False)
    def static(name: str, request: Request) -> Response:
        if name not in page:
            raise HTTPException(404, "there is no such page")
        return _static(page[name], request)

    return app


@dataclass(frozen=True)
class _File:
    data: bytes
    media_type: str
    etag: str


def _page_files() -> dict[str, _File]:
    """The page's files, read once: a request never names a path."""
    types = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
    files: dict[str, _File] = {}
    for entry in resources.files("annotation_queue").joinpath("web").iterdir():
        suffix = entry.name[entry.name.rfind(".") :]
        if suffix in types:
            data = entry.read_bytes()
            files[entry.name] = _File(data, types[suffix], f'"{hashlib.sha256(data).hexdigest()[:16]}"')
    return files


def _static(file: _File, request: Request) -> Response:
    headers = {"ETag": file.etag, "Cache-Control": "no-cache"}
    if request.headers.get("if-none-match") == file.etag:
        return Response(status_code=304, headers=headers)
    return Response(file.data, media_type=file.media_type, headers=headers)


@contextlib.contextmanager
def _delivering(store: Store, deliver: Callable[[str], object], every_s: float) -> Iterator[None]:
    """Deliver drained batches in a thread for as long as the block lasts."""
    stop = threading.Event()

    def run() -> None:
        while not stop.wait(every_s):
            with contextlib.suppress(SQLAlchemyError):  # the database is away: the outbox waits
                store.deliver(deliver)

    thread = threading.Thread(target=run, name="deliver", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(timeout=10)


class _Cached(Generic[T]):
    """A function's value, computed again when it is older than `keep_s`."""

    def __init__(self, compute: Callable[[], T], keep_s: float) -> None:
        self._compute = compute
        self._keep_s = keep_s
        self._lock = threading.Lock()
        self._value: T | None = None
        self._until = 0.0

    def __call__(self) -> T:
        with self._lock:
            if self._value is None or time.monotonic() >= self._until:
                self._value = self._compute()
                self._until = time.monotonic() + self._keep_s
            return self._value


class _Remembered:
    """What was permitted within the last `keep_s`, so that it is not asked for again; refusals are not remembered."""

    def __init__(self, keep_s: float) -> None:
        self._keep_s = keep_s
        self._until: dict[Hashable, float] = {}

    def __call__(self, key: Hashable, permits: Callable[[], bool]) -> bool:
        now = time.monotonic()
        if self._until.get(key, 0.0) >= now:
            return True
        if not permits():
            return False
        if len(self._until) > 10_000:
            self._until.clear()
        self._until[key] = now + self._keep_s
        return True


def _without_masklet(operation: Operation) -> Operation:
    """An operation as its ticket's people see it: what it keeps whole, as no row does, would tell gold."""
    said = json.loads(operation.payload)
    if "masklet" not in said:
        return operation
    return replace(operation, payload=json.dumps({key: value for key, value in said.items() if key != "masklet"}))


def _address(request: Request) -> str:
    """Where a request comes from; "" where the server cannot tell."""
    return request.client.host if request.client else ""


def _bearer_of(request: Request) -> str | None:
    """The token that a program carries."""
    kind, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if kind.lower() == "bearer" else None


def _secret_of(request: Request) -> str:
    """What says who asks: a program's token, or a browser's cookie."""
    token = _bearer_of(request)
    return request.cookies.get(COOKIE, "") if token is None else token


def _scope_of(path: str) -> Scope | None:
    """What a token needs to change something at this path; None: no scoped token may."""
    if path.startswith(("/api/people", "/api/logout")):
        return None
    return Scope.PIPELINE if path.startswith("/api/batches") else Scope.ANNOTATE


# --- errors ------------------------------------------------------------------------------------------------------

Handler = Callable[[Request, Exception], Awaitable[Response]]
DATABASE_AWAY = "the queue's database does not answer; try again"


def _error(status: int, message: str, kind: str) -> JSONResponse:
    line = " ".join(message.split())[:500]
    headers = {"Retry-After": "60"} if status == 429 else None
    return JSONResponse({"error": line, "kind": kind}, status_code=status, headers=headers)


def _answer(status: int) -> Handler:
    async def handler(_: Request, error: Exception) -> Response:
        return _error(status, str(error), type(error).__name__)

    return handler


async def _database_failed(_: Request, error: Exception) -> Response:
    return _error(503, DATABASE_AWAY, "DatabaseUnreachable")


async def _unfit(_: Request, error: Exception) -> Response:
    return _error(422, "a text or a number in the request is none that the database can hold", "ValueError")


async def _broken(_: Request, error: Exception) -> Response:
    return _error(500, f"the queue failed at this request: {type(error).__name__}", "QueueError")


async def _malformed(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = ".".join(str(part) for part in first.get("loc", ()))
    return _error(422, f"{where}: {first.get('msg', 'malformed')}", "ValueError")


async def _http_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _error(error.status_code, str(error.detail), "NotLoggedIn" if error.status_code == 401 else "HTTPException")


# --- the outermost layer -----------------------------------------------------------------------------------------

Asked = MutableMapping[str, Any]  # as ASGI defines them: its scope and its messages
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class _Edge:
    """Refuses bodies over their limit while they arrive, and adds the security headers to every answer.

    caller: who asks; raises NotLoggedIn. A large body is read for nobody else.
    """

    def __init__(
        self, app: Callable[[Asked, Receive, Send], Awaitable[None]], caller: Callable[[Request], object]
    ) -> None:
        self._app = app
        self._caller = caller

    async def __call__(self, scope: Asked, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path: str = scope["path"]
        large = path.endswith(("/finish", "/operations", "/refine")) or path.startswith("/api/batches/")
        limit = LARGE_BODY if large else SMALL_BODY
        taken, known = 0, False

        async def check(size: int) -> None:
            nonlocal known
            if size > limit:
                raise HTTPException(413, f"the body is larger than {limit} bytes")
            if size > SMALL_BODY and not known:
                try:
                    await run_in_threadpool(self._caller, Request(scope))
                except NotLoggedIn as error:
                    raise HTTPException(401, str(error)) from None
                except SQLAlchemyError:
                    raise HTTPException(503, DATABASE_AWAY) from None
                known = True

        async def limited() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            await check(taken)
            return message

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                extra = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
                message["headers"] = [*message.get("headers", ()), *extra]
            await send(message)

        length = dict(scope["headers"]).get(b"content-length", b"0")
        try:
            await check(int(length) if length.isdigit() else 0)
        except HTTPException as error:
            await (await _http_error(Request(scope), error))(scope, receive, with_headers)
        else:
            await self._app(scope, limited, with_headers)
