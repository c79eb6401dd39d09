"""The command line: one clear line for a mistake, JSON for programs, and kills that lose no work."""

import io
import json
import os
import signal
import subprocess
import sys
from typing import Any

import pytest
from pydantic import SecretStr
from rich.console import Console

from annotation_queue.records import Role
from engine.cli import console, doctor, main, pipeline
from engine.ingest import ingest
from engine.services import connect
from engine.settings import QueueSettings, Settings
from storage.records import Quarantined
from tests.free_ports import free_port

pytestmark = pytest.mark.server


@pytest.mark.parametrize(
    ("words", "environment", "line"),
    [
        (["ingest", "/no/such/folder"], {}, "no such folder: /no/such/folder"),
        (["ingest"], {"MASKLETS_STORAGE__ROOT": "gs://elsewhere"}, "gs://elsewhere"),
        (["validate"], {}, "there is no release yet"),
        (["validate", "nothing"], {}, "nothing"),
        (["train", "--data", "no/such", "--out", "mine"], {}, "no/such: no such folder"),
        (["train", "--data", "sa-v"], {}, "takes --data and --out"),
        (["train", "--recipe", "full"], {}, "a round starts from the serving checkpoint"),
        (["train", "--split", "val"], {}, "with its own recipe and split"),
        (["export", "out", "--format", "tfrecord"], {}, "not 'tfrecord'"),
        (["export", "out", "--timeline", "mine"], {}, "the timelines are stored, source, not 'mine'"),
        (["evaluate", "micro", "--data", "no/such"], {}, "no/such: no such folder"),
        (["evaluate", "micro", "--split", "some"], {}, "train, val, test and all, not 'some'"),
        (["evaluate", "micro", "--objects", "3"], {}, "--objects is for interactive and image"),
        (["evaluate", "micro", "--protocol", "look"], {}, "interactive and image, not 'look'"),
        (["train", "--release", "../../etc"], {}, "../../etc"),
        (["users", "add", "ada", "--role", "king"], {}, "king"),
        (["stats"], {"MASKLETS_ROUNDS__STEPS": "many"}, "MASKLETS_ROUNDS__STEPS"),
        (["stats"], {"MASKLETS_STORAGE__CATALOG_URI": "postgresql+psycopg://127.0.0.1:1/x"}, "127.0.0.1:1"),
    ],
)
def test_a_mistake_is_one_line_that_says_what_and_where(monkeypatch, capsys, settings, words, environment, line):
    for name, value in (settings.environment() | environment).items():
        monkeypatch.setenv(name, value)
    assert command(monkeypatch, *words) == 2
    said = capsys.readouterr().err
    assert line in said and len(said.strip().splitlines()) == 1, said


def test_a_mistake_of_a_real_process_is_one_line_too_and_is_found_before_torch_is_loaded(settings, tmp_path):
    (tmp_path / "torch.py").write_text("raise SystemExit('torch was imported')")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-m", "engine.cli", "train", "--data", "no/such", "--out", "mine"],
        env=os.environ | settings.environment() | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (2, "masklets: no/such: no such folder\n")


def command(monkeypatch, *words):
    """The status of a command that runs in this process."""
    monkeypatch.setattr(sys, "argv", ["masklets", *words])
    with pytest.raises(SystemExit) as ended:
        main.main()
    return ended.value.code or 0


@pytest.mark.parametrize("ok", [True, False])
def test_a_failed_check_makes_the_status_of_doctor_1(monkeypatch, capsys, ok):
    monkeypatch.setattr(doctor, "diagnose", lambda settings: [doctor.Check("store", ok, "in [brackets] :dog:")])
    assert command(monkeypatch, "doctor") == (0 if ok else 1)
    assert "store: in [brackets] :dog:" in capsys.readouterr().out


def test_doctor_tries_every_part_for_real(settings, queue, tmp_path):
    """Only the broken part reports an error."""

    def checks(**broken):
        changed = {name: getattr(settings, name).model_copy(update=values) for name, values in broken.items()}
        return {check.name: check for check in doctor.diagnose(settings.model_copy(update=changed))}

    well = checks()
    assert [check for check in well.values() if not check.ok] == []
    assert "holds files" in well["source"].detail and "takes the pipeline's token" in well["queue"].detail
    (tmp_path / "nothing").mkdir()
    assert "is empty" in checks(ingest={"source": str(tmp_path / "nothing")})["source"].detail
    nowhere = f"http://127.0.0.1:{free_port()}"
    faults: dict[str, dict[str, dict[str, Any]]] = {
        "source": {"ingest": {"source": "/no/such/folder"}},
        "queue": {"queue": {"token": SecretStr("mq_wrong")}},
        "airflow": {"airflow": {"url": nowhere, "password": SecretStr("x")}},
        "checkpoint": {"model": {"registry_uri": nowhere}},
    }
    for name, broken in faults.items():
        assert [check.name for check in checks(**broken).values() if not check.ok] == [name]
    assert not checks(model={"checkpoint": "/no/model"})["checkpoint"].ok


