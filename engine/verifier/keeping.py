"""Verifiers in the store: the candidates that each one learned from, and its figures. Files are only created.

    verifiers/judged-<features>/<batch_id>.parquet          the judged candidates of a collected batch
    verifiers/<verifier_id>/examples-<features>.parquet     what the verifier learned from
    verifiers/<verifier_id>/about.json                      its project, the precision that its decisions must prove,
                                                            and PROOF, by which rules
    verifiers/<verifier_id>/figures.json

A verifier is fitted from its examples whenever it is needed, so no file holds code. A table of judged candidates is
made once a batch, so a new verifier reads no mask again. <features> stands for the names of the features: a file that
has others, made by another version of this program, is not read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

from pydantic import TypeAdapter

from engine.stored_json import parse
from engine.verifier import consensus, figures, fitting
from engine.verifier.features import FEATURES
from engine.verifier.figures import VerifierFigures
from engine.verifier.fitting import Verifier
from engine.verifier.judged import Judged, judged_of
from storage import arrow
from storage.blobs.base import BlobMissing, Blobs, read_json
from storage.dataset import increments, parts, releases
from storage.records import content_id

MOST = 20_000  # examples of one verifier, of the newest batches; more cost time and teach little
# Number of the rules of `verdicts.sure_cut` and of the classifier: what earlier ones proved decides nothing any more.
PROOF = 3
_ID = re.compile(r"verifier-\d{4,}-[0-9a-f]{8}")
_FEATURES = content_id(*FEATURES, length=8)


class NoSuchVerifier(Exception):
    """There is no such verifier."""


@dataclass(frozen=True)
class Kept:
    """A verifier of the store: its id and its figures."""

    verifier_id: str
    figures: VerifierFigures


def is_verifier(name: str) -> bool:
    """Whether a decision was made by a verifier of ours, by the name of who decided."""
    return _ID.fullmatch(name) is not None


def ids(blobs: Blobs) -> list[str]:
    """The ids of all verifiers, the newest last."""
    found = {key.split("/")[1] for key in blobs.keys("verifiers/verifier-") if key.endswith("/figures.json")}
    return sorted(found, key=lambda verifier_id: (int(verifier_id.split("-")[1]), verifier_id))


def refit(blobs: Blobs, release: str, precision: float) -> Kept:
    """A verifier that learned from the batches of a release and of earlier ones. The same examples give the same one.

    precision: that its own decisions must prove.
    Raises TooFewVerdicts; PartDamaged.
    """
    examples = consensus.weighed(_examples(blobs, release))
    scores = fitting.out_of_fold(examples)
    measured = figures.measure(examples, scores, precision)
    data = arrow.to_parquet(Judged, examples)
    digest = content_id(data, str(precision), str(PROOF), length=8)
    known = ids(blobs)
    same = next((one for one in known if one.endswith(digest)), None)
    verifier_id = same or f"verifier-{len(known) + 1:04d}-{digest}"
    about = {"project": releases.project_of(release), "precision": precision, "proof": PROOF}
    blobs.create(_examples_key(verifier_id), data)
    blobs.create(_about_key(verifier_id), json.dumps(about).encode())
    blobs.create(f"verifiers/{verifier_id}/figures.json", json.dumps(asdict(measured), indent=1).encode())
    return Kept(verifier_id, measured)


def newest(blobs: Blobs, project: str, precision: float) -> str | None:
    """The newest verifier that learned from a project's verdicts and was measured for this precision; None: no such.

    Those of earlier versions, which were proved by other rules, do not count: the next round fits a new one.
    What holds for the people and candidates of one project says nothing about those of another one.
    """
    for verifier_id in reversed(ids(blobs)):
        try:
            about = read_json(blobs, _about_key(verifier_id))
        except BlobMissing:  # an earlier version made it, which did not note this
            continue
        if about == {"project": project, "precision": precision, "proof": PROOF}:
            return verifier_id
    return None


def find(blobs: Blobs, verifier_id: str) -> Kept:
    """A verifier's figures. Raises NoSuchVerifier, BlobDamaged."""
    key = f"verifiers/{verifier_id}/figures.json"
    if not is_verifier(verifier_id):
        raise NoSuchVerifier(f"no such verifier: {verifier_id!r}")
    try:
        return Kept(verifier_id, parse(TypeAdapter(VerifierFigures), read_json(blobs, key), key))
    except BlobMissing as error:
        raise NoSuchVerifier(f"no such verifier: {verifier_id}") from error


def load(blobs: Blobs, verifier_id: str) -> Verifier:
    """The verifier, fitted again from its examples. Raises NoSuchVerifier if another version of this program made it.

    Fitted by this version, it would decide by cuts that were proved for another classifier.
    """
    try:
        is_ours = read_json(blobs, _about_key(verifier_id)).get("proof") == PROOF
        data = blobs.read(_examples_key(verifier_id)) if is_ours else b""
    except BlobMissing:
        is_ours = False
    if not is_ours:
        raise NoSuchVerifier(f"{verifier_id}: another version of this program made it, with other rules or features")
    return fitting.fit(arrow.from_parquet(Judged, data))


def _about_key(verifier_id: str) -> str:
    return f"verifiers/{verifier_id}/about.json"


def _examples_key(verifier_id: str) -> str:
    return f"verifiers/{verifier_id}/examples-{_FEATURES}.parquet"


def _examples(blobs: Blobs, release: str) -> list[Judged]:
    """The judged candidates of the newest batches up to a release, at most MOST."""
    found: list[Judged] = []
    for batch_id in _batches(releases.names(blobs, releases.project_of(release)), release):
        found += judged_of_batch(blobs, batch_id)
        if len(found) >= MOST:
            break
    return found[:MOST]


def _batches(names: Sequence[str], release: str) -> Iterator[str]:
    """The batches and increments whose releases are not newer than this one, the newest first."""
    for name in reversed(names):
        if releases.place(name) <= releases.place(release):
            yield increments.named_in(name)


def judged_of_batch(blobs: Blobs, batch_id: str) -> list[Judged]:
    """The judged candidates of a collected batch, without its earlier increments, or of one of its increments.

    The first call measures them and keeps the table.
    """
    key = f"verifiers/judged-{_FEATURES}/{batch_id}.parquet"
    try:
        return arrow.from_parquet(Judged, blobs.read(key))
    except BlobMissing:
        of, has = increments.batch_of(batch_id), increments.holder(blobs, batch_id)
        acts = [act for act in parts.rows(blobs, "operations", of) if has(act.video_id)]
        found = judged_of((row for row in parts.rows(blobs, "candidates", of) if has(row.video_id)), acts)
        blobs.create(key, arrow.to_parquet(Judged, found))
        return found
