"""Pseudonyms: a release names nobody. What people annotated and verified carries `person-` and a keyed hash instead.

    people.key      32 random bytes in the store, made once; not part of any release

Without the key, a guessed name cannot be checked against a pseudonym. With it, one person has one pseudonym in all
releases of a store. The queue and the table `operations`, which are not released, keep the names.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable

from engine.verifier.keeping import is_verifier
from storage.blobs.base import BlobMissing, Blobs

KEY = "people.key"
BEGIN = "person-"


def of(blobs: Blobs) -> Callable[[str], str]:
    """The pseudonym of a name. A verifier is no person: its id stays."""
    try:
        key = blobs.read(KEY)
    except BlobMissing:
        blobs.create(KEY, secrets.token_bytes(32))
        key = blobs.read(KEY)  # of the process that was first

    def pseudonym(name: str) -> str:
        if is_verifier(name):
            return name
        return f"{BEGIN}{hmac.new(key, name.encode(), hashlib.sha256).hexdigest()[:12]}"

    return pseudonym
