"""Pseudonyms: in place of a person's name, a release has `person-` or `author-` and a keyed hash.

    people.key      create-only: 32 random bytes; not part of any release

Without the key, a guessed name cannot be checked against a pseudonym. With it, one person has one pseudonym in all
releases of a store. An author of videos who also annotates has two, which do not tell that they are the same person.
The queue and the table `operations`, which are not released, keep the names.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Callable

from engine.verifier.keeping import is_verifier
from storage.blobs.base import BlobMissing, Blobs

KEY = "people.key"
PERSON = "person-"  # begins the pseudonyms of people who annotate and verify
AUTHOR = "author-"  # begins those of people who made a video
_LETTERS = 12  # hexadecimal ones, after the beginning
_AUTHOR = re.compile(rf"{AUTHOR}[0-9a-f]{{{_LETTERS}}}")


def of(blobs: Blobs) -> Callable[[str], str]:
    """What turns the name of a person into a pseudonym. A verifier is no person: its id stays."""
    key = _key(blobs)
    return lambda name: name if is_verifier(name) else _hashed(key, PERSON, name)


def of_author(blobs: Blobs, name: str) -> str:
    """The pseudonym of the author of a video."""
    return _hashed(_key(blobs), AUTHOR, name)


def is_author(name: str) -> bool:
    """Whether this is the pseudonym of an author, of this store or of another one."""
    return _AUTHOR.fullmatch(name) is not None


def _key(blobs: Blobs) -> bytes:
    try:
        return blobs.read(KEY)
    except BlobMissing:
        blobs.create(KEY, secrets.token_bytes(32))
        return blobs.read(KEY)  # of the process that was first


def _hashed(key: bytes, begin: str, name: str) -> str:
    return begin + hmac.new(key, (begin + name).encode(), hashlib.sha256).hexdigest()[:_LETTERS]
