"""The command `rounds`, and how tables are printed."""

import http.server
import io
import json
import threading

import cv2
import pytest
from rich.console import Console

from engine.cli import console, learning
from engine.files import alone
from engine.rounds import record, retraining, starting
from storage.records import Quarantined
from tests.engine.true_releases import measured, publish, two_rounds


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
    assert json.loads(command("rounds", "rollback", "--json")) == {"taken_back": [round_id], "serving": base}
    assert s.checkpoint().name == base
    assert command("rounds").splitlines()[1].endswith("promoted, taken back")
    (fact,) = json.loads(command("rounds", "--json"))
    assert (fact["promoted"], fact["taken_back"]) == (True, True)


def test_the_command_prints_the_chain_as_a_table_and_as_json(s, true_release, command):
    first, _ = two_rounds(s)
    head, one, two = (line.split("\t") for line in command("rounds").splitlines())
    row = dict(zip(head, two, strict=True))
    assert row["masklets by checkpoint"] == f"15 {first}, 10 micro, 3 by hand"
    assert (row["from"], row["serves then"], row["clicks a masklet"], row["s a frame"]) == (first, first, "2.2", "1.5")
    assert dict(zip(head, one, strict=True))["serves then"] == first
    assert row["general set"] == "80.0 -> 74.0 in 1 round"
    fact = json.loads(command("rounds", "--json"))[1]
    assert (fact["checkpoint_before"], fact["checkpoint_after"]) == (first, first)
    assert fact["made_by"] == {first: 15, "micro": 10, "by hand": 3} and fact["added"]["masklets"] == 18
    assert fact["jf_after_interval"] == pytest.approx([0.4, 0.4])


def test_the_picture_is_a_png_or_a_page_with_the_table(s, true_release, command, mistake, tmp_path):
    rounds = two_rounds(s)
    command("rounds", "--picture", str(tmp_path / "rounds.png"))
    assert cv2.imread(str(tmp_path / "rounds.png")).std() > 0
    command("rounds", "--picture", str(tmp_path / "rounds.html"))
    page = (tmp_path / "rounds.html").read_text()
    assert page.count("<svg") == 1 and all(f"<td>{round_id}</td>" in page for round_id in rounds)
    assert "is a FILE.png or a FILE.html" in mistake("rounds", "--picture", str(tmp_path / "rounds.pdf"))


class WaitingAirflow:
    """A server that answers as Airflow's API does, with two runs of `retrain` that wait for a person."""

    def __init__(self, asked):
        self.answers = []  # path and option
        rows = [
            {"subject": f"Promote the checkpoint of {round_id}?", "task_instance": {"dag_run_id": f"run of/{round_id}"}}
            for round_id in (asked, "round-009-other")
        ]

        class Handler(http.server.BaseHTTPRequestHandler):
            def reply(this, body):
                sent = this.rfile.read(int(this.headers["Content-Length"] or 0))
                if this.command == "PATCH":
                    assert this.headers["Authorization"] == "Bearer t"
                    self.answers.append((this.path, *json.loads(sent)["chosen_options"]))
                this.send_response(200)
                this.end_headers()
                this.wfile.write(json.dumps(body).encode())

            def do_POST(this):
                this.reply({"access_token": "t"})

            def do_GET(this):
                path, _, query = this.path.partition("?")
                assert path == "/api/v2/dags/retrain/dagRuns/~/hitlDetails"
                assert {"task_id=approve", "response_received=false"} <= set(query.split("&"))
                this.reply({"hitl_details": rows})

            def do_PATCH(this):
                this.reply({})

            def log_message(this, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}).start()

    def stop(self):
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def waiting_airflow(request):
    """A function that starts an Airflow with a run that asks about a round."""

    def start(round_id):
        airflow = WaitingAirflow(round_id)
        request.addfinalizer(airflow.stop)
        return airflow

    return start


def path_of(round_id):
    return f"/api/v2/dags/retrain/dagRuns/run%20of%2F{round_id}/taskInstances/approve/-1/hitlDetails"


def test_an_answer_reaches_the_airflow_of_this_home_and_one_that_is_gone_is_told_of(settings, waiting_airflow, capsys):
    result = record.RoundResult("round-001-a", True, (), 0.5, 0.6, 12)
    learning._answer_in_airflow(settings, result)  # no Airflow was ever started
    home = settings.airflow_home
    home.mkdir(parents=True)
    airflow = waiting_airflow(result.round_id)
    (home / "url").write_text(airflow.url)
    (home / "passwords.json").write_text('{"admin": "p"}')
    learning._answer_in_airflow(settings, result)  # a killed one left the file
    assert airflow.answers == []
    with alone(home / "supervisor.lock"):
        learning._answer_in_airflow(settings, result)
        assert airflow.answers == [(path_of(result.round_id), "Approve")]
        assert capsys.readouterr().err == ""
        (home / "url").write_text("http://127.0.0.1:1")
        learning._answer_in_airflow(settings, result)
    told = " ".join(capsys.readouterr().err.split())
    assert "the decision stands, but a run in Airflow may still wait" in told and "does not answer" in told


@pytest.mark.parametrize(("word", "promoted"), [("approve", True), ("reject", False)])
def test_a_person_approves_or_rejects_a_round_by_one_command(
    s, true_release, command, mistake, monkeypatch, waiting_airflow, word, promoted
):
    monkeypatch.setenv("MASKLETS_ROUNDS__APPROVAL", "person")
    round_id = measured(s, starting.start(s, true_release.name))
    assert f"{round_id} does not wait for approval" in mistake("rounds", word, round_id)
    result = json.loads(command("train", "--json"))
    assert (result["round_id"], result["waits"], result["promoted"]) == (round_id, True, False)
    assert command("rounds").splitlines()[1].endswith(f"waits for approval: masklets rounds approve {round_id}")
    airflow = waiting_airflow(round_id)
    monkeypatch.setenv("MASKLETS_AIRFLOW__URL", airflow.url)
    monkeypatch.setenv("MASKLETS_AIRFLOW__PASSWORD", "p")
    said = command("rounds", word, round_id, "--by", "lea", "--why", "seen")
    assert airflow.answers == [(path_of(round_id), word.capitalize())]
    verdict = "promoted; approved" if promoted else "not promoted; rejected"
    assert said.startswith(f"{round_id}: {verdict} by lea: seen; better: held-out J&F")
    assert (s.checkpoint().name == round_id) is promoted
    for again in ("approve", "reject"):
        decided = "promoted" if promoted else "decided: not promoted"
        assert f"{round_id} was already {decided}" in mistake("rounds", again, round_id)


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


def test_the_command_campaign_prints_every_phase_of_the_plan(s, true_release, command, monkeypatch):
    assert command("campaign") == "no campaign is planned\n"
    assert json.loads(command("campaign", "--json")) == []
    phases = [{"phase": "1", "masklets": 10}, {"phase": "2", "retrainings": 2}]
    monkeypatch.setenv("MASKLETS_CAMPAIGN__PHASES", json.dumps(phases))
    publish(s, 1, "release-0001", phase="1")
    assert [line.split("\t") for line in command("campaign").splitlines()] == [
        ["phase", "state", "masklets", "retrainings"],
        ["1", "done", "10 of 10", ""],
        ["2", "current", "", "0 of 2"],
        ["campaign: phase 2 is current: 0 of 2 retrainings"],
    ]
    first, _ = json.loads(command("campaign", "--json"))
    assert (first["phase"], first["state"], first["masklets"], first["planned_masklets"]) == ("1", "done", 10, 10)
