"""The errors of the queue. Each docstring is the message that people see.

QueueError
├── NoSuchTicket · NoSuchBatch · NoSuchMasklet · NoSuchVideo · NoSuchFrame · NoSuchOntology
├── TooLate              somebody else holds the ticket that followed: the answer cannot be taken back
├── LeaseLost            another person may hold the ticket now; the queue keeps the late work beside it
│   └── TakenBack        a lead or an admin ended the lease
├── NotAllowed           the person's roles, or the ticket's phase, do not permit it
├── BatchSealed          the batch takes no more tickets
├── NotLoggedIn · WrongPassword · TooManyLogins
├── TooBusy              too much such work waits already: try again in a moment
├── LoginRefused · ProviderUnreachable   a login through a provider failed: refused, or no answer
└── QueueUnreachable     (client) no answer within the caller's patience
"""

from __future__ import annotations


class QueueError(Exception):
    """The queue refused."""

    def __init__(self, detail: str = "") -> None:
        super().__init__(detail or (type(self).__doc__ or "").strip())


class NoSuchTicket(QueueError):
    """There is no such ticket."""


class NoSuchBatch(QueueError):
    """There is no such batch."""


class NoSuchOntology(QueueError):
    """There is no such ontology."""


class NoSuchMasklet(QueueError):
    """The ticket has no masklet."""


class NoSuchVideo(QueueError):
    """There is no such video."""


class NoSuchRelease(QueueError):
    """There is no such release."""


class NoSuchFrame(QueueError):
    """The video has no such frame."""


class LeaseLost(QueueError):
    """The lease on this ticket is over. What was sent is kept beside the ticket, and somebody else decides."""


class TakenBack(LeaseLost):
    """A lead took this ticket back. What was sent is kept beside the ticket, and somebody else decides."""


class TooLate(QueueError):
    """Somebody else has already begun the work that followed from this ticket."""


class NotAllowed(QueueError):
    """This person may not do that."""


class BatchSealed(QueueError):
    """The batch is sealed: no ticket can be added to it."""


class NotLoggedIn(QueueError):
    """Log in first."""


class WrongPassword(QueueError):
    """The name or the password is wrong."""


class TooManyLogins(QueueError):
    """Too many failed logins; wait a minute."""

    def __init__(self, detail: str = "", *, wait_s: int = 60) -> None:
        """wait_s: seconds after which the next attempt is admitted."""
        super().__init__(detail or f"Too many failed logins; wait {wait_s} s.")
        self.wait_s = wait_s


class TooBusy(QueueError):
    """Too many people ask for that at once; try again in a few seconds."""


class LoginRefused(QueueError):
    """This login was begun elsewhere or too long ago; begin again."""

    account: str | None = None  # the account that was refused, if there is one


class ProviderUnreachable(QueueError):
    """The provider that people log in with does not answer."""


class QueueUnreachable(QueueError):
    """The queue does not answer."""


# The errors by name, as the API sends them: a client raises the same one again.
_ALL: list[type[QueueError]] = [QueueError, *QueueError.__subclasses__(), TakenBack]
BY_NAME = {error.__name__: error for error in _ALL}
