"""People, passwords and credentials."""

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from argon2 import PasswordHasher
from argon2.exceptions import VerifyMismatchError
from sqlalchemy import select

from annotation_queue.database import Database, insert_missing, insert_new
from annotation_queue.errors import LoginRefused, NotAllowed, NotLoggedIn, TooManyLogins, WrongPassword
from annotation_queue.people.accounts import LOGIN_S, NOTED, NOTED_S, PIPELINE, Accounts, token_id_of
from annotation_queue.people.attempts import FREE
from annotation_queue.people.oidc import Vouched
from annotation_queue.records import Role
from annotation_queue.schema import credentials, people
from tests.annotation_queue.synthetic_queue import CHEAP, PASSWORD


@pytest.fixture
def database(sqlite_uri):
    database = Database(sqlite_uri)
    yield database
    database.close()


@pytest.fixture
def accounts(database, clock):
    accounts = Accounts(database, hasher=CHEAP, clock=clock)
    accounts.add("vera", [Role.VERIFIER], PASSWORD)
    return accounts


def test_a_login_identifies_the_person_until_they_log_out(accounts):
    login = accounts.log_in("vera", PASSWORD)
    caller = accounts.caller(login.secret)
    assert (caller.person.name, caller.person.roles, caller.csrf) == ("vera", {Role.VERIFIER}, login.csrf)
    accounts.log_out(login.secret)
    with pytest.raises(NotLoggedIn):
        accounts.caller(login.secret)


def test_a_login_expires_after_a_working_day(accounts, clock):
    login = accounts.log_in("vera", PASSWORD)
    clock.advance(LOGIN_S + 1)
    with pytest.raises(NotLoggedIn):
        accounts.caller(login.secret)


def test_no_secret_is_stored(accounts, database):
    login = accounts.log_in("vera", PASSWORD)
    token = accounts.issue_token("vera")
    with database.read() as c:
        stored = str(c.execute(select(people)).all()) + str(c.execute(select(credentials)).all())
    assert "$argon2id$" in stored
    assert not any(secret in stored for secret in (login.secret, token, PASSWORD))


@pytest.mark.parametrize(("name", "password"), [("vera", "wrong"), ("nobody", PASSWORD), ("", ""), ("vera", "")])
def test_a_wrong_name_and_a_wrong_password_give_the_same_error(accounts, name, password):
    with pytest.raises(WrongPassword, match="The name or the password is wrong"):
        accounts.log_in(name, password)


def fail(accounts, times, name="vera", address="10.0.0.1"):
    for _ in range(times):
        with pytest.raises(WrongPassword):
            accounts.log_in(name, "wrong", address=address)


def test_the_audit_has_logins_and_failed_logins_but_no_secret(accounts):
    accounts.log_in("vera", PASSWORD, address="10.0.0.1")
    for name in ("vera", "hunter2-as-a-name"):
        fail(accounts, 1, name=name)
    lines = [(line.actor, line.action, line.subject) for line in accounts.audited(limit=3)]
    failed = ("(nobody)", "fail to log in")
    assert lines == [(*failed, "(nobody)"), (*failed, "vera"), ("vera", "log in", "vera")]
    everything = str(accounts.audited())
    assert "10.0.0.1" in everything and "hunter2" not in everything
    assert PASSWORD not in everything and "wrong" not in everything


def test_the_audit_of_unknown_names_is_limited(accounts, clock):
    before = len(accounts.audited(limit=1000))
    for i in range(NOTED + 20):
        fail(accounts, 1, name=f"name-{i}", address=f"10.0.{i}.1")
    assert len(accounts.audited(limit=1000)) == before + NOTED
    fail(accounts, 1, address="10.1.0.1")
    assert accounts.audited()[0].subject == "vera", "somebody's own account is always noted"
    clock.advance(NOTED_S + 1)
    fail(accounts, 1, name="name", address="10.2.0.1")
    assert accounts.audited()[0].subject == "(nobody)"


def test_concurrent_attempts_are_all_counted(database, clock):
    class Slow(PasswordHasher):
        """A hasher that is slow enough for attempts to overlap, and that accepts no password."""

        def __init__(self):
            super().__init__(time_cost=1, memory_cost=8, parallelism=1)
            self.calls = []

        def verify(self, hash, password):
            self.calls.append(hash)
            time.sleep(0.02)
            raise VerifyMismatchError

    hasher = Slow()
    accounts = Accounts(database, hasher=hasher, clock=clock)
    accounts.add("vera", [Role.VERIFIER], PASSWORD)

    def attempt(_):
        with pytest.raises((WrongPassword, TooManyLogins)):
            accounts.log_in("vera", "wrong", address="10.0.0.1")

    with ThreadPoolExecutor(3 * FREE) as pool:
        list(pool.map(attempt, range(3 * FREE)))
    assert len(hasher.calls) == FREE


