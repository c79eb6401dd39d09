"""Errors on the wire: which HTTP status each exception has, and the JSON that a client gets.

The body of an error is {"error": one line, "kind": the exception's name}.
"""

from __future__ import annotations

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import DataError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException

from annotation_queue.errors import (
    BatchSealed,
    LeaseLost,
    LoginRefused,
    NoSuchBatch,
    NoSuchFrame,
    NoSuchMasklet,
    NoSuchOntology,
    NoSuchRelease,
    NoSuchTicket,
    NoSuchVideo,
    NotAllowed,
    NotLoggedIn,
    ProviderUnreachable,
    QueueError,
    TooBusy,
    TooLate,
    TooManyLogins,
    WrongPassword,
)

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
    NoSuchOntology: 404,
    NoSuchRelease: 404,
    LeaseLost: 409,
    TooLate: 409,
    BatchSealed: 409,
    ProviderUnreachable: 424,
    TooManyLogins: 429,
    TooBusy: 503,
    QueueError: 400,
    ValueError: 422,
    OverflowError: 422,  # a number too large for its column
    DataError: 422,
    OperationalError: 503,
    InterfaceError: 503,
    PoolTimeout: 503,
}

ANSWERED: tuple[type[Exception], ...] = (HTTPException, *STATUS)  # exceptions that `answer_to` knows

BUSY_S = 2  # after which a client asks again when the queue is busy or its database does not answer

DATABASE_AWAY = "the queue's database does not answer; try again"

# Errors whose own text a client should not see: (kind, message) instead.
_INSTEAD: dict[type[Exception], tuple[str, str]] = {
    DataError: ("ValueError", "the database cannot store a text or a number in the request"),
    OperationalError: ("DatabaseUnreachable", DATABASE_AWAY),
    InterfaceError: ("DatabaseUnreachable", DATABASE_AWAY),
    PoolTimeout: ("DatabaseUnreachable", DATABASE_AWAY),
}


def add_handlers(app: FastAPI) -> None:
    """Answers every error of the application in JSON."""
    for kind in STATUS:
        app.add_exception_handler(kind, _answer)
    app.add_exception_handler(Exception, _unforeseen)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _answer)


def answer_to(error: Exception) -> Response:
    """The answer to an exception of STATUS or below one of them, and to an HTTPException."""
    if isinstance(error, HTTPException):
        kind = "NotLoggedIn" if error.status_code == 401 else "HTTPException"
        return _error(error.status_code, str(error.detail), kind)
    known = next(kind for kind in type(error).__mro__ if kind in STATUS)
    name, message = _INSTEAD.get(known, (type(error).__name__, str(error)))
    retry_after_s = error.wait_s if isinstance(error, TooManyLogins) else BUSY_S if STATUS[known] == 503 else None
    return _error(STATUS[known], message, name, retry_after_s)


async def _answer(_: Request, error: Exception) -> Response:
    return answer_to(error)


async def _unforeseen(_: Request, error: Exception) -> Response:
    return _error(500, f"the queue failed at this request: {type(error).__name__}", "QueueError")


async def _invalid(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = ".".join(str(part) for part in first.get("loc", ()))
    return _error(422, f"{where}: {first.get('msg', 'malformed')}", "ValueError")


def _error(status: int, message: str, kind: str, retry_after_s: int | None = None) -> JSONResponse:
    line = " ".join(message.split())[:500]
    headers = None if retry_after_s is None else {"Retry-After": str(retry_after_s)}
    return JSONResponse({"error": line, "kind": kind}, status_code=status, headers=headers)
