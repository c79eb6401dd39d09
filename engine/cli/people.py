"""Commands about the people of the review queue: `masklets users ...`. They open the queue's database directly."""

from __future__ import annotations

import secrets
import sys
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from engine.cli import console
from engine.cli.console import Json
from storage.wording import counted

if TYPE_CHECKING:
    from engine.services import Services

app = typer.Typer(no_args_is_help=True, help="The people of the review queue.")


FIRST = "lead"  # the account for trying things out: a lead may take every ticket


def first_login(s: Services) -> str:
    """How people log in at first, in words: the name of the account, and its password if this home knows it."""
    password = first_password(s)
    if password is None:
        remedy = f"`masklets users add {FIRST} --role lead --role verifier` sets a new one"
        return f"{FIRST}, whose password this home does not know ({remedy})"
    return f"{FIRST} with {password}"


def first_password(s: Services) -> str | None:
    """The password of the first account, which is made if the database has none of that name.

    The password is kept in the home. None if it was changed since, or made from another home.
    """
    from annotation_queue.records import Role
    from engine.files import alone, write_secret

    path = s.home / "first-user.txt"
    _, accounts = s.open_queue()
    with alone(s.home / "first-user.lock"):
        if FIRST not in {person.name for person in accounts.list()}:
            password = secrets.token_urlsafe(9)
            write_secret(path, password)  # before the account: a process that is killed here leaves no account without
            accounts.add_new(FIRST, [Role.LEAD, Role.VERIFIER], password)
        kept = path.read_text().strip() if path.exists() else ""
        return kept if accounts.has_password(FIRST, kept) else None


@app.command("add")
def add(
    name: str,
    role: Annotated[list[str], typer.Option(help="annotator, verifier, lead, admin or pipeline; may be repeated.")],
    skill: Annotated[
        list[str] | None,
        typer.Option(help="A skill that tickets may require; may be repeated. Default: skills stay unchanged."),
    ] = None,
    password_stdin: Annotated[
        bool,
        typer.Option(
            "--password-stdin",
            help="Read the password from standard input; on a terminal, ask for it. Default: one is made and printed.",
        ),
    ] = False,
) -> None:
    """Add a person, or change a person's roles, skills and password."""
    from annotation_queue.records import Role
    from engine.services import connect

    roles = [console.member(word, Role, "roles") for word in role]
    chosen = _read_password() if password_stdin else secrets.token_urlsafe(12)
    with connect() as s:
        _, accounts = s.open_queue()
        accounts.add(name, roles, chosen, skills=skill)
    console.out.print(f"{name} ({', '.join(role)})" + ("" if password_stdin else f", password {chosen}"))


def _read_password() -> str:
    """A password from a prompt without echo, or the first line of standard input. No argument: `ps` would show it."""
    if sys.stdin.isatty():
        return str(typer.prompt("Password", hide_input=True, confirmation_prompt=True))
    return sys.stdin.readline().rstrip("\r\n")


@app.command("list")
def list_people(as_json: Json = False) -> None:
    """Everybody, with their roles, skills and tokens."""
    from engine.services import connect

    with connect() as s:
        _, accounts = s.open_queue()
        everybody = accounts.accounts()
    if as_json:
        console.print_json({"people": everybody})
        return
    for person in everybody:
        words = [", ".join(person.roles), f"knows {', '.join(person.skills)}" if person.skills else ""]
        words += [f"token {t.token_id} ({', '.join(t.scopes or ['unlimited'])})" for t in person.tokens]
        words += ["disabled" if person.disabled else ""]
        console.out.print(f"{person.name}  {'; '.join(word for word in words if word)}")


@app.command("disable")
def disable(name: str) -> None:
    """Disable a person: their logins and tokens end."""
    from engine.services import connect

    with connect() as s:
        s.open_queue()[1].disable(name)
    console.out.print(f"{name} is disabled")


@app.command("enable")
def enable(name: str) -> None:
    """Let a disabled person log in again."""
    from engine.services import connect

    with connect() as s:
        s.open_queue()[1].disable(name, False)
    console.out.print(f"{name} may log in again")


@app.command("remove")
def remove(name: str) -> None:
    """Remove a person; their work stays."""
    from engine.services import connect

    with connect() as s:
        _, accounts = s.open_queue()
        if not accounts.remove(name):
            raise ValueError(f"there is no {name!r}")
    console.out.print(f"{name} is removed")


@app.command("token")
def issue_token(
    name: str,
    scope: Annotated[
        list[str] | None,
        typer.Option(help="read, annotate or pipeline; may be repeated. Default: everything that the person may do."),
    ] = None,
    days: Annotated[float | None, typer.Option(min=0.01, help="Days until it expires. Default: never.")] = None,
) -> None:
    """Make a token for a program that works as this person."""
    from annotation_queue.records import Scope
    from engine.services import connect

    scopes = [console.member(word, Scope, "scopes") for word in scope] if scope else None
    with connect() as s:
        _, accounts = s.open_queue()
        console.out.print(accounts.issue_token(name, scopes, expires_s=None if days is None else days * 86400))


@app.command("revoke")
def revoke(
    name: str,
    token_id: Annotated[
        str | None, typer.Argument(help="As `users list` shows it. Default: every token and login.")
    ] = None,
) -> None:
    """End one token of a person, or all tokens and logins."""
    from engine.services import connect

    with connect() as s:
        _, accounts = s.open_queue()
        if token_id is None:
            console.out.print(f"{counted(accounts.revoke_tokens(name), 'token')} of {name} revoked, logins included")
        else:
            accounts.revoke_token(name, token_id)
            console.out.print(f"token {token_id} of {name} is revoked")


@app.command("audit")
def audit(limit: Annotated[int, typer.Option(min=1)] = 50, as_json: Json = False) -> None:
    """Changes to people and tokens, withdrawn verdicts and decisions of leads, each with its author; newest first."""
    from engine.services import connect

    with connect() as s:
        _, accounts = s.open_queue()
        lines = accounts.audited(limit=limit)
    if as_json:
        console.print_json({"audit": lines})
        return
    for line in lines:
        when = datetime.fromtimestamp(line.at).isoformat(" ", "seconds")
        console.out.print(f"{when}  {line.actor}  {line.action}  {line.subject}  {line.detail}")
