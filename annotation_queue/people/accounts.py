"""People, their roles and passwords, and the credentials that requests carry.

Knows nothing about HTTP. Passwords are stored as argon2id hashes. Of a browser login or a program's token only the
SHA-256 is stored (the secrets are random and long, so they need no salt). Every change of a person or a token, and
every login, also a failed one, writes a line of the audit in the same transaction. What changes nothing writes none.
"""

from __future__ import annotations

import builtins
import hashlib
import json
import math
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerifyMismatchError
from sqlalchemy import ColumnElement, Connection, Row, bindparam, delete, func, insert, or_, select, update

from annotation_queue import audit, schema
from annotation_queue.database import Database, insert_missing, insert_new
from annotation_queue.errors import LoginRefused, NotAllowed, NotLoggedIn, WrongPassword
from annotation_queue.leads import acts
from annotation_queue.people.attempts import Attempts
from annotation_queue.projects import Projects, check_may_manage, knows
from annotation_queue.records import Account, AuditEntry, Person, Role, Scope, Token
from annotation_queue.rules import ID_LENGTH, check_id
from annotation_queue.schema import credentials, people
from annotation_queue.tickets import sight

if TYPE_CHECKING:
    from annotation_queue.people.oidc import Vouched

LOGIN_S = 12 * 3600.0  # a browser login lasts a working day
MIN_PASSWORD = 8  # characters
MAX_KEYS = 100  # that a person may choose for the page
MAX_KEY = 40  # characters of a key, and of an action
NOTED_S = 300.0  # the limit below counts the attempts of this time
NOTED = 100  # attempts with an unknown name that are audited
PIPELINE = "pipeline"  # the account of this project's own stages; it is made at the start of the queue
TOKEN_ID = 12  # characters of a token's hash that are its id
NOBODY = "(nobody)"  # in the audit: the actor of a failed login, and the subject if the name has no account
OPERATOR = "(operator)"  # in the audit: the command line or the server itself
TOKEN_PREFIX = "mq_"  # makes a leaked token recognisable


@dataclass(frozen=True, kw_only=True)
class Login:
    """A person who logged in from a browser: the secret goes into the cookie, `csrf` to the page."""

    person: Person
    secret: str
    csrf: str
    keys: dict[str, str]  # that they chose for the page, by action


@dataclass(frozen=True, kw_only=True)
class Caller:
    """The person behind a request. csrf: the value that its header must carry; None for a program's token."""

    person: Person
    csrf: str | None
    scopes: frozenset[Scope] | None = None  # of a token; None: everything that the person may do
    keys: dict[str, str] = field(default_factory=dict)  # that they chose for the page, by action


# A lead may manage people with these roles and no others. Admins manage everybody.
ROLES_OF_LEADS = frozenset({Role.ANNOTATOR, Role.VERIFIER, Role.LEAD})

_WHO = (  # runs at every request
    select(credentials.c.csrf, credentials.c.expires_at, credentials.c.scopes, people)
    .select_from(credentials.join(people, people.c.name == credentials.c.name))
    .where(credentials.c.secret_sha256 == bindparam("secret_sha256"), people.c.disabled.is_(False))
)


