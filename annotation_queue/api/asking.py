"""Who asks, and what they may see: the dependencies of the routes.

A browser sends a cookie and, with every request that changes something, the header X-CSRF-Token. A program sends
"Authorization: Bearer <token>", and may do what the token's scopes and its person's roles both allow.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import Depends, Path, Query, Request

from annotation_queue import projects
from annotation_queue.api.backend import Queue
from annotation_queue.errors import NotAllowed
from annotation_queue.people.accounts import Caller
from annotation_queue.records import Person, Role, Scope, Ticket
from annotation_queue.rules import ID_LENGTH, ID_PATTERN, OVERSEERS

COOKIE = "masklets"
SAFE_METHODS = ("GET", "HEAD")  # they change nothing

Id = Annotated[str, Path(pattern=ID_PATTERN, max_length=ID_LENGTH)]


# --- who asks ----------------------------------------------------------------------------------------------------


def secret_of(request: Request) -> str:
    """A program's token, or a browser's cookie; "" if there is neither."""
    token = _bearer_of(request)
    return request.cookies.get(COOKIE, "") if token is None else token


def caller(request: Request, queue: Queue) -> Caller:
    """The person behind the request, and their login. Raises NotLoggedIn, NotAllowed."""
    found = queue.accounts.caller(secret_of(request))
    if request.method in SAFE_METHODS:
        return found
    if _bearer_of(request) is not None:
        needed = _scope_of(request.url.path)
        if request.url.path == "/api/logout":  # a token may always end itself
            return found
        if found.scopes is not None and needed not in found.scopes:
            raise NotAllowed(f"this takes a token {f'with the scope {needed}' if needed else 'without scopes'}")
        return found
    sent = request.headers.get("x-csrf-token", "")
    if found.csrf is None or not secrets.compare_digest(sent.encode(), found.csrf.encode()):
        raise NotAllowed("the request lacks this login's X-CSRF-Token")
    return found


# The following do no I/O. They are async, since FastAPI would run each in a thread otherwise.


async def person(who: Annotated[Caller, Depends(caller)]) -> Person:
    """The person who asks."""
    return who.person


Somebody = Annotated[Person, Depends(person)]


def _only(roles: frozenset[Role], what: str) -> Callable[[Person], Awaitable[Person]]:
    """A dependency that lets only people with one of these roles pass. what: the error otherwise."""

    async def check_role(who: Somebody) -> Person:
        if not who.roles & roles:
            raise NotAllowed(what)
        return who

    return check_role


_MANAGERS = frozenset({Role.LEAD, Role.ADMIN})
_PIPELINE = frozenset({Role.PIPELINE, Role.ADMIN})
Manager = Annotated[Person, Depends(_only(_MANAGERS, "only leads and admins may do that"))]
Overseer = Annotated[Person, Depends(_only(OVERSEERS, "only leads, admins and the pipeline may see that"))]


async def whole_manager(who: Manager) -> Person:
    """A lead or admin who sees all projects: for what is not divided into projects. Raises NotAllowed."""
    if who.projects is not None:
        raise NotAllowed("that is about all projects together: only an admin may see it")
    return who


WholeManager = Annotated[Person, Depends(whole_manager)]
Pipeline = Annotated[Person, Depends(_only(_PIPELINE, "only the pipeline may do that"))]


def _bearer_of(request: Request) -> str | None:
    kind, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if kind.lower() == "bearer" else None


def _scope_of(path: str) -> Scope | None:
    """The scope that a token needs to change something at this path; None: only a token without scopes may."""
    of_leads = path.startswith(("/api/acts", "/api/kept")) or path.endswith("/end-lease")
    if of_leads or path.startswith(("/api/people", "/api/quarantine")):
        return None
    return Scope.PIPELINE if path.startswith(("/api/batches", "/api/ontologies")) else Scope.ANNOTATE


Project = Annotated[str | None, Query(max_length=40)]


async def in_project(who: Somebody, project: Project = None) -> Person:
    """The person who asks, as if they belonged to the project of the query alone. Raises NotAllowed."""
    return projects.within(who, project)


InProject = Annotated[Person, Depends(in_project)]


# --- what they may see -------------------------------------------------------------------------------------------


def seen_ticket(ticket_id: Id, who: Somebody, queue: Queue) -> Ticket:
    """The ticket, if this person holds or finished it, or oversees all. Otherwise NotAllowed.

    NotAllowed also if it does not exist, so that nobody can guess which tickets are gold.
    """
    if not queue.tickets.may_see(who, ticket_id):
        raise NotAllowed(f"ticket {ticket_id} is not in {who.name}'s hands")
    return queue.tickets.ticket(ticket_id)


def seen_video(video_id: Id, who: Somebody, queue: Queue) -> str:
    """The id of a video that this person has a ticket on. Otherwise NotAllowed."""
    if not queue.sees_video(who, video_id):
        raise NotAllowed(f"{who.name} has no ticket on video {video_id}")
    return video_id


SeenTicket = Annotated[Ticket, Depends(seen_ticket)]
SeenVideo = Annotated[str, Depends(seen_video)]
