"""The command `rounds`, and how tables are printed."""

import io
import json

import pytest
from rich.console import Console

from engine.cli import console
from engine.rounds import retraining, starting
from storage.records import Quarantined
from tests.engine.true_releases import measured


def test_a_round_that_nobody_trains_is_listed_as_stopped_with_its_whole_id(s, true_release, command):
    round_id = starting.start(s, true_release.name)
    (header, line) = command("rounds").splitlines()
    assert header.startswith("round\trelease\tfrom")
    cells = line.split("\t")
    assert cells[:2] == [round_id, true_release.name] and cells[-1] == "stopped, run again to continue"
    (fact,) = json.loads(command("rounds", "--json"))
    assert (fact["round_id"], fact["state"]) == (round_id, "stopped")


def test_a_promotion_is_taken_back_by_one_command_and_the_list_says_so(s, true_release, command):
    round_id = measured(s, starting.start(s, true_release.name))
    assert retraining.decide(s, round_id).promoted
    base = s.settings.model.checkpoint
    assert json.loads(command("rounds", "rollback", "--json")) == {"withdrawn": [round_id], "serving": base}
    assert s.checkpoint().name == base
    assert command("rounds").splitlines()[1].endswith("promoted, withdrawn")
    (fact,) = json.loads(command("rounds", "--json"))
    assert (fact["promoted"], fact["withdrawn"]) == (True, True)


@pytest.mark.parametrize("width", [20, 40, 60, 80, 200])
def test_no_cell_of_a_table_is_cut_on_any_terminal(monkeypatch, width):
    shown = io.StringIO()
    monkeypatch.setattr(console, "out", Console(file=shown, force_terminal=True, width=width, color_system=None))
    rows = [("round-001-abcdef01", "facebook/sam2.1-hiera-tiny", "the gate asks for more than this round gained")]
    console.print_rows(("round", "from", "gate"), rows)
    printed = shown.getvalue()
    assert rows[0][0] in printed and rows[0][1] in printed
    assert all(word in printed for word in rows[0][2].split())


def test_a_pipe_gets_one_line_a_row(monkeypatch, s, command):
    row = Quarantined(stage="ingest", subject="a" * 100, reason="unreadable", detail="two\nlines", batch_id="")
    monkeypatch.setattr(type(s.tables), "quarantine", lambda self: [row])
    assert command("quarantine").splitlines()[1:] == ["ingest\t" + "a" * 100 + "\tunreadable\ttwo lines"]
