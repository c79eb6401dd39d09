"""Commands that run or check the machine: demo, up, serve, doctor."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from engine.cli import console, people
from engine.cli.console import Json
from engine.settings import Settings
from storage.wording import counted


def demo(
    folder: Annotated[Path, typer.Option(help="Where everything goes; an earlier demo in it is removed.")] = Path(
        "masklets-demo"
    ),
    domain: Annotated[str, typer.Option(help="The kind of synthetic video: cells, belt or pond.")] = "cells",
    seed: Annotated[int, typer.Option(min=0, help="Of the clips and of the round.")] = 1,
    as_json: Json = False,
) -> None:
    """The loop, twice, on synthetic clips with simulated annotators and a retraining round between; offline."""
    from engine.demo import summary
    from engine.demo.demo import run_demo
    from engine.synthetic.domains.catalogue import DOMAINS

    if domain not in DOMAINS:
        raise ValueError(f"the domains are {', '.join(DOMAINS)}, not {domain!r}")
    begun = time.monotonic()
    with console.terminable(), console.err.status("starting") as status:

        def tell(line: str) -> None:
            status.update(Text(line))
            stamp = (f"{time.monotonic() - begun:6.1f} s", "dim")
            console.err.print(Text.assemble(stamp, f"  {line}"))

        result = run_demo(folder, tell, domain=domain, seed=seed)
    if as_json:
        console.print_json(dataclasses.asdict(result.summary) | {"report": str(result.report)})
        return
    title = f"The whole loop in {time.monotonic() - begun:.0f} s"
    head, *rows = summary.table(result.summary)
    console.print_rows(head, rows, title=title)
    console.print_rows((), summary.lines(result.summary))
    console.out.print(f"report: {result.report.absolute()}")
    console.out.print(f"SA-V JSON: {counted(len(result.sav), 'file')} in {(folder / 'sa-v').absolute()}")


def up() -> None:
    """Everything on one machine: Airflow with its page, the queue with its page; Ctrl-C stops it all."""
    from engine import logs
    from engine.processes.airflow import Airflow
    from engine.processes.children import stay
    from engine.processes.ports import free_port
    from engine.services import connect
    from engine.serving.queue_process import QueueProcess

    settings = Settings()
    logs.set_up(settings.logs)
    with connect(settings) as s:
        s.ontologies()  # a mistake in it is said now, not in the log of another process
    port = settings.airflow.port or free_port()  # chosen here: the queue must know it before Airflow starts
    airflow = Airflow(
        settings.airflow_home,
        host=settings.airflow.host,
        port=port,
        parallelism=settings.airflow.parallelism,
        gpu_slots=settings.airflow.gpu_slots,
        environment=settings.environment(),
        tell=console.print_dim,
    )
    here = settings.airflow.model_copy(update={"url": airflow.url, "password": None})
    with_airflow = settings.model_copy(update={"airflow": here})
    with console.terminable(), QueueProcess(with_airflow, tell=console.print_dim) as queue, airflow:
        with connect(settings) as s:
            login = people.first_login(s)
        sources = [settings.of_project(name).ingest.source for name in settings.project_names]
        source = ", ".join(filter(None, sources)) or "nowhere yet: set MASKLETS_INGEST__SOURCE"
        for line in (
            f"Airflow       {airflow.url}  as admin with {airflow.password}",
            f"review queue  {settings.queue_url}  as {login}",
            f"videos from   {source}",
        ):
            console.out.print(line)
        stay(airflow.check, queue.check)


def serve(
    deliver: Annotated[bool, typer.Option(hidden=True)] = True,
    with_parent: Annotated[bool, typer.Option("--with-parent", hidden=True)] = False,
) -> None:
    """The queue and its page alone."""
    from engine.serving import serve

    serve.serve(Settings(), deliver=deliver, with_parent=with_parent)


def doctor(as_json: Json = False) -> None:
    """Check that this machine can do the work: source, store, catalog, queue, Airflow, checkpoint, video codecs."""
    from engine.cli.doctor import diagnose

    results = diagnose(Settings())
    if as_json:
        console.print_json(results)
    else:
        for result in results:
            mark = ("ok  ", "green") if result.ok else ("FAIL", "red")
            console.out.print(Text.assemble(mark, f" {result.name}: {result.detail}"))
    if not all(result.ok for result in results):
        raise typer.Exit(1)
