"""The Great Expectations suite: right rows pass, each rule catches its own, and the docs are written."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from validation import table_checks


def test_valid_rows_pass_and_write_their_docs(masklet, video, tmp_path, capfd):
    rows = table_checks.frames([masklet(), masklet(masklet_id="m2")], [video()])
    capfd.readouterr()
    report = table_checks.check_tables(rows, tmp_path / "docs", run_name="b1")
    assert report.success, report.failures
    assert report.failures == ()
    assert len(report.results) == sum(len(rules) for rules in table_checks.RULES.values())
    assert report.docs_index == tmp_path / "docs" / "index.html"
    pages = [path.read_text() for path in (tmp_path / "docs").rglob("*.html")]
    assert any("masklet_id" in page for page in pages)
    assert any("validations/masklets/b1" in path.as_posix() for path in (tmp_path / "docs").rglob("*.html"))
    assert capfd.readouterr() == ("", "")


def test_the_table_rows_have_no_masks(masklet, video):
    rows = table_checks.frames([masklet()], [video()])
    assert not {"rle", "frame_idx", "area_px"} & set(rows["masklets"].columns)


SPOILT: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({"masklet_id": "m1"}, {}, "ExpectColumnValuesToBeUnique(column=masklet_id)"),
    ({"video_id": "v99"}, {}, "column=video_known"),
    ({"kind": "robot"}, {}, "column=kind"),
    ({"phase": "4"}, {}, "column=phase"),
    ({"round": -1}, {}, "column=round"),
    ({"area_px": (0, 0, 0)}, {}, "column=frames_seen"),
    ({"area_px": (0, 900, 0)}, {}, "column=area_share"),
    ({"score": (0.9, 1.2, 0.9)}, {}, "column=score_max"),
    ({"stability": (0.9, -0.1, 0.9)}, {}, "column=stability_min"),
    ({"edited_frame_count": 4}, {}, "column_B=edited_frame_count"),
    ({}, {"video_sha256": "short"}, "column=video_sha256"),
    ({}, {"rotation": 45}, "column=rotation"),
    ({}, {"duration_s": 0.6}, "column=rate_error"),
]


def test_each_rule_catches_its_own(masklet, video):
    """All at once: setting Great Expectations up costs more than checking."""
    for of_masklet, of_video, rule in SPOILT[:2] + SPOILT[-1:]:
        rows = table_checks.frames(
            [masklet(), masklet(**{"masklet_id": "m2", **of_masklet})],
            [video(), video(**{"video_id": "v2", **of_video})],
        )
        report = table_checks.check_tables(rows)
        assert not report.success
        broken = [r.rule for r in report.results if not r.success]
        assert any(rule in found for found in broken), (rule, broken)
    spoilt = [masklet(**{"masklet_id": f"s{n}", **of_masklet}) for n, (of_masklet, _, _) in enumerate(SPOILT)]
    videos = [video(**{"video_id": f"v{n + 2}", **of_video}) for n, (_, of_video, _) in enumerate(SPOILT)]
    report = table_checks.check_tables(table_checks.frames([masklet(), *spoilt], [video(), *videos]))
    broken = [r.rule for r in report.results if not r.success]
    for _, _, rule in SPOILT:
        assert any(rule in found for found in broken), (rule, broken)
    assert len(report.failures) == len(broken) and not report.unchecked
    assert set(report.broken("masklets")) == {0, *(n + 1 for n, (changed, _, _) in enumerate(SPOILT) if changed)}
    assert set(report.broken("videos")) == {n + 1 for n, (_, changed, _) in enumerate(SPOILT) if changed}
    assert all("\n" not in line for line in report.failures)


def test_tables_without_rows_pass(video):
    report = table_checks.check_tables(table_checks.frames([], [video()]))
    assert report.success
    assert {r.table for r in report.results} == {"videos"}
    assert table_checks.check_tables({"masklets": pd.DataFrame()}) == table_checks.Report(
        success=True, results=(), docs_index=None
    )


def test_a_missing_column_fails_the_checks(masklet, video):
    rows = table_checks.frames([masklet()], [video()])
    rows["masklets"] = rows["masklets"].drop(columns=["kind"])
    report = table_checks.check_tables(rows)
    assert [line for line in report.failures if "column=kind" in line and "could not be checked" in line]
    assert len(report.unchecked) == 1 and not report.broken("masklets")


def test_an_unknown_table_is_a_value_error():
    with pytest.raises(ValueError, match="not nothing"):
        table_checks.check_tables({"nothing": pd.DataFrame()})
