"""Commands about gold tickets: `masklets gold ...`."""

from __future__ import annotations

from typing import Annotated

import typer

from engine.cli import console
from engine.cli.console import Json
from storage.wording import counted

app = typer.Typer(no_args_is_help=True, help="Tickets with a known answer, mixed into people's work.")


@app.command("add")
def add(batch: Annotated[str, typer.Argument(help="As `masklets stats` shows it.")]) -> None:
    """Make gold tickets from the decisions about a batch: candidates accepted unchanged, and corrected ones."""
    from annotation_queue.people.accounts import OPERATOR
    from annotation_queue.records import Person
    from annotation_queue.tickets.ontologies import Ontologies
    from engine.rounds.campaign import phase_of_batch
    from engine.services import connect
    from engine.stages.gold import gold_tickets

    with connect() as s:
        tickets, _ = s.open_queue()
        for ontology in s.ontologies():
            Ontologies(tickets.database, tickets.clock).add(ontology)
        found = gold_tickets(s, tickets.batch_result(batch), phase_of_batch(s, batch))
        added = tickets.add_gold(batch, found, by=Person(name=OPERATOR, roles=frozenset()))
    console.out.print(
        f"{counted(added, 'new gold ticket')} from batch {batch}, of {counted(len(found), 'possible one')}"
    )


@app.command("list")
def list_gold(as_json: Json = False) -> None:
    """Every gold ticket, and how often people answered it right."""
    from engine.services import connect

    with connect() as s:
        every = s.open_queue()[0].gold()
    if as_json:
        console.print_json({"gold": every})
        return
    for gold in every:
        answer = gold.expected or "a masklet"
        right = f"{gold.right} of {gold.done} right"
        console.out.print(f"{gold.gold_id}  batch {gold.batch_id}  {gold.kind}: {answer}; {right}")
