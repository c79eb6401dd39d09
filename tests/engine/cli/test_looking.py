"""Commands that look at a release, in this process and without a model."""

import dataclasses
import json

import pytest

from engine.serving import serve
from engine.settings import Settings
from tests.engine.views.small_releases import masklet_of, publish, track
from validation.mask_warnings import Thresholds


@pytest.fixture
def settings(tmp_path):
    return Settings(home=tmp_path / "home")


@pytest.fixture
def release(s):
    return publish(
        s, [masklet_of("m1", track(0, 4, None, 12, 16, 20)), masklet_of("m2", track(40, 40, 40, 40, 40, 40))]
    )


def test_stats_of_a_release_are_tables_json_and_a_page(release, command, tmp_path):
    printed = command("stats", "release-0001", "--html", str(tmp_path / "page.html"))
    assert "auto\t1\t0.000\t2\t11\t6\t50.0%\t2.0" in printed
    assert release.digest in (tmp_path / "page.html").read_text()
    found = json.loads(command("stats", "newest", "--json"))
    assert (found["release"], found["groups"]["auto"]["masks"]) == ("release-0001", 11)


def test_stats_without_a_release_are_about_batches(release, command):
    assert "1 release, the newest release-0001: 1 video, 2 masklets, 11 masks" in command("stats")


def test_show_writes_a_film_and_a_sheet(release, command, tmp_path):
    film = tmp_path / "film.mp4"
    assert str(film) in command("show", "v1.mp4", "--out", str(film))
    found = json.loads(command("show", "v1", "--style", "cut-out", "--out", str(film), "--json"))
    assert found == {
        "video_id": "v1",
        "masklets": 2,
        "frames": 6,
        "film": str(film),
        "sheet": str(tmp_path / "film.jpg"),
    }


def test_show_in_an_unknown_style_is_a_mistake(release, mistake):
    assert "the styles are fill, outline, cut-out, not 'neon'" in mistake("show", "v1", "--style", "neon")


def test_browse_opens_the_page_of_the_newest_release(release, command, monkeypatch):
    asked, windows = [], []

    def browse(s, name, port, opened):
        asked.append((name, port))
        opened("http://127.0.0.1:7266/")

    monkeypatch.setattr(serve, "browse", browse)
    monkeypatch.setattr("webbrowser.open", windows.append)
    assert "release-0001: http://127.0.0.1:7266/" in command("browse")
    assert (asked, windows) == ([("release-0001", 7266)], ["http://127.0.0.1:7266/"])
    command("browse", "release-0001", "--no-window", "--port", "0")
    assert asked[1] == ("release-0001", 0) and len(windows) == 1


def test_diff_prints_numbers_and_draws_what_differs(release, s, command, tmp_path):
    publish(s, [masklet_of("m3", track(40), batch_id="b2", parent_id="m2")], "release-0002")
    picture = tmp_path / "diff.jpg"
    printed = command("diff", "release-0001", "release-0002", "--out", str(picture))
    assert "only here\t0\t1" in printed and str(picture) in printed and picture.exists()
    found = json.loads(command("diff", "release-0002", "release-0001", "--out", str(picture), "--json"))
    assert (found["masklets"]["removed"], found["picture"]) == (1, str(picture))
    assert "no mask differs: no picture" in command("diff", "m1", "m1", "--out", str(picture))


def test_a_picture_of_a_difference_is_a_jpeg(release, mistake):
    assert "FILE.jpg" in mistake("diff", "release-0001", "release-0001", "--out", "diff.png")


def test_validate_warns_of_masks_that_look_wrong_and_passes(release, command, monkeypatch):
    printed = command("validate")
    assert "warning: flicker: 1 masklet, 1 frame, such as m1, frame 8" in printed and "0 problems" in printed
    assert json.loads(command("validate", "--json"))["warnings"] == {
        "flicker": {"masklets": 1, "frames": 1, "examples": ["m1, frame 8"]}
    }
    assert "warning" not in command("validate", "--no-warnings")
    monkeypatch.setenv("MASKLETS_CHECKS__FLICKER_FRAMES", "0")
    assert "warning" not in command("validate")


def test_the_thresholds_of_the_settings_are_those_of_the_checks():
    assert Settings().checks.model_dump() == dataclasses.asdict(Thresholds())


def test_the_card_is_printed_or_written(release, command, tmp_path):
    printed = command("card")
    assert printed.startswith("# release-0001\n")
    assert str(tmp_path / "new" / "README.md") in command(
        "card", "release-0001", "--out", str(tmp_path / "new" / "README.md")
    )
    assert (tmp_path / "new" / "README.md").read_text() == printed


def test_stats_of_no_such_release_is_a_mistake(release, mistake):
    assert "there is no release 'other'; there are: release-0001" in mistake("stats", "other")
