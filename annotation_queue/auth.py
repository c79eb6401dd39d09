"""People, their roles and passwords, and the credentials that requests carry.

Knows nothing about HTTP. Passwords are kept as argon2id hashes; of a browser login or a program's token only the
SHA-256 is kept (the secrets are random and long, so that needs no salt).
"""

from __future__ import annotations

import hashlib
import secrets
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerifyMismatchError
from sqlalchemy import Row, delete, insert, select, update

from annotation_queue.database import Database, credentials, people
from annotation_queue.records import NotLoggedIn, Person, Role, TooManyLogins, WrongPassword, check_id

LOGIN_S = 12 * 3600.0  # a browser login lasts a working day
MIN_PASSWORD = 8  # characters
FAILURES = 10  # failed logins that a name, or an address, has in
FAILURES_S = 300.0  # this long, before it must wait
TOKEN_PREFIX = "mq_"  # so that a token is recognised where it should not be


@dataclass(frozen=True, kw_only=True)
class Login:
    """A person who logged in from a browser: the secret goes into the cookie, `csrf` to the page."""

    person: Person
    secret: str
    csrf: str


@dataclass(frozen=True, kw_only=True)
class Caller:
    """Who a request comes from; `csrf` is what its header must carry, None for a program's token."""

    person: Person
    csrf: str | None