@pytest.mark.parametrize(
    "asked, people, detail",
    [
        ({"makers_share": 0.5}, "a v", "queue.makers asks for 2 people, 1 may correct"),
        ({"makers_share": 0.5}, "a a v", None),
        ({"makers_share": 0.5}, "a a! v", "queue.makers asks for 2 people, 1 may correct"),
        ({}, "a v", None),
        ({"overlap_share": 0.5}, "a v v", "queue.overlap needs 2 reviewers for a ticket, but only 1 of the 2 may be"),
        ({"overlap_share": 0.5}, "a v v v", None),
        ({"overlap_share": 0.5, "other_verifier": False}, "a v v", None),
        ({"overlap_share": 0.5, "other_verifier": False}, "av av", "only 1 of the 2 may be allowed"),
        ({"overlap_share": 0.5, "makers_share": 0.5}, "", None),  # a new home without people
    ],
)
def test_doctor_reports_too_few_people_for_the_settings(tmp_path, asked, people, detail):
    roles = {"a": Role.ANNOTATOR, "v": Role.VERIFIER}
    with connect(Settings(home=tmp_path, queue=QueueSettings(**asked))) as s:
        accounts = s.open_queue()[1]
        for number, letters in enumerate(people.split()):
            accounts.add(f"p{number}", [roles[letter] for letter in letters if letter in roles])
            accounts.disable(f"p{number}", letters.endswith("!"))
        check = doctor._try("people", doctor._people, s)
    assert check.ok == (detail is None) and (detail or "") in check.detail


class Terminal(io.StringIO):
    """Standard input at which a person types."""

    def isatty(self):
        return True


@pytest.mark.parametrize("stdin", [io.StringIO("correct horse\n"), Terminal()])
def test_a_password_comes_from_standard_input_or_a_prompt_and_never_from_an_argument(
    monkeypatch, capsys, tmp_path, stdin
):
    settings = Settings(home=tmp_path / "home")
    monkeypatch.setenv("MASKLETS_HOME", str(settings.home))
    monkeypatch.setattr(sys, "stdin", stdin)
    typed = []

    def prompt(text, **how):
        typed.append(how)
        return "correct horse"

    monkeypatch.setattr("typer.prompt", prompt)
    ada = ("users", "add", "ada", "--role", "verifier")
    assert command(monkeypatch, *ada, "--password", "correct horse") == 2
    assert command(monkeypatch, *ada, "--password-stdin") == 0
    assert "correct horse" not in capsys.readouterr().out
    assert typed == ([{"hide_input": True, "confirmation_prompt": True}] if stdin.isatty() else [])
    assert command(monkeypatch, "users", "add", "bob", "--role", "verifier") == 0
    made = capsys.readouterr().out.split()[-1]
    with connect(settings) as s:
        _, accounts = s.open_queue()
        assert accounts.has_password("ada", "correct horse") and accounts.has_password("bob", made)


