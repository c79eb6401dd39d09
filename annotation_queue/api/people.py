"""People, their roles and tokens, and the audit: for leads and admins."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Query, Response
from pydantic import Field

from annotation_queue.api.asking import Id, Manager
from annotation_queue.api.backend import Backend, Queue
from annotation_queue.api.sent import Sent
from annotation_queue.people.accounts import token_id_of
from annotation_queue.records import Account, AuditEntry, Person, Role, Scope

router = APIRouter(tags=["people"])


@dataclass(frozen=True, kw_only=True)
class SetPerson:
    """A person to add, or to change; None leaves a part as it is. A password may be set only by its own person."""

    name: str
    roles: tuple[Role, ...]
    skills: tuple[str, ...] | None = None
    password: str | None = None
    new: bool = False  # only add: an error if there is a person of this name


@dataclass(frozen=True, kw_only=True)
class Disable:
    """Whether a person is locked out."""

    disabled: bool = True


@dataclass(frozen=True, kw_only=True)
class IssueToken:
    """The limits of a new token."""

    scopes: tuple[Scope, ...] | None = None  # None: it may do all that its person may
    expires_s: Annotated[float, Field(gt=0, le=1e9)] | None = None  # None: it is valid until it is revoked


@dataclass(frozen=True, kw_only=True)
class Issued:
    """A new token; it is shown only this once."""

    token: str
    token_id: str


@dataclass(frozen=True, kw_only=True)
class Revoked:
    """How many credentials ended, browser logins included."""

    revoked: int


@router.get("/api/people")
def everybody(who: Manager, queue: Queue) -> list[Account]:
    """The people of one's projects, with their tokens."""
    return queue.accounts.seen_by(who)


@router.post("/api/people")
async def set_person(body: Sent[SetPerson], who: Manager, queue: Queue) -> Account:
    """Adds or changes a person. Only an admin may make or change an admin."""
    return await queue.hashing.run(_set_person, body, who, queue)


@router.post("/api/people/{name}/disable", status_code=204)
def disable(name: Id, body: Sent[Disable], who: Manager, queue: Queue) -> Response:
    """Locks a person out, or lets them in again."""
    queue.accounts.disable(name, body.disabled, by=who)
    return Response(status_code=204)


@router.post("/api/people/{name}/tokens")
def issue_token(name: Id, body: Sent[IssueToken], who: Manager, queue: Queue) -> Issued:
    """A new token for a program of this person."""
    token = queue.accounts.issue_token(name, body.scopes, expires_s=body.expires_s, by=who)
    return Issued(token=token, token_id=token_id_of(token))


@router.delete("/api/people/{name}/tokens")
def revoke_tokens(name: Id, who: Manager, queue: Queue) -> Revoked:
    """Revokes all tokens of a person, and ends their logins."""
    return Revoked(revoked=queue.accounts.revoke_tokens(name, by=who))


@router.delete("/api/people/{name}/tokens/{token_id}", status_code=204)
def revoke_token(name: Id, token_id: Id, who: Manager, queue: Queue) -> Response:
    """Revokes one token of a person."""
    queue.accounts.revoke_token(name, token_id, by=who)
    return Response(status_code=204)


@router.get("/api/audit")
def audited(who: Manager, queue: Queue, limit: Annotated[int, Query(ge=1, le=1000)] = 100) -> list[AuditEntry]:
    """What was done to people and leases, the latest first."""
    return queue.accounts.audited(limit=limit, seen_by=who)


def _set_person(body: SetPerson, who: Person, queue: Backend) -> Account:
    queue.accounts.add(body.name, body.roles, body.password, skills=body.skills, new=body.new, by=who)
    return next(account for account in queue.accounts.accounts() if account.name == body.name)