def test_a_person_without_a_password_logs_in_by_token_only(accounts):
    accounts.add("pipeline", [Role.PIPELINE])
    with pytest.raises(WrongPassword):
        accounts.log_in("pipeline", "")
    caller = accounts.caller(accounts.issue_token("pipeline"))
    assert (caller.person.roles, caller.csrf) == ({Role.PIPELINE}, None)


def test_a_new_password_ends_the_logins_and_keeps_the_tokens(accounts):
    login, token = accounts.log_in("vera", PASSWORD), accounts.issue_token("vera")
    accounts.add("vera", [Role.VERIFIER, Role.LEAD], "another password")
    with pytest.raises(NotLoggedIn):
        accounts.caller(login.secret)
    assert accounts.caller(token).person.roles == {Role.VERIFIER, Role.LEAD}


def test_a_new_person_from_a_provider_is_added_once(uri, clock):
    database = Database(uri)
    accounts = Accounts(database, hasher=CHEAP, clock=clock)
    new = Vouched(name="nora", issuer="https://id.example.org", subject="7")
    with pytest.raises(LoginRefused, match="no account nora"):
        accounts.admit(new)
    logins = [accounts.admit(new, {Role.VERIFIER, Role.ANNOTATOR}), accounts.admit(new, {Role.ANNOTATOR})]
    for login in logins:
        caller = accounts.caller(login.secret)
        assert (caller.person.roles, caller.csrf) == (frozenset({Role.VERIFIER, Role.ANNOTATOR}), login.csrf)
    with pytest.raises(WrongPassword):
        accounts.log_in("nora", "")
    actions = [line.action for line in accounts.audited()]
    assert actions == ["fail to log in", "log in", "log in", "set person"]
    clock.advance(LOGIN_S + 1)
    with pytest.raises(NotLoggedIn):
        accounts.caller(logins[1].secret)
    database.close()


def test_removing_a_person_ends_their_tokens(accounts):
    token = accounts.issue_token("vera")
    assert accounts.remove("vera") and not accounts.remove("vera")
    with pytest.raises(NotLoggedIn):
        accounts.caller(token)
    assert accounts.list() == []


@pytest.mark.parametrize(
    ("name", "roles", "password"),
    [("a/b", [Role.LEAD], PASSWORD), ("bob", [], PASSWORD), ("bob", [Role.LEAD], "short"), ("bob", ["king"], PASSWORD)],
)
def test_a_person_needs_a_valid_name_a_role_and_a_long_password(accounts, name, roles, password):
    with pytest.raises(ValueError):
        accounts.add(name, roles, password)


def test_the_pipeline_keeps_its_role_has_no_password_and_stays_enabled(accounts):
    boss = accounts.add("boss", [Role.ADMIN])
    accounts.add(PIPELINE, [Role.PIPELINE])
    token = accounts.issue_token(PIPELINE)
    for by in (boss, None):
        for roles, password in (
            ([Role.ANNOTATOR], None),
            ([Role.PIPELINE, Role.ADMIN], None),
            ([Role.PIPELINE], "x" * 9),
        ):
            with pytest.raises(NotAllowed, match="built-in"):
                accounts.add(PIPELINE, roles, password, by=by)
        with pytest.raises(NotAllowed, match="revoke its tokens"):
            accounts.disable(PIPELINE, by=by)
    with pytest.raises(NotAllowed, match="revoke its tokens"):
        accounts.remove(PIPELINE)
    assert accounts.caller(token).person.roles == {Role.PIPELINE}
    accounts.add(PIPELINE, [Role.PIPELINE], skills=["birds"], by=boss)


def test_nobody_issues_a_token_of_another_person_but_an_admin_does_for_programs(accounts):
    lea, boss = accounts.add("lea", [Role.LEAD]), accounts.add("boss", [Role.ADMIN])
    accounts.add("robot", [Role.PIPELINE])
    accounts.add("mixed", [Role.PIPELINE, Role.VERIFIER], PASSWORD)
    for by, name in ((lea, "vera"), (boss, "vera"), (boss, "lea"), (boss, "mixed"), (lea, "robot")):
        with pytest.raises(NotAllowed):
            accounts.issue_token(name, by=by)
    for by, name in ((lea, "lea"), (boss, "boss"), (boss, "robot"), (None, "vera")):
        assert accounts.caller(accounts.issue_token(name, by=by)).person.name == name
        assert accounts.audited(limit=1)[0].actor == (by.name if by else "(operator)")


