"""How large the body of a request may be, route by route, and who may send a large one. Checked before it is parsed.

Parsing holds Python's interpreter lock, so it would stop everybody's requests, in whichever thread it ran. Therefore a
body is limited in bytes and in JSON values: a list takes 60 times the memory of its two characters. Only a person who
has a use for a large body may send one.
"""

from __future__ import annotations

from fastapi import Request
from starlette.exceptions import HTTPException
from starlette.routing import compile_path

from annotation_queue.api.asking import caller
from annotation_queue.api.backend import Backend
from annotation_queue.errors import NotAllowed
from annotation_queue.rules import OVERSEERS
from storage.wording import counted

KIB, MIB = 1 << 10, 1 << 20

# bytes, for every route that is not in LARGE. The largest such body is a person with many skills, of a few KiB.
SMALL = 64 * KIB

# bytes, by method and path. A smooth mask of 1080p takes 2 to 5 KB as run lengths, a ragged one 33 KB (4K: 130 KB).
LARGE = {
    # 3600 smooth masks, for a video of ten minutes, take 18 MB; 240 ragged ones (40 s) take 8 MB
    ("POST", "/api/tickets/{ticket_id}/finish"): 32 * MIB,
    # the page sends one operation at a time; a program may send all strokes of a video of 40 s at once
    ("POST", "/api/tickets/{ticket_id}/operations"): 16 * MIB,
    # one prompt, which may be a mask
    ("POST", "/api/tickets/{ticket_id}/refine"): 2 * MIB,
    # the client sends masklets of 8 MiB at once, or one larger masklet
    ("PUT", "/api/batches/{batch_id}"): 64 * MIB,
    # two masklets a ticket; clients up to version 0.1 send all tickets at once
    ("POST", "/api/batches/{batch_id}/gold"): 64 * MIB,
    # pictures of 4 MiB (storage.ontology.MAX_PICTURES), as text
    ("PUT", "/api/ontologies"): 8 * MIB,
}

# A body of the largest size may have a comma or an opening bracket every so many bytes. In masklets they are rarer:
# commas stand between frames, and of the characters of run lengths one in 80 is a bracket.
BYTES_A_VALUE = 64

_PATHS = [(method, compile_path(path)[0], limit) for (method, path), limit in LARGE.items()]


class Body:
    """The body of one request, counted while it arrives."""

    def __init__(self, request: Request) -> None:
        """Finds the limit of the request's route."""
        self.limit, self._ticket_id = SMALL, None
        for method, path, limit in _PATHS:
            if request.method == method and (found := path.match(request.url.path)):
                self.limit, self._ticket_id = limit, found.groupdict().get("ticket_id")
        self._request = request
        self._bytes = self._values = 0

    @property
    def may_be_large(self) -> bool:
        """True if the route permits large bodies and this one is larger than SMALL, or its length is unknown."""
        return self.limit > SMALL and self._declared(self.limit) > SMALL

    def check_declared(self) -> None:
        """Raises HTTPException if the request says that its body is too large."""
        self._check(self._declared(0), 0)

    def check_part(self, part: bytes) -> None:
        """Counts a part that has arrived. Raises HTTPException if the body is too large now."""
        self._bytes += len(part)
        self._values += part.count(b",") + part.count(b"[") + part.count(b"{")
        self._check(self._bytes, self._values)

    def check_sender(self, queue: Backend) -> None:
        """Raises NotLoggedIn or NotAllowed unless a large body of this person can have a use here."""
        who = caller(self._request, queue).person
        if self._ticket_id is None:
            if not who.roles & OVERSEERS:
                raise NotAllowed("only leads, admins and the pipeline may send that")
        elif not queue.tickets.has_held(who, self._ticket_id):
            raise NotAllowed(f"{who.name} never held ticket {self._ticket_id}")

    def _declared(self, unknown: int) -> int:
        """The body's length by its header; `unknown` without one."""
        length = self._request.headers.get("content-length", "")
        return int(length[:20]) if length.isdigit() else unknown

    def _check(self, size: int, values: int) -> None:
        if size > self.limit:
            raise HTTPException(413, f"the body is larger than {counted(self.limit, 'byte')}")
        if values > self.limit // BYTES_A_VALUE:
            raise HTTPException(413, f"the body has more than {self.limit // BYTES_A_VALUE} JSON values")
