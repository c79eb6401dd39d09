"""The command `masklets`: its commands in the order of `--help`, each from the file of its family.

A command parses, calls the engine and prints the result. Importing this imports no command's libraries: `--help` must
be quick.
"""

from __future__ import annotations

import typer

from engine.cli import (
    console,
    data,
    experiment,
    gold,
    hub,
    learning,
    looking,
    notices,
    operating,
    people,
    pipeline,
    serving,
    upkeep,
    verifier,
)

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="An open data engine for promptable video segmentation: videos in, verified masklets and better models out.",
)
app.command()(serving.demo)
app.command()(pipeline.run)
app.command()(serving.up)
app.command()(serving.serve)
app.command()(pipeline.ingest)
app.command()(pipeline.propose)
app.command()(pipeline.quarantine)
app.command()(looking.stats)
app.command()(operating.why)
app.command()(operating.publish)
app.command()(operating.plan)
app.command()(pipeline.campaign)
app.command()(notices.notices)
app.command()(looking.browse)
app.command()(looking.show)
app.command()(looking.diff)
app.command()(looking.card)
app.command()(data.validate)
app.command()(data.export)
app.command()(hub.push)
app.command("import-sav")(data.import_sav)
app.command("import-coco")(data.import_coco)
app.command("import-youtube-vis")(data.import_youtube_vis)
app.command("import-cvat")(data.import_cvat)
app.command()(upkeep.compact)
app.command()(upkeep.tag)
app.command()(upkeep.tidy)
app.command()(upkeep.withdraw)
app.command()(operating.backup)
app.command()(operating.restore)
app.command()(upkeep.reproduce)
app.command()(learning.train)
app.command()(learning.evaluate)
app.command()(verifier.verifier)
app.command()(serving.doctor)
app.add_typer(people.app, name="users")
app.add_typer(learning.rounds_app, name="rounds")
app.add_typer(gold.app, name="gold")
app.add_typer(experiment.app, name="experiment")


def main() -> None:
    """The entry point."""
    console.run(app)
