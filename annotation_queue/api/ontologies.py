"""Ontologies: the pipeline sends one before the tickets under it; people's pages read it, with its pictures."""

from __future__ import annotations

import base64
from dataclasses import dataclass, replace

from fastapi import APIRouter, HTTPException, Response

from annotation_queue.api.asking import Id, Pipeline, Somebody
from annotation_queue.api.backend import Queue
from annotation_queue.api.sent import Sent
from annotation_queue.api.videos import CACHE
from storage.ontology import Ontology, Picture

router = APIRouter(tags=["ontologies"])


@dataclass(frozen=True, kw_only=True)
class Kept:
    """The version under which the queue keeps an ontology."""

    version: str


@router.put("/api/ontologies")
def add_ontology(body: Sent[Ontology], _: Pipeline, queue: Queue) -> Kept:
    """Keeps an ontology. The same one again changes nothing."""
    return Kept(version=queue.ontologies.add(body))


@router.get("/api/ontologies/{version}")
def ontology(version: Id, who: Somebody, queue: Queue, response: Response) -> Ontology:
    """An ontology that tickets of this person's projects name; its pictures without their bytes."""
    found = queue.ontologies.get(version, seen_by=who)
    response.headers.update(CACHE)
    named = {name: Picture(media_type=picture.media_type, base64="") for name, picture in found.pictures.items()}
    return replace(found, pictures=named)


@router.get("/api/ontologies/{version}/pictures/{name:path}", response_class=Response)
def picture(version: Id, name: str, who: Somebody, queue: Queue) -> Response:
    """A picture of the guidelines of such an ontology."""
    found = queue.ontologies.get(version, seen_by=who).pictures.get(name)
    if found is None:
        raise HTTPException(404, "the guidelines have no such picture")
    return Response(base64.b64decode(found.base64), media_type=found.media_type, headers=CACHE)
