"""Logging in and out, by password or through an OpenID Connect provider, and what a page must know of its person."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from pydantic import Field

from annotation_queue.api.asking import COOKIE, Somebody, caller, secret_of
from annotation_queue.api.backend import Backend, Queue
from annotation_queue.api.sent import Sent
from annotation_queue.errors import LoginRefused
from annotation_queue.people.accounts import LOGIN_S, Caller, Login
from annotation_queue.people.oidc import FLOW_S, Provider
from annotation_queue.records import Person, Reason, RecentAnswer, Role
from annotation_queue.tickets import shown
from annotation_queue.tickets.store import HEARTBEAT_S
from storage.records import FPS, STRIDE

FLOW_COOKIE = "masklets-login"  # the secret of a login through a provider, until it is finished

router = APIRouter(tags=["people"])
oidc_router = APIRouter(tags=["people"])  # only with a provider


@dataclass(frozen=True, kw_only=True)
class Credentials:
    """A name and a password."""

    name: str
    password: str


@dataclass(frozen=True, kw_only=True)
class Ways:
    """How people may log in, besides by password."""

    oidc: str | None  # the host of the OpenID Connect provider


@dataclass(frozen=True, kw_only=True)
class Elsewhere:
    """The provider's page, to which the browser goes to log in."""

    url: str


@dataclass(frozen=True, kw_only=True)
class Answered:
    """The parameters with which the provider sent the browser back."""

    state: Annotated[str, Field(max_length=4096)]
    code: Annotated[str, Field(max_length=4096)] | None = None
    error: Annotated[str, Field(max_length=4096)] | None = None


@dataclass(frozen=True, kw_only=True)
class Watch:
    """How much of a masklet must have been on screen before the page takes a verdict: see QueuePolicy."""

    watch_share: float  # of the frames with the object, to accept
    watch_fault_share: float  # of them, for every other verdict
    watch_least: int  # frames


@dataclass(frozen=True, kw_only=True)
class Me:
    """The person who is logged in, and what their page must know."""

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
    watch: Watch
    keys: dict[str, str]  # that they chose for the page, by action
    projects: tuple[str, ...]  # that they belong to, by name; the unnamed one is not among them


@dataclass(frozen=True, kw_only=True)
class Keys:
    """The keys that a person chose for the page."""

    keys: dict[str, str]  # by action


@router.get("/api/login")
def ways_to_log_in(queue: Queue) -> Ways:
    """How people may log in, besides by password."""
    return Ways(oidc=None if queue.oidc is None else queue.oidc.host)


@router.post("/api/login")
async def log_in(body: Sent[Credentials], request: Request, response: Response, queue: Queue) -> Me:
    """Logs in by password, and sets the cookie."""
    login = await queue.hashing.run(queue.accounts.log_in, body.name, body.password, address=_address(request))
    return _logged_in(login, response, queue)


@oidc_router.post("/api/login/oidc")
async def begin_elsewhere(response: Response, queue: Queue) -> Elsewhere:
    """Begins a login through the provider."""
    begun = await queue.provider.run(_provider(queue).begin)
    response.set_cookie(FLOW_COOKIE, begun.secret, max_age=int(FLOW_S), **_flow(queue))
    return Elsewhere(url=begun.url)


@oidc_router.post("/api/login/oidc/finish")
async def finish_elsewhere(body: Sent[Answered], request: Request, response: Response, queue: Queue) -> Me:
    """Finishes a login that this browser began at the provider, and sets the cookie."""
    oidc = _provider(queue)
    secret = request.cookies.get(FLOW_COOKIE, "")
    if not oidc.is_of(secret, body.state):  # another browser began this login, so it must not become this browser's
        raise LoginRefused()
    if body.code is None:
        raise LoginRefused(f"{oidc.host} refused this login: {body.error or 'it gave no code'}")
    login = await queue.provider.run(_admit, queue, oidc, secret, body.code, _address(request))
    response.delete_cookie(FLOW_COOKIE, **_flow(queue))
    return _logged_in(login, response, queue)


@router.post("/api/logout", status_code=204)
def log_out(request: Request, _: Somebody, queue: Queue) -> Response:
    """Ends this login, or this token."""
    queue.accounts.log_out(secret_of(request))
    # clears the cached frames, but not the browser's database: it holds work that waits to be sent
    response = Response(status_code=204, headers={"Clear-Site-Data": '"cache"'})
    response.delete_cookie(COOKIE, httponly=True, samesite="strict", secure=queue.secure_cookie)
    return response


@router.get("/api/me")
def me(who: Annotated[Caller, Depends(caller)], queue: Queue) -> Me:
    """The person who is logged in."""
    return _me(who.person, who.csrf, who.keys, queue)


@router.put("/api/me/keys", status_code=204)
def set_keys(body: Sent[Keys], who: Somebody, queue: Queue) -> Response:
    """Stores the keys that this person chose for the page, in place of those of before."""
    queue.accounts.set_keys(who.name, body.keys)
    return Response(status_code=204)


@router.get("/api/me/recent")
def recent(who: Somebody, queue: Queue) -> list[RecentAnswer]:
    """The last ten tickets that this person finished, the latest first."""
    return shown.recent(queue.tickets.recent(who), who)


def _me(who: Person, csrf: str | None, keys: dict[str, str], queue: Backend) -> Me:
    lease_s, policy = queue.tickets.lease_s, queue.tickets.policy
    return Me(
        name=who.name,
        roles=who.roles,
        skills=who.skills,
        csrf=csrf,
        lease_s=lease_s,
        heartbeat_s=min(HEARTBEAT_S, lease_s / 3),
        fps=FPS,
        stride=STRIDE,
        reasons=tuple(Reason),
        live=queue.live is not None,
        watch=Watch(
            watch_share=policy.watch_share,
            watch_fault_share=policy.watch_fault_share,
            watch_least=policy.watch_least,
        ),
        keys=keys,
        projects=queue.accounts.projects.names_of(who),
    )


def _logged_in(login: Login, response: Response, queue: Backend) -> Me:
    response.set_cookie(
        COOKIE,
        login.secret,
        max_age=int(LOGIN_S),
        httponly=True,
        samesite="strict",
        secure=queue.secure_cookie,
    )
    return _me(login.person, login.csrf, login.keys, queue)


def _admit(queue: Backend, oidc: Provider, secret: str, code: str, address: str) -> Login:
    with queue.accounts.counting(address):
        return queue.accounts.admit(oidc.finish(secret, code), oidc.roles)


def _provider(queue: Backend) -> Provider:
    assert queue.oidc is not None  # its routes are not there otherwise
    return queue.oidc


def _flow(queue: Backend) -> dict[str, Any]:
    return {"path": "/api/login", "httponly": True, "samesite": "lax", "secure": queue.secure_cookie}


def _address(request: Request) -> str:
    """The client's address; "" where the server cannot tell."""
    return request.client.host if request.client else ""