class Accounts:
    """The people of one queue. Safe to share between threads."""

    def __init__(
        self,
        database: Database,
        *,
        hasher: PasswordHasher | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """hasher: argon2id with its own parameters, cheaper ones for tests."""
        self._database = database
        self._hasher = hasher or PasswordHasher()
        self._clock = clock
        self._failures: dict[str, list[float]] = {}  # in this process only: a restart forgives
        self._lock = threading.Lock()
        self._hashing = threading.BoundedSemaphore(4)  # each hash takes tens of MiB for a moment
        self._nobody = self._hasher.hash(secrets.token_hex(16))  # so that an unknown name takes as long as a known one

    # --- people ------------------------------------------------------------------------------------------------

    def add(self, name: str, roles: Iterable[Role], password: str | None = None) -> Person:
        """Add a person, or change the roles (and the password, if one is given) of one who is there.

        Raises ValueError for a bad name, no role, or a password shorter than MIN_PASSWORD.
        """
        check_id(name, "name")
        person = Person(name=name, roles=frozenset(Role(role) for role in roles))
        if not person.roles:
            raise ValueError(f"{name} needs a role: {', '.join(Role)}")
        values = {"roles": ",".join(sorted(person.roles))}
        if password is not None:
            values["password_hash"] = self._hash(password)
        with self._database.write() as c:
            if c.scalar(select(people.c.name).where(people.c.name == name).with_for_update()) is None:
                c.execute(insert(people).values(name=name, created_at=self._clock(), **values))
            else:
                c.execute(update(people).where(people.c.name == name).values(**values))
                if password is not None:  # whoever knew the old one is out
                    c.execute(delete(credentials).where(credentials.c.name == name, credentials.c.csrf.is_not(None)))
        return person

    def remove(self, name: str) -> bool:
        """Remove a person with every credential of theirs; what they did stays. False if there was none."""
        with self._database.write() as c:
            c.execute(delete(credentials).where(credentials.c.name == name))
            return bool(c.execute(delete(people).where(people.c.name == name)).rowcount)

    def list(self) -> list[Person]:
        """Everybody, by name."""
        with self._database.read() as c:
            rows = c.execute(select(people).order_by(people.c.name))
            return [_person(row) for row in rows]

    # --- credentials -------------------------------------------------------------------------------------------

    def issue_token(self, name: str) -> str:
        """A new token for a program that acts as `name`; shown once. ValueError for an unknown name."""
        secret = TOKEN_PREFIX + secrets.token_urlsafe(32)
        with self._database.write() as c:
            if c.scalar(select(people.c.name).where(people.c.name == name)) is None:
                raise ValueError(f"there is nobody called {name!r}")
            row = {"secret_sha256": _digest(secret), "name": name, "created_at": self._clock()}
            c.execute(insert(credentials).values(**row))
        return secret

    def revoke_tokens(self, name: str) -> int:
        """End every credential of `name`, browsers and programs; returns how many there were."""
        with self._database.write() as c:
            return int(c.execute(delete(credentials).where(credentials.c.name == name)).rowcount)

    def log_in(self, name: str, password: str, *, address: str = "") -> Login:
        """Check a password and begin a login. Raises WrongPassword; TooManyLogins after FAILURES wrong ones.

        address: where the request comes from, counted like the name.
        """
        keys = [f"name {name}", f"address {address}"] if address else [f"name {name}"]
        self._check_rate(keys)
        with self._database.read() as c:
            row = c.execute(select(people).where(people.c.name == name)).first()
        known = None if row is None else row.password_hash
        try:
            with self._hashing:
                self._hasher.verify(known or self._nobody, password)
        except (VerifyMismatchError, InvalidHashError):
            known = None
        if row is None or known is None:
            self._count_failure(keys)
            raise WrongPassword()
        now = self._clock()
        login = Login(
            person=Person(name=name, roles=_roles(row.roles)),
            secret=secrets.token_urlsafe(32),
            csrf=secrets.token_urlsafe(24),
        )
        with self._database.write() as c:
            c.execute(delete(credentials).where(credentials.c.expires_at < now))
            c.execute(
                insert(credentials).values(
                    secret_sha256=_digest(login.secret),
                    name=name,
                    csrf=login.csrf,
                    created_at=now,
                    expires_at=now + LOGIN_S,
                )
            )
        return login

    def log_out(self, secret: str) -> None:
        """End the login, or the token, of this secret."""
        with self._database.write() as c:
            c.execute(delete(credentials).where(credentials.c.secret_sha256 == _digest(secret)))

    def caller(self, secret: str) -> Caller:
        """Who this secret belongs to, with their roles as they are now. Raises NotLoggedIn."""
        with self._database.read() as c:
            row = c.execute(
                select(credentials.c.csrf, credentials.c.expires_at, people.c.name, people.c.roles)
                .select_from(credentials.join(people, people.c.name == credentials.c.name))
                .where(credentials.c.secret_sha256 == _digest(secret))
            ).first()
        if row is None or (row.expires_at is not None and row.expires_at < self._clock()):
            raise NotLoggedIn()
        return Caller(person=Person(name=row.name, roles=_roles(row.roles)), csrf=row.csrf)

    # --- inside ------------------------------------------------------------------------------------------------

    def _hash(self, password: str) -> str:
        if len(password) < MIN_PASSWORD:
            raise ValueError(f"a password needs {MIN_PASSWORD} characters or more")
        with self._hashing:
            return self._hasher.hash(password)

    def _check_rate(self, keys: Iterable[str]) -> None:
        oldest = self._clock() - FAILURES_S
        with self._lock:
            if len(self._failures) > 10_000:  # somebody tries names: forget those who are quiet
                self._failures = {key: times for key, times in self._failures.items() if times[-1] > oldest}
            for key in keys:
                recent = [when for when in self._failures.get(key, []) if when > oldest]
                if len(recent) >= FAILURES:
                    raise TooManyLogins()

    def _count_failure(self, keys: Iterable[str]) -> None:
        with self._lock:
            for key in keys:
                self._failures[key] = [*self._failures.get(key, [])[-FAILURES:], self._clock()]


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _person(row: Row[Any]) -> Person:
    return Person(name=row.name, roles=_roles(row.roles), skills=frozenset(row.skills.split(",")) - {""})


def _roles(text: str) -> frozenset[Role]:
    return frozenset(Role(role) for role in text.split(","))
