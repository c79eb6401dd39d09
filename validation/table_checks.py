"""Checks of whole tables by Great Expectations, with its Data Docs: does this batch look like a batch?

Knows rows without their masks (`frames` removes them) and the rules below; `masklet_checks` checks the masks. Importing
Great Expectations takes seconds, so it happens in `_context`. It sends no data: its analytics are switched off.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from storage.masklet_rules import TERMS
from storage.records import FPS, STRIDE, Masklet, Video
from storage.wording import counted

if TYPE_CHECKING:
    from great_expectations.data_context.data_context.ephemeral_data_context import EphemeralDataContext

#: table -> (expectation, its arguments). The columns are those of `frames`.
RULES: dict[str, tuple[tuple[str, dict[str, Any]], ...]] = {
    "masklets": (
        ("ExpectColumnValuesToBeUnique", {"column": "masklet_id"}),
        ("ExpectColumnValuesToNotBeNull", {"column": "video_id"}),
        ("ExpectColumnValuesToBeInSet", {"column": "video_known", "value_set": [True]}),
        ("ExpectColumnValuesToBeInSet", {"column": "kind", "value_set": list(TERMS["kind"])}),
        ("ExpectColumnValuesToBeInSet", {"column": "phase", "value_set": list(TERMS["phase"])}),
        ("ExpectColumnValuesToBeInSet", {"column": "split", "value_set": list(TERMS["split"])}),
        ("ExpectColumnValuesToNotBeNull", {"column": "checkpoint"}),
        ("ExpectColumnValuesToBeBetween", {"column": "round", "min_value": 0}),
        ("ExpectColumnValuesToBeBetween", {"column": "frames", "min_value": 1}),
        ("ExpectColumnValuesToBeBetween", {"column": "frames_seen", "min_value": 1}),
        ("ExpectColumnValuesToBeBetween", {"column": "area_share", "min_value": 0, "max_value": 1, "strict_min": True}),
        ("ExpectColumnValuesToBeBetween", {"column": "score_min", "min_value": 0}),
        ("ExpectColumnValuesToBeBetween", {"column": "score_max", "max_value": 1}),
        ("ExpectColumnValuesToBeBetween", {"column": "stability_min", "min_value": 0}),
        ("ExpectColumnValuesToBeBetween", {"column": "stability_max", "max_value": 1}),
        (
            "ExpectColumnPairValuesAToBeGreaterThanB",
            {"column_A": "frames", "column_B": "edited_frame_count", "or_equal": True},
        ),
    ),
    "videos": (
        ("ExpectColumnValuesToBeUnique", {"column": "video_id"}),
        ("ExpectColumnValuesToBeUnique", {"column": "video_key"}),
        ("ExpectColumnValuesToMatchRegex", {"column": "video_sha256", "regex": "^[0-9a-f]{64}$"}),
        ("ExpectColumnValuesToBeBetween", {"column": "height", "min_value": 2, "max_value": 8192}),
        ("ExpectColumnValuesToBeBetween", {"column": "width", "min_value": 2, "max_value": 8192}),
        ("ExpectColumnValuesToBeBetween", {"column": "frame_count", "min_value": 2}),
        ("ExpectColumnValuesToBeBetween", {"column": "rate_error", "max_value": 0.01}),
        ("ExpectColumnValuesToBeInSet", {"column": "rotation", "value_set": [0, 90, 180, 270]}),
        ("ExpectColumnValuesToBeInSet", {"column": "split", "value_set": list(TERMS["split"])}),
    ),
}


@dataclass(frozen=True, kw_only=True)
class RuleResult:
    """The result of one rule for one table."""

    table: str
    rule: str  # "ExpectColumnValuesToBeUnique(column=masklet_id)"
    success: bool
    rows: tuple[int, ...]  # the rows that break the rule, by their place in the table
    examples: tuple[str, ...]  # some of their values


@dataclass(frozen=True, kw_only=True)
class Report:
    """The results of all rules."""

    success: bool
    results: tuple[RuleResult, ...]
    docs_index: Path | None  # the first page of the Data Docs

    @property
    def failures(self) -> tuple[str, ...]:
        """One line for every broken rule."""
        return tuple(
            f"{r.table}: {r.rule} is broken by {counted(len(r.rows), 'row')}, as {', '.join(r.examples)}"
            if r.rows
            else f"{r.table}: {r.rule} could not be checked"
            for r in self.results
            if not r.success
        )

    @property
    def unchecked(self) -> tuple[str, ...]:
        """The rules that could not be checked: nobody knows which rows break them."""
        return tuple(r.rule for r in self.results if not r.success and not r.rows)

    def broken(self, table: str) -> dict[int, str]:
        """The rows of a table that break a rule, by their place, each with the first rule that it breaks."""
        found: dict[int, str] = {}
        for result in self.results:
            if result.table == table and not result.success:
                for row in result.rows:
                    found.setdefault(row, result.rule)
        return found


def frames(masklets: Sequence[Masklet], videos: Sequence[Video]) -> dict[str, pd.DataFrame]:
    """The tables for the rules: one row for each masklet, without its masks, and one row for each video."""
    known = {video.video_id for video in videos}
    masklet_rows = [
        {
            "masklet_id": m.masklet_id,
            "video_id": m.video_id,
            "video_known": m.video_id in known,
            "batch_id": m.batch_id,
            "kind": m.kind,
            "phase": m.phase,
            "round": m.round,
            "checkpoint": m.checkpoint,
            "verdict": m.verdict,
            "split": m.split,
            "edited_frame_count": m.edited_frame_count,
            "click_count": m.click_count,
            "frames": len(m.frame_idx),
            "frames_seen": sum(area > 0 for area in m.area_px),
            "area_share": max(m.area_px, default=0) / max(1, m.height * m.width),
            "score_min": min(m.score, default=0.0),
            "score_max": max(m.score, default=0.0),
            "stability_min": min(m.stability, default=0.0),
            "stability_max": max(m.stability, default=0.0),
        }
        for m in masklets
    ]
    video_rows = [
        {
            "video_id": v.video_id,
            "video_key": v.video_key,
            "video_sha256": v.video_sha256,
            "height": v.height,
            "width": v.width,
            "frame_count": v.frame_count,
            "duration_s": v.duration_s,
            "rate_error": abs(v.frame_count / FPS - v.duration_s),
            "annotated_frames": -(-v.frame_count // STRIDE),
            "rotation": v.rotation,
            "split": v.split,
        }
        for v in videos
    ]
    return {"masklets": pd.DataFrame(masklet_rows), "videos": pd.DataFrame(video_rows)}


def check_tables(
    frames: Mapping[str, pd.DataFrame], docs_dir: Path | None = None, *, run_name: str = "checks"
) -> Report:
    """Check tables against their rules; a table without rows passes.

    frames: keys of RULES -> rows, as `frames()` makes them. docs_dir: the folder for the Data Docs, or None.
    run_name: the batch id, for the docs. Raises ValueError for an unknown table.
    """
    if unknown := set(frames) - set(RULES):
        raise ValueError(f"the tables are {', '.join(RULES)}, not {', '.join(sorted(unknown))}")
    context = _context(docs_dir)
    import great_expectations as gx
    import great_expectations.expectations as gxe
    from great_expectations.core.run_identifier import RunIdentifier

    source = context.data_sources.add_pandas("batch")
    results: list[RuleResult] = []
    for table, rows in frames.items():
        if rows.empty:
            continue
        expectations = [getattr(gxe, name)(**arguments) for name, arguments in RULES[table]]
        definition = context.validation_definitions.add(
            gx.ValidationDefinition(
                name=table,
                data=source.add_dataframe_asset(table).add_batch_definition_whole_dataframe("all"),
                suite=context.suites.add(gx.ExpectationSuite(name=table, expectations=expectations)),
            )
        )
        outcome = definition.run(
            batch_parameters={"dataframe": rows}, run_id=RunIdentifier(run_name=run_name), result_format="COMPLETE"
        )
        results += [_result(table, found) for found in outcome.results]
    index: Path | None = None
    if docs_dir is not None:
        context.build_data_docs(site_names=["docs"])
        index = docs_dir / "index.html"
    return Report(success=all(r.success for r in results), results=tuple(results), docs_index=index)


def _context(docs_dir: Path | None) -> EphemeralDataContext:
    """Great Expectations without files of its own, apart from the Data Docs in `docs_dir`."""
    logging.getLogger("great_expectations").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"module 'sre_\w+' is deprecated", DeprecationWarning)  # its own import
        import great_expectations as gx
        from great_expectations.data_context.types.base import (
            DataContextConfig,
            InMemoryStoreBackendDefaults,
            ProgressBarsConfig,
        )

    context = gx.get_context(
        mode="ephemeral",
        project_config=DataContextConfig(
            store_backend_defaults=InMemoryStoreBackendDefaults(),
            progress_bars=ProgressBarsConfig(globally=False),
            analytics_enabled=False,
        ),
    )
    if docs_dir is not None:
        docs_dir.mkdir(parents=True, exist_ok=True)
        context.add_data_docs_site(
            site_name="docs",
            site_config={  # type: ignore[typeddict-unknown-key]  # SiteBuilder takes more than the type says
                "class_name": "SiteBuilder",
                "site_index_builder": {"class_name": "DefaultSiteIndexBuilder", "view": _view("IndexPage")},
                "site_section_builders": {name: {"view": _view("Page")} for name in ("expectations", "validations")},
                "store_backend": {
                    "class_name": "TupleFilesystemStoreBackend",
                    "base_directory": str(docs_dir.absolute()),
                },
            },
        )
    return context


def _view(name: str) -> dict[str, str]:
    return {"module_name": "validation.docs_views", "class_name": name}


def _result(table: str, found: Any) -> RuleResult:
    config = found.expectation_config
    name = "".join(word.capitalize() for word in config.type.split("_"))
    arguments = {key: value for key, value in config.kwargs.items() if key != "batch_id"}
    return RuleResult(
        table=table,
        rule=f"{name}({', '.join(f'{key}={value}' for key, value in arguments.items())})",
        success=bool(found.success),
        rows=tuple(found.result.get("unexpected_index_list") or ()),
        examples=tuple(str(value) for value in found.result.get("partial_unexpected_list", [])[:3]),
    )