@pytest.fixture
def both(uri, clock):
    """Accounts on each kind of database, with vera and an admin."""
    database = Database(uri)
    accounts = Accounts(database, hasher=CHEAP, clock=clock)
    accounts.add("vera", [Role.VERIFIER], PASSWORD, skills=["birds"])
    accounts.add("boss", [Role.ADMIN])
    yield accounts
    database.close()


def lines(accounts):
    return [(line.actor, line.action, line.subject) for line in accounts.audited()][::-1]


UNCHANGED = {
    "the same role": lambda a, boss: a.add("vera", [Role.VERIFIER], by=boss),
    "the same role and skills": lambda a, boss: a.add("vera", ["verifier"], skills=["birds"], by=boss),
    "a person who is there": lambda a, boss: a.add_new("vera", [Role.LEAD], PASSWORD),
    "enabled twice": lambda a, boss: a.disable("vera", False, by=boss),
    "no token left": lambda a, boss: a.revoke_tokens("vera", by=boss),
    "nobody of this name": lambda a, boss: a.remove("nobody"),
    "a login that is over": lambda a, boss: a.log_out("gone"),
}


@pytest.mark.parametrize("what", UNCHANGED)
def test_what_changes_nothing_is_not_in_the_audit(both, what):
    boss = next(person for person in both.list() if person.name == "boss")
    before, people_before = lines(both), both.accounts()
    UNCHANGED[what](both, boss)
    assert lines(both) == before and both.accounts() == people_before


def test_what_is_repeated_is_in_the_audit_once(both, clock):
    boss = next(person for person in both.list() if person.name == "boss")
    before = lines(both)
    token, kept = both.issue_token("vera"), both.issue_token("vera", expires_s=60)
    for change in (
        lambda: both.add("vera", [Role.LEAD], skills=["birds"], by=boss),
        lambda: both.add("vera", [Role.LEAD], skills=[], by=boss),
        lambda: both.revoke_tokens("vera", by=boss),
        lambda: both.disable("vera", by=boss),
        lambda: both.disable("vera", False, by=boss),
        lambda: both.remove("vera"),
    ):
        change()
        change()
    said = [("(operator)", "issue token", "vera")] * 2 + [("boss", "set person", "vera")] * 2
    said += [("boss", action, "vera") for action in ("revoke tokens", "disable", "enable")]
    assert lines(both) == [*before, *said, ("(operator)", "remove", "vera")]
    assert token != kept


def test_a_token_that_was_revoked_or_has_expired_is_not_revoked_again(both, clock):
    boss = next(person for person in both.list() if person.name == "boss")
    first, second, third = (both.issue_token("boss", expires_s=seconds) for seconds in (None, 60, None))
    before = lines(both)
    both.log_out(third)
    both.log_out(third)
    both.revoke_token("boss", token_id_of(first), by=boss)
    clock.advance(61)
    both.log_out(second)
    for token in (first, second, third):
        with pytest.raises(ValueError, match="boss has no token"):
            both.revoke_token("boss", token_id_of(token), by=boss)
    assert lines(both) == [*before, *[("boss", "revoke token", "boss")] * 2]


def test_of_people_whom_two_logins_add_at_once_the_audit_has_one(both, monkeypatch):
    """The second login found no account, and inserts it after the first has."""
    new = Vouched(name="nora", issuer="https://id.example.org", subject="7")
    both.admit(new, {Role.ANNOTATOR})
    real, asked = both._database.write, []

    class Late:
        def __init__(self, c):
            self._c = c

        def __getattr__(self, name):
            return getattr(self._c, name)

        def execute(self, *arguments):
            asked.append(1)
            found = self._c.execute(*arguments)
            return found if len(asked) > 1 else self._c.execute(select(people).where(people.c.name == "?"))

    @contextmanager
    def write():
        with real() as c:
            yield Late(c)

    monkeypatch.setattr(both._database, "write", write)
    both.admit(new, {Role.ANNOTATOR})
    assert len(asked) > 2 and [line for line in lines(both) if line[1:] == ("set person", "nora")] == [
        ("(operator)", "set person", "nora")
    ]


def test_an_insert_says_whether_the_row_is_new(uri):
    database, row = Database(uri), {"name": "ann", "created_at": 1.0, "roles": "lead"}
    with database.write() as c:
        assert insert_new(c, people, row) and not insert_new(c, people, row | {"roles": "admin"})
        insert_missing(c, people, [row, row | {"name": "bob"}])
        assert c.execute(select(people.c.name, people.c.roles).order_by(people.c.name)).all() == [
            ("ann", "lead"),
            ("bob", "lead"),
        ]
    database.close()
