"""The report of an experiment: its tables and figures as one HTML page, and its results as JSON.

FOLDER/report.html
FOLDER/results.json           figures for `benchmarks.rounds`, and the results of every step
FOLDER/DOMAIN-rounds.png      what three rounds changed; DOMAIN-labels.png: what a label buys
"""

from __future__ import annotations

import base64
import html
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from engine import html_page, pictures
from engine.experiments import tables
from engine.experiments.steps import Experiment, Failure, Result, Step, write_json
from engine.experiments.tables import Steps, Table
from engine.pictures import Panel
from engine.synthetic.domains.catalogue import DOMAINS
from storage.wording import counted

RESULTS = "results.json"
LONG = 40  # characters: a cell with more is a sentence


def write(folder: Path, experiments: Sequence[Experiment], steps: Sequence[Step], failures: Sequence[Failure]) -> Path:
    """Writes the report of the steps that are finished; returns the page."""
    found = {each.domain: each.results([step.name for step in steps]) for each in experiments}
    results = {
        "machine": machine(),
        "plan": asdict(experiments[0].plan),
        "missing": {domain: [step.name for step in steps if step.name not in done] for domain, done in found.items()},
        "domains": {domain: _summary(done) for domain, done in found.items()},
    }
    write_json(folder / RESULTS, results)
    sections = []
    for domain, done in found.items():
        sections.append(f"<h2>{html.escape(domain)}</h2><p>{html.escape(DOMAINS[domain].about)}.</p>")
        sections.append(_figures(folder, domain, done))
        sections += [_table(table) for table in tables.tables(done)]
    lines = [f"{failure.domain}: {failure.step} failed: {failure.reason}" for failure in failures]
    problems = "".join(f"<p class=problem>{html.escape(line)}</p>" for line in lines)
    body = _BODY.format(problems=problems, sections="\n".join(sections), facts=_facts(experiments, found))
    page = folder / "report.html"
    page.write_text(html_page.page("The phases of the data engine", body, style=_STYLE))
    return page


def machine() -> str:
    """The processor of this machine, and how many cores this process may use."""
    name = platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), name)
    except OSError:
        pass  # not Linux
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{counted(cores or 1, 'core')} of {name}"


def _summary(done: Steps) -> Result:
    """The results of a domain without those of single masklets."""
    steps = {name: {key: _without_each(value) for key, value in of.items()} for name, of in done.items()}
    return tables.headline(done) | {"cpu_minutes": _minutes(done), "steps": steps}


def _without_each(value: object) -> object:
    return {key: of for key, of in value.items() if key != "each"} if isinstance(value, dict) else value


def _minutes(done: Steps) -> float:
    return round(sum(float(of.get("cpu_seconds", 0.0)) for of in done.values()) / 60, 1)


def _facts(experiments: Sequence[Experiment], found: Mapping[str, Steps]) -> str:
    spent = ", ".join(f"{domain} {_minutes(done):.0f} CPU minutes" for domain, done in found.items())
    plan = ", ".join(f"{name} {value}" for name, value in asdict(experiments[0].plan).items())
    return html.escape(f"{machine()}; {spent}. Plan: {plan}")


def _figures(folder: Path, domain: str, done: Steps) -> str:
    """The figures of a domain, written beside the page and shown in it."""
    start = done.get("before", {})
    both = {"held-out clips of the domain": "domain", "general set": "general"}
    drawn: dict[str, list[Panel]] = {}
    if rounds := [done[name] for name in tables.ROUNDS if name in done]:
        batches = [f"batch {n + 1}" for n in range(len(rounds))]
        ends = ["before", *(f"round {n + 1}" for n in range(len(rounds)))]
        work = {
            "Candidates accepted as they were, %": "accepted",
            "Edited frames a masklet": "edited_frames_a_masklet",
            "Clicks a masklet": "clicks_a_masklet",
        }
        learned = {name: [of.get(key, {}) for of in (start, *rounds)] for name, key in both.items()}
        drawn["rounds"] = [
            Panel("J&F after each round", learned, ends),
            *(Panel(title, {title: [of.get(key, {}) for of in rounds]}, batches) for title, key in work.items()),
        ]
    if curve := tables.of_labels(done):
        series = {name: [of.get(key, {}) for of in (start, *curve)] for name, key in both.items()}
        counts = ["0", *(str(of["labels"]) for of in curve)]
        drawn["labels"] = [Panel("What a label buys: J&F", series, counts, "masklets trained on")]
    shown = []
    for name, panels in drawn.items():
        content = pictures.draw_intervals(panels, folder / f"{domain}-{name}.png").read_bytes()
        encoded = base64.b64encode(content).decode()
        shown.append(f'<img alt="{html.escape(domain)}: {name}" src="data:image/png;base64,{encoded}">')
    return f'<div class="figures">{"".join(shown)}</div>'


def _table(table: Table) -> str:
    head, *body = table.rows
    return (
        f"<h3>{html.escape(table.title)}</h3><p>{html.escape(table.note)}</p>"
        f'<div class="wide"><table><thead>{_row(head, "th")}</thead>'
        f"<tbody>{''.join(_row(row, 'td') for row in body)}</tbody></table></div>"
    )


def _row(cells: Sequence[str], tag: str) -> str:
    """The cells of a row. Only sentences are broken into lines."""
    label, *others = cells
    body = "".join(f"<{tag}{' class=long' if len(cell) > LONG else ''}>{html.escape(cell)}</{tag}>" for cell in others)
    return f"<tr><th>{html.escape(label)}</th>{body}</tr>"


_STYLE = """body { max-width: 1200px; }
h2 { font-size: 1.3rem; }
h3 { font-size: 1.05rem; margin: 2rem 0 .3rem; } p { margin: .3rem 0 .6rem; max-width: 75ch; }
table { font-variant-numeric: tabular-nums; }
th, td { padding: .3rem 1.4rem .3rem 0; vertical-align: top; white-space: nowrap; }
.long { white-space: normal; min-width: 24ch; max-width: 50ch; }
tbody th { font-weight: 400; } thead th { font-weight: 600; }
.figures { display: grid; gap: 1rem; margin: 1rem 0; }
img { max-height: 360px; }
.problem { color: #b3261e; }
"""

_BODY = """<h1>The phases of the data engine, in miniature</h1>
<p>The experiments of the SAM 2 paper (Ravi et al. 2024) on synthetic clips, with simulated annotators at a real review
queue. The paper's figures stand beside ours; they are of real videos and a far larger model, so only their shape can be
compared. J&amp;F is in points; brackets hold 95 % intervals over videos.</p>
{problems}
{sections}
<footer>{facts}</footer>"""