class Accounts:
    """The people of one queue. Safe to share between threads."""

    def __init__(
        self,
        database: Database,
        *,
        hasher: PasswordHasher | None = None,
        clock: Callable[[], float] = time.time,
        projects: Projects = Projects(),  # noqa: B008  frozen
    ) -> None:
        """hasher: argon2id with other parameters; tests use cheaper ones. projects: who belongs to which."""
        self.projects = projects
        self._database = database
        self._hasher = hasher or PasswordHasher()
        self._clock = clock
        self._attempts = Attempts(clock)
        self._unknown: list[float] = []  # times of the audited attempts with an unknown name
        self._lock = threading.Lock()
        # Checked for an unknown name, so that it takes as long as a known one.
        self._nobody = self._hasher.hash(secrets.token_hex(16))

    # --- people ------------------------------------------------------------------------------------------------

    def add(
        self,
        name: str,
        roles: Iterable[Role],
        password: str | None = None,
        *,
        skills: Iterable[str] | None = None,
        new: bool = False,
        by: Person | None = None,
    ) -> Person:
        """Add a person, or change the roles, password or skills of an existing one.

        new: the name must be new, so that nobody's roles are replaced by mistake.
        by: the person who does so; None: the operator of the server.
        Raises ValueError for an invalid name or skill, for no role, for a password shorter than MIN_PASSWORD, and for a
        name that is not new;
        NotAllowed if `by` may not do this. Nobody sets another person's password: they could log in as that person.
        """
        check_id(name, "name")
        person = Person(name=name, roles=frozenset(Role(role) for role in roles))
        if not person.roles:
            raise ValueError(f"{name} needs a role: {', '.join(Role)}")
        if name == PIPELINE and (person.roles != {Role.PIPELINE} or password is not None):
            raise NotAllowed(f"{PIPELINE} is a built-in account: it keeps its one role, and has no password")
        if password is not None and by is not None and by.name != name:
            raise NotAllowed(f"only the operator sets the password of {name}: `masklets users add {name} --role ...`")
        values = {"roles": ",".join(sorted(person.roles))}
        if skills is not None:
            person = replace(person, skills=frozenset(check_id(skill, "skill") for skill in skills))
            values["skills"] = ",".join(sorted(person.skills))
        said = dict(values) | {"password": password is not None}
        if password is not None:
            values["password_hash"] = self._hash(password)
        with self._database.write() as c:
            self._check_may(c, by, name, person.roles)
            row = c.execute(select(people).where(people.c.name == name).with_for_update()).first()
            if row is not None and new:
                raise ValueError(
                    f"there is already a person {name}, with the roles {', '.join(sorted(_roles(row.roles)))}"
                )
            if row is not None and all(getattr(row, key) == value for key, value in values.items()):
                return person
            self._note(c, by, "set person", name, said)
            if row is None:
                c.execute(insert(people).values(name=name, created_at=self._clock(), **values))
            else:
                changed = c.execute(
                    update(people).where(people.c.name == name).values(**values).returning(people)
                ).one()
                self._end_assignments(c, by, name, None if changed.disabled else _person(changed))
                if password is not None:  # end the logins with the old password
                    c.execute(delete(credentials).where(credentials.c.name == name, credentials.c.csrf.is_not(None)))
        return person

    def add_new(self, name: str, roles: Iterable[Role], password: str) -> bool:
        """Add a person with a password, as the operator. False, and nothing changes, if there is one of this name."""
        given = ",".join(sorted(roles))
        row = {"name": name, "created_at": self._clock(), "roles": given, "password_hash": self._hash(password)}
        with self._database.write() as c:
            insert_missing(c, people, [row])
            added = c.scalar(select(people.c.password_hash).where(people.c.name == name)) == row["password_hash"]
            if added:
                self._note(c, None, "set person", name, {"roles": given, "password": True})
        return added

    def disable(self, name: str, disabled: bool = True, *, by: Person | None = None) -> None:
        """Disable a person and end all their credentials, or enable them again. Raises ValueError, NotAllowed."""
        if name == PIPELINE and disabled:
            raise NotAllowed(f"{PIPELINE} is a built-in account, without which no batch moves: revoke its tokens")
        with self._database.write() as c:
            self._check_may(c, by, name)
            before = c.scalar(select(people.c.disabled).where(people.c.name == name).with_for_update())
            if before is None:
                raise ValueError(f"there is no person {name!r}")
            if before == disabled:
                return
            self._note(c, by, "disable" if disabled else "enable", name, {})
            c.execute(update(people).where(people.c.name == name).values(disabled=disabled))
            if disabled:
                c.execute(delete(credentials).where(credentials.c.name == name))
                self._end_assignments(c, by, name)

    def set_keys(self, name: str, keys: Mapping[str, str]) -> None:
        """Store the keys that a person chose for the page, by action; they replace those of before.

        What the actions are, only the page knows. Raises ValueError for too many keys, and for long ones.
        """
        if len(keys) > MAX_KEYS:
            raise ValueError(f"at most {MAX_KEYS} keys can be chosen, not {len(keys)}")
        if long := [word for pair in keys.items() for word in pair if not 0 < len(word) <= MAX_KEY]:
            raise ValueError(f"an action and a key have 1 to {MAX_KEY} characters: {long[0][:80]!r}")
        text = json.dumps(dict(keys), sort_keys=True) if keys else None
        with self._database.write() as c:
            c.execute(update(people).where(people.c.name == name).values(keys=text))

    def remove(self, name: str) -> bool:
        """Remove a person and their credentials; their work stays. False if there is no such person.

        Raises NotAllowed for the account of the pipeline.
        """
        if name == PIPELINE:
            raise NotAllowed(f"{PIPELINE} is a built-in account, without which no batch moves: revoke its tokens")
        with self._database.write() as c:
            c.execute(delete(credentials).where(credentials.c.name == name))
            removed = c.execute(delete(people).where(people.c.name == name)).rowcount > 0
            if removed:
                self._note(c, None, "remove", name, {})
                self._end_assignments(c, None, name)
            return removed

    def list(self) -> list[Person]:
        """All people, by name."""
        with self._database.read() as c:
            rows = c.execute(select(people).order_by(people.c.name))
            return [_person(row) for row in rows]

    def accounts(self) -> builtins.list[Account]:
        """All people, by name, with their valid tokens."""
        tokens: dict[str, list[Token]] = {}
        with self._database.read() as c:
            for row in c.execute(
                select(credentials).where(credentials.c.csrf.is_(None)).order_by(credentials.c.created_at)
            ):
                if row.expires_at is None or row.expires_at >= self._clock():
                    tokens.setdefault(row.name, []).append(_token(row))
            return [
                Account(
                    name=row.name,
                    roles=tuple(sorted(_roles(row.roles))),
                    skills=tuple(sorted(_person(row).skills)),
                    disabled=bool(row.disabled),
                    created_at=row.created_at,
                    tokens=tuple(tokens.get(row.name, ())),
                )
                for row in c.execute(select(people).order_by(people.c.name))
            ]

    def seen_by(self, who: Person) -> builtins.list[Account]:
        """The people whom a person may know of: see `projects.knows`."""
        others = ((each, Person(name=each.name, roles=frozenset(each.roles))) for each in self.accounts())
        return [each for each, other in others if knows(who, self.projects.of(other))]

    def audited(self, *, limit: int = 100, seen_by: Person | None = None) -> builtins.list[AuditEntry]:
        """The last lines of the audit, the latest first. seen_by: only those about people and work that they see."""
        lines = select(schema.audit)
        if seen_by is not None and seen_by.projects is not None:
            subject = schema.audit.c.subject
            names = [account.name for account in self.seen_by(seen_by)]
            of_work = (*sight.of_tickets(seen_by, subject), *sight.of_batches(seen_by, subject))
            lines = lines.where(or_(subject.in_(names), *of_work))
        with self._database.read() as c:
            rows = c.execute(lines.order_by(schema.audit.c.audit_id.desc()).limit(limit))
            return [AuditEntry(**row._mapping) for row in rows]

    # --- credentials -------------------------------------------------------------------------------------------

    def issue_token(
        self,
        name: str,
        scopes: Iterable[Scope] | None = None,
        *,
        expires_s: float | None = None,
        by: Person | None = None,
    ) -> str:
        """A new token for a program that acts as `name`. It cannot be read again later.

        scopes: the uses that it permits; None: everything that `name` may do. expires_s: s until it expires.
        Raises ValueError for an unknown name or an invalid time, NotAllowed if `by` may not do this.
        """
        if expires_s is not None and not 0 < expires_s < math.inf:  # false for NaN, too
            raise ValueError(f"a token is valid for a number of seconds above 0, not {expires_s}")
        secret, now = TOKEN_PREFIX + secrets.token_urlsafe(32), self._clock()
        kept = None if scopes is None else ",".join(sorted({Scope(scope) for scope in scopes}))
        if kept == "":
            raise ValueError(f"a token needs a scope: {', '.join(Scope)}")
        with self._database.write() as c:
            roles = c.scalar(select(people.c.roles).where(people.c.name == name, people.c.disabled.is_(False)))
            if roles is None:
                raise ValueError(f"there is no person {name!r}")
            if by is not None and by.name != name and _roles(roles) != {Role.PIPELINE}:
                raise NotAllowed(f"{by.name} may not issue a token of {name}: it would let one person act as another")
            self._check_may(c, by, name)
            self._note(c, by, "issue token", name, {"token_id": token_id_of(secret), "scopes": kept})
            row = {"secret_sha256": _digest(secret), "name": name, "created_at": now, "scopes": kept}
            c.execute(insert(credentials).values(**row, expires_at=None if expires_s is None else now + expires_s))
        return secret

    def revoke_token(self, name: str, token_id: str, *, by: Person | None = None) -> None:
        """End one token of `name`. ValueError if there is no such token, or it has expired; NotAllowed."""
        c_ = credentials.c
        with self._database.write() as c:
            self._check_may(c, by, name)
            its = (c_.name == name, c_.csrf.is_(None), func.substr(c_.secret_sha256, 1, TOKEN_ID) == token_id)
            if not c.execute(delete(credentials).where(*its, self._is_valid())).rowcount:
                raise ValueError(f"{name} has no token {token_id!r}")
            self._note(c, by, "revoke token", name, {"token_id": token_id})

    def revoke_tokens(self, name: str, *, by: Person | None = None) -> int:
        """End every credential of `name`, of browsers and programs; returns how many were valid. Raises ValueError."""
        with self._database.write() as c:
            if c.execute(select(people.c.name).where(people.c.name == name)).first() is None:
                raise ValueError(f"there is no person {name!r}")
            self._check_may(c, by, name)
            ended = c.execute(delete(credentials).where(credentials.c.name == name, self._is_valid())).rowcount
            if ended:
                self._note(c, by, "revoke tokens", name, {})
            return int(ended)

    def log_in(self, name: str, password: str, *, address: str = "") -> Login:
        """Check a password and begin a login. Raises WrongPassword, TooManyLogins.

        address: the network address of the request.
        """
        with self._database.read() as c:
            row = c.execute(select(people).where(people.c.name == name)).first()
        known = None if row is None or row.disabled else row.password_hash
        forgive = self._attempts.begin(name[:ID_LENGTH], address)
        try:
            self._hasher.verify(known or self._nobody, password)
        except (VerifyMismatchError, InvalidHashError):
            known = None
        said = {"way": "password", "address": address}
        if row is None or known is None:
            subject = NOBODY if row is None else row.name  # not the typed name: it may be a password
            if row is not None or self._is_noted():
                with self._database.write() as c:
                    audit.note(c, self._clock(), NOBODY, "fail to log in", subject, said)
            raise WrongPassword()
        forgive()
        with self._database.write() as c:
            audit.note(c, self._clock(), row.name, "log in", row.name, said)
            return self._begin(c, row)

    def has_password(self, name: str, password: str) -> bool:
        """Whether this person can log in with this password now. For the operator: neither counted nor audited."""
        with self._database.read() as c:
            known = c.scalar(select(people.c.password_hash).where(people.c.name == name, people.c.disabled.is_(False)))
        try:
            return known is not None and self._hasher.verify(known, password)
        except (VerifyMismatchError, InvalidHashError):
            return False

    def admit(self, vouched: Vouched, roles: Iterable[Role] = ()) -> Login:
        """Begin a login of a person whom a provider has identified.

        roles: of the account that is created for a person without one; empty: a person without an account is rejected.
        Raises LoginRefused for such a person, for a disabled person, and for the pipeline, which is a program.
        """
        name, given = vouched.name, ",".join(sorted(roles))
        with self._database.write() as c:
            its = select(people).where(people.c.name == name)
            row = c.execute(its).first()
            if row is None and given:
                if insert_new(c, people, {"name": name, "created_at": self._clock(), "roles": given}):
                    self._note(c, None, "set person", name, {"roles": given, "issuer": vouched.issuer})
                row = c.execute(its).first()
            if row is None:
                raise LoginRefused(f"there is no account {name} here: ask an admin to add it")
            if row.disabled or Role.PIPELINE in _roles(row.roles):
                refusal = LoginRefused(f"the account {name} may not log in here")
                refusal.account = name
                raise refusal
            said = {"issuer": vouched.issuer, "subject": vouched.subject}
            audit.note(c, self._clock(), name, "log in", name, said)
            return self._begin(c, row)

    @contextmanager
    def counting(self, address: str) -> Iterator[None]:
        """In this block, LoginRefused is counted and audited like a wrong password. Raises TooManyLogins."""
        forgive = self._attempts.begin(f"(a provider's, at {address})", address)
        refused = False
        try:
            yield
        except LoginRefused as error:
            refused = True
            if error.account is not None or self._is_noted():
                said = {"way": "provider", "address": address, "why": str(error)}
                with self._database.write() as c:
                    audit.note(c, self._clock(), NOBODY, "fail to log in", error.account or NOBODY, said)
            raise
        finally:
            if not refused:
                forgive()

    def log_out(self, secret: str) -> None:
        """End the login, or the token, of this secret."""
        its = credentials.c.secret_sha256 == _digest(secret)
        with self._database.write() as c:
            ended = delete(credentials).where(its, self._is_valid()).returning(credentials.c.name, credentials.c.csrf)
            row = c.execute(ended).first()
            if row is not None and row.csrf is None:
                audit.note(c, self._clock(), row.name, "revoke token", row.name, {"token_id": token_id_of(secret)})

    def caller(self, secret: str) -> Caller:
        """The person of this secret, with their current roles. Raises NotLoggedIn."""
        with self._database.read() as c:
            row = c.execute(_WHO, {"secret_sha256": _digest(secret)}).first()
        if row is None or (row.expires_at is not None and row.expires_at < self._clock()):
            raise NotLoggedIn()
        who = self.projects.of(_person(row))
        return Caller(person=who, csrf=row.csrf, scopes=_scopes(row.scopes), keys=_keys(row.keys))

    # --- inside ------------------------------------------------------------------------------------------------

    def _begin(self, c: Connection, row: Row[Any]) -> Login:
        """A new login of the person of this row."""
        now = self._clock()
        secret, csrf = secrets.token_urlsafe(32), secrets.token_urlsafe(24)
        login = Login(person=self.projects.of(_person(row)), secret=secret, csrf=csrf, keys=_keys(row.keys))
        c.execute(delete(credentials).where(credentials.c.expires_at < now))
        c.execute(
            insert(credentials).values(
                secret_sha256=_digest(login.secret),
                name=row.name,
                csrf=login.csrf,
                created_at=now,
                expires_at=now + LOGIN_S,
            )
        )
        return login

    def _is_valid(self) -> ColumnElement[bool]:
        """Whether a credential has not expired."""
        return credentials.c.expires_at.is_(None) | (credentials.c.expires_at >= self._clock())

    def _check_may(self, c: Connection, by: Person | None, name: str, roles: frozenset[Role] = frozenset()) -> None:
        """Raises NotAllowed if `by` may not manage `name` or may not give them `roles`."""
        if by is not None and Role.ADMIN not in by.roles:
            now = c.scalar(select(people.c.roles).where(people.c.name == name))
            concerned = roles | (frozenset() if now is None else _roles(now))
            if Role.LEAD not in by.roles or not concerned <= ROLES_OF_LEADS:
                raise NotAllowed(f"{by.name} may not manage {name}: only an admin may")
            check_may_manage(by, self.projects.of(Person(name=name, roles=concerned)))

    def _end_assignments(self, c: Connection, by: Person | None, name: str, person: Person | None = None) -> None:
        """Free the tickets that are assigned to `name` and that they may no longer hold. See `acts`."""
        acts.end_assignments(c, name, self._clock(), OPERATOR if by is None else by.name, person)

    def _note(self, c: Connection, by: Person | None, action: str, name: str, detail: dict[str, Any]) -> None:
        """Write a line of the audit, about what this transaction changed."""
        audit.note(c, self._clock(), OPERATOR if by is None else by.name, action, name, detail)

    def _hash(self, password: str) -> str:
        if len(password) < MIN_PASSWORD:
            raise ValueError(f"a password needs {MIN_PASSWORD} characters or more")
        return self._hasher.hash(password)

    def _is_noted(self) -> bool:
        """Whether to audit another attempt with an unknown name. Limited, so that nobody can fill the audit."""
        now = self._clock()
        with self._lock:
            self._unknown = [t for t in self._unknown if t > now - NOTED_S]
            if len(self._unknown) >= NOTED:
                return False
            self._unknown.append(now)
            return True


def token_id_of(secret: str) -> str:
    """The id under which lists show a token: the beginning of its hash."""
    return _digest(secret)[:TOKEN_ID]


def _token(row: Row[Any]) -> Token:
    scopes = _scopes(row.scopes)
    return Token(
        token_id=row.secret_sha256[:TOKEN_ID],
        scopes=None if scopes is None else tuple(sorted(scopes)),
        created_at=row.created_at,
        expires_at=row.expires_at,
    )


def _scopes(text: str | None) -> frozenset[Scope] | None:
    return None if text is None else frozenset(Scope(scope) for scope in text.split(","))


def _keys(text: str | None) -> dict[str, str]:
    chosen: dict[str, str] = json.loads(text or "{}")
    return chosen


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _person(row: Row[Any]) -> Person:
    return Person(name=row.name, roles=_roles(row.roles), skills=frozenset(row.skills.split(",")) - {""})


def _roles(text: str) -> frozenset[Role]:
    return frozenset(Role(role) for role in text.split(","))
