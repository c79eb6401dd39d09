"""The plan: arithmetic over assumptions, each with its source, and any of them can be changed."""

import dataclasses
import json
import sys
from pathlib import Path

import pytest

from engine.cli import main
from engine.views import plan

RESULTS = Path(__file__).parents[3] / "benchmarks" / "results"


def needs(**changed):
    return {need.name: need.value for need in plan.make(changed).needs}


def test_the_default_is_the_size_of_sa_v():
    found = needs()
    assert found["video"] == pytest.approx(196, rel=0.001)
    assert found["masklets"] == pytest.approx(643_000, rel=0.002)


def test_every_assumption_is_printed_with_its_unit_and_where_it_comes_from():
    stated = plan.make().assumptions
    assert [one.name for one in stated] == [each.name for each in dataclasses.fields(plan.Assumptions)]
    for one in stated:
        assert one.unit and one.source and one.value > 0, one
    kinds = ("measured", "assumed", "counted", plan.SAM2, plan.README, plan.AWS)
    assert [one.name for one in stated if not one.source.startswith(kinds)] == []


def test_hand_computed_needs_of_one_video():
    """One video of 10 s with 2 manual and 4 auto masklets, of which half of the candidates are accepted."""
    found = needs(
        videos=1,
        clip_s=10,
        manual_a_video=2,
        auto_a_video=4,
        accept_share=0.5,
        again_share=0.5,
        select_s=30,
        frame_s=4,
        verdict_s=2,
        people=1,
        hours_a_week=1,
        mask_bytes=100,
        video_gb_h=3.6,
        puts_a_video=7,
    )
    assert (found["candidates"], found["track tickets"], found["verify tickets"]) == (8, 3, 11)
    assert found["tickets"] == 3 + 11 + 2
    hours = (11 * 12 + 3 * 60 * 4 + 2 * 30) / 3600
    assert found["people's hours"] == pytest.approx(hours) and found["weeks"] == pytest.approx(hours)
    masks_gb = (8 + 2 + 4 + 3) * 60 * 100 / 1e9
    assert found["storage"] == pytest.approx(0.01 + masks_gb, abs=1e-5) and found["writes"] == 7


@pytest.mark.parametrize(
    ("changed", "name", "factor"),
    [
        ({"people": 100}, "weeks", 0.5),
        ({"videos": 101_800}, "tickets", 2),
        ({"videos": 101_800}, "people's hours", 2),
        ({"gpu_usd_h": 5}, "money for GPUs", 2),
        ({"person_usd_h": 24}, "money for people", 2),
    ],
)
def test_needs_follow_from_the_assumptions(changed, name, factor):
    assert needs(**changed)[name] == pytest.approx(factor * needs()[name])


def an_objects_share(seconds):
    """What one of 16 objects adds to what the encoder takes."""
    return sum(each for name, each in seconds.items() if name != "encoder") / 16 / seconds["encoder"]


@pytest.mark.parametrize(
    ("name", "file", "path", "of"),
    [
        ("verdict_s", "keystrokes.json", ("acts", "accept", "modelled_s"), float),
        ("object_share", "tracker-cpu.json", ("run", "module_seconds_per_frame", "exact"), an_objects_share),
        ("ingest_core_h", "ingest.json", ("core_hours", "sav_size"), float),
        ("manifest_bytes", "scale.json", ("manifest_bytes_per_video",), float),
    ],
)
def test_a_measured_part_is_the_last_result_of_its_benchmark(name, file, path, of):
    (stated,) = [one for one in plan.make().assumptions if one.name == name]
    assert stated.source.startswith(f"measured, benchmarks/results/{file}: ")
    found = json.loads((RESULTS / file).read_text())
    for key in path:
        found = found[key]
    assert stated.value == pytest.approx(of(found), rel=0.005)


def test_no_other_part_says_that_it_was_measured_by_a_benchmark():
    measured = [one.name for one in plan.make().assumptions if one.source.startswith("measured, benchmarks/")]
    assert measured == ["verdict_s", "object_share", "ingest_core_h", "manifest_bytes"]


def test_a_changed_part_is_yours():
    assumed, stated = plan.read({"verdict_s": 3.0})
    assert assumed.verdict_s == 3.0 and [one.source for one in stated if one.name == "verdict_s"] == ["yours"]


def test_an_unknown_name_and_a_value_of_nothing_are_refused():
    with pytest.raises(ValueError, match="there is no assumption 'gpus'; they are videos, "):
        plan.make({"gpus": 3})
    for value in (0, -1, float("nan")):
        with pytest.raises(ValueError, match="accept_share must be a number above 0"):
            plan.make({"accept_share": value})


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("videos", float("inf"), "videos must be a number above 0, not inf"),
        ("accept_share", 60, "accept_share is a share of 1, not 60"),
        ("reviewed_share", 1.5, "reviewed_share is a share of 1, not 1.5"),
    ],
)
def test_a_number_without_end_and_a_share_above_one_are_refused(name, value, said):
    with pytest.raises(ValueError, match=said):
        plan.make({name: value})
    assert plan.make({"reviewed_share": 1.0}).needs


def run(monkeypatch, capsys, *words):
    monkeypatch.setattr(sys, "argv", ["masklets", "plan", *words])
    with pytest.raises(SystemExit) as ended:
        main.main()
    printed = capsys.readouterr()
    return ended.value.code or 0, printed.out + printed.err


def test_the_command_prints_needs_and_assumptions_and_takes_changes(monkeypatch, capsys):
    code, said = run(monkeypatch, capsys, "--people", "100", "--set", "gpu_usd_h=4")
    assert code == 0 and "with 100 people at 30 hours a week" in said and "gpu_usd_h\t4\tUSD for an hour\tyours" in said
    facts = json.loads(run(monkeypatch, capsys, "--videos", "1000", "--seconds", "20", "--json")[1])
    assert facts["needs"]["video"]["value"] == pytest.approx(1000 * 20 / 3600)
    assert facts["assumptions"]["videos"] == {"value": 1000, "unit": "videos", "from": "yours"}
    assert run(monkeypatch, capsys, "--set", "people")[1] == "masklets: --set takes NAME=NUMBER, not 'people'\n"
