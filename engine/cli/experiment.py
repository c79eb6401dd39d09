"""Commands about experiments: `masklets experiment ...`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from engine.cli import console
from engine.cli.console import Json

app = typer.Typer(no_args_is_help=True, help="The SAM 2 paper's experiments in miniature, with simulated annotators.")


@app.command("phases")
def phases(
    domain: Annotated[str, typer.Option(help="The kind of synthetic video: cells, belt, pond, or all.")] = "cells",
    folder: Annotated[Path, typer.Option(help="Where everything goes; a run that was stopped goes on there.")] = Path(
        "masklets-experiment"
    ),
    quick: Annotated[bool, typer.Option(help="Five minutes, to see that it works; the figures mean nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Phases 1 to 3 on the same clips, rounds in a row, what a label buys, filtering, ordering: tables and a report."""
    from engine.experiments import report, steps, tables
    from engine.experiments.phases import steps_of
    from engine.experiments.plan import FULL, QUICK
    from engine.synthetic.domains.catalogue import DOMAINS

    if domain not in (*DOMAINS, "all"):
        raise ValueError(f"the domains are {', '.join(DOMAINS)} and all, not {domain!r}")
    plan, folder = QUICK if quick else FULL, folder.absolute()
    chosen = [steps.Experiment(folder / name, name, plan) for name in (DOMAINS if domain == "all" else [domain])]
    todo = steps_of(plan)

    def tell(failure: steps.Failure) -> None:
        console.err.print(f"masklets: {failure.domain}: {failure.step} failed: {failure.reason}", style="red")

    with console.terminable(), console.bar("steps") as bar:
        failures = steps.run(chosen, todo, bar, tell)
    page = report.write(folder, chosen, todo, failures)
    if as_json:
        console.print_json({each.domain: tables.headline(each.results([s.name for s in todo])) for each in chosen})
    else:
        for each in chosen:
            for table in tables.tables(each.results([step.name for step in todo])):
                console.print_rows(table.rows[0], table.rows[1:], title=f"{each.domain}: {table.title}")
        console.out.print(f"report: {page}")
    if failures:
        raise typer.Exit(1)