def test_people_are_managed_and_audited_from_the_command_line(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("MASKLETS_HOME", str(tmp_path / "home"))

    def said(*words, status=0):
        assert command(monkeypatch, "users", *words) == status
        return capsys.readouterr().out

    assert "ada (verifier, lead)" in said("add", "ada", "--role", "verifier", "--role", "lead", "--skill", "birds")
    assert said("token", "ada", "--scope", "read", "--days", "1").startswith("mq_")
    said("token", "ada", "--scope", "king", status=2)
    said("token", "ada", "--days", "nan", status=2)
    ada = next(p for p in json.loads(said("list", "--json"))["people"] if p["name"] == "ada")
    assert (ada["roles"], ada["skills"], ada["tokens"][0]["scopes"]) == (["lead", "verifier"], ["birds"], ["read"])
    token_id = ada["tokens"][0]["token_id"]
    assert f"token {token_id} (read)" in said("list")
    said("revoke", "ada", token_id)
    said("token", "ada")
    assert said("revoke", "ada").startswith("1 token")
    assert said("revoke", "ada").startswith("0 tokens")  # not in the audit: nothing changed
    said("revoke", "nobody", status=2)
    said("disable", "ada")
    assert "disabled" in said("list")
    said("enable", "ada")
    said("disable", "nobody", status=2)
    said("remove", "nobody", status=2)
    lines = [line for line in json.loads(said("audit", "--json"))["audit"] if line["subject"] in ("ada", "nobody")]
    tokens = ["revoke tokens", "issue token", "revoke token", "issue token"]
    actions = ["enable", "disable", *tokens, "set person"]
    assert [line["action"] for line in lines] == actions and {line["actor"] for line in lines} == {"(operator)"}
    assert "set person" in said("audit")


def test_tidy_removes_what_a_killed_writer_left_and_says_so(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("MASKLETS_HOME", str(tmp_path))
    left = tmp_path / "store" / "videos" / ".part-0"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half")
    os.utime(left, (1, 1))
    assert command(monkeypatch, "tidy", "--json") == 0
    nothing = {"freed_bytes": 0, "expired": 0, "swept": 0, "waiting": 0, "problems": []}
    assert json.loads(capsys.readouterr().out) == {"removed": 1, **nothing} and not left.exists()
    assert command(monkeypatch, "tidy") == 0
    assert capsys.readouterr().out.startswith("0 partial files removed")


def test_ctrl_c_and_sigterm_stop_a_command_with_one_line(monkeypatch, capsys, tmp_path):
    def stopped(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(doctor, "diagnose", stopped)
    assert command(monkeypatch, "doctor") == 130
    assert capsys.readouterr().err.strip() == "stopped; run it again to go on"

    monkeypatch.setenv("MASKLETS_HOME", str(tmp_path))
    monkeypatch.setattr(ingest, "admit", lambda *_, **__: os.kill(os.getpid(), signal.SIGTERM))
    assert command(monkeypatch, "run", str(tmp_path)) == 130
    assert "stopped" in capsys.readouterr().err


def test_names_are_never_parsed_as_markup(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("MASKLETS_HOME", str(tmp_path))
    row = Quarantined(stage="ingest", subject="[/x] [red]a :dog:", reason="unreadable", detail="[/]", batch_id="")
    with connect() as s:
        monkeypatch.setattr(type(s.tables), "quarantine", lambda self: [row])
    monkeypatch.setattr(console.out, "_width", 120)
    assert command(monkeypatch, "quarantine") == 0
    assert row.subject in capsys.readouterr().out
    shown = io.StringIO()
    terminal = Console(file=shown, force_terminal=True, width=120)
    monkeypatch.setattr(console, "err", terminal)
    with console.bar("ingest") as bar:
        bar(1, 2, "[/x] clip.mp4")
    assert "[/x] clip.mp4" in shown.getvalue()


def test_long_work_prints_lines_where_there_is_no_terminal(monkeypatch):
    written = io.StringIO()
    log = Console(file=written, width=120, markup=False, force_terminal=False)
    monkeypatch.setattr(console, "err", log)
    with console.bar("ingest") as bar:
        bar(1, 3, "[a].mp4")  # LINE_S is not over yet
        monkeypatch.setattr(console, "LINE_S", 0.0)
        bar(2, 3, "[b].mp4")
    with console.bar("ingest", shown=False) as bar:
        bar(3, 3, "[c].mp4")
    assert written.getvalue() == "ingest: 2/3 [b].mp4\n"


@pytest.mark.parametrize(
    ("counts", "line"),
    [
        ((1, 0, 2, 3, 0), "1 video admitted, 0 quarantined, 2 unchanged, 3 other files ignored"),
        ((1, 1, 0, 0, 0), "1 video admitted, 1 quarantined, 0 unchanged; see masklets quarantine"),
        (
            (0, 0, 2, 0, 1),
            "nothing new: 2 unchanged videos, 1 postponed (still changing, read by another machine, or below a "
            "damaged table): run it again",
        ),
        ((0, 0, 0, 1, 0), "there are no videos, 1 other file ignored"),
    ],
)
def test_the_result_of_an_ingest_is_one_line(capsys, counts, line):
    names = ("admitted", "quarantined", "unchanged", "ignored", "postponed")
    pipeline.print_ingest(dict(zip(names, counts, strict=True)) | {"changed": 0, "changes": {}})
    assert capsys.readouterr().out.strip() == line


def test_help_loads_no_library_of_any_command():
    heavy = {"torch", "transformers", "cv2", "av", "numpy", "pandas", "pyarrow", "pyiceberg", "boto3", "mlflow"}
    heavy |= {"sqlalchemy", "httpx", "fastapi", "airflow", "great_expectations", "scipy", "matplotlib"}
    script = f"import sys; import engine.cli.main; print(sorted({heavy!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_propose_makes_the_candidates_that_are_missing_and_refuses_a_text_without_words(command, mistake):
    command("ingest")
    assert mistake("propose", "--text", " . ").splitlines()[-1] == "masklets: --text has no words: ' . '"
    made = json.loads(command("propose", "--json"))
    assert made["videos"] == 3 and len(made["batches"]) == 1 and sum(made["batches"].values()) > 0
    assert command("propose").strip() == "0 candidates of 0 videos"
