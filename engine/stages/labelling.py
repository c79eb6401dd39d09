"""Which labels the tickets of a batch may get, and when they ask for one: pinned when its review opens.

    batches/<batch_id>/ontology.json    the words for its tickets: version and `label_at`; empty for none
    ontologies/<version>.json           the ontology, with its guidelines and pictures

So a changed file of the project changes no batch that people work on, and a dataset's labels stay explained.
"""

from __future__ import annotations

from engine import batches
from engine.services import Services
from storage import ontology


def rules_of_new_tickets(s: Services, project: str = "") -> dict[str, str]:
    """What the settings of a project say now, as keys of a ticket's payload; empty without an ontology.

    Raises OntologyError, NoSuchProject.
    """
    if (found := s.ontology_of(project)) is None:
        return {}
    return {"ontology": found.version, "label_at": s.settings.of_project(project).review.label_at}


def pinned_rules(s: Services, batch_id: str) -> dict[str, str]:
    """The rules of a batch: those of the settings when this was first asked. The queue gets their ontology.

    Raises OntologyError, NoSuchProject.
    """
    if batches.facts(s.blobs, batch_id, batches.ONTOLOGY) is None:
        project = batches.project_of(s.blobs, batch_id)
        rules = rules_of_new_tickets(s, project)
        if (found := s.ontology_of(project)) is not None:
            s.blobs.create(_key(found.version), found.to_json().encode())
        batches.mark(s.blobs, batch_id, batches.ONTOLOGY, rules)
    rules = {key: str(value) for key, value in (batches.facts(s.blobs, batch_id, batches.ONTOLOGY) or {}).items()}
    if rules:
        s.queue.add_ontology(ontology.from_json(s.blobs.read(_key(rules["ontology"]))))
    return rules


def _key(version: str) -> str:
    return f"ontologies/{version}.json"
