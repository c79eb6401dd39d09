"""Releases over HTTP: who may look through them in the queue, and what the browser without a queue serves."""

from __future__ import annotations

import pytest
from fastapi.testclient import TestClient

from annotation_queue.api.app import create_app
from annotation_queue.api.releases import create_browser
from annotation_queue.database import Database
from annotation_queue.projects import Projects
from annotation_queue.tickets.store import TicketStore
from tests.annotation_queue.fake_releases import FRAMES, RELEASE, FakeReleases
from tests.annotation_queue.synthetic_queue import SyntheticMedia, add_people

MASKLETS = f"/api/releases/{RELEASE}/masklets"
VIDEO = f"/api/releases/{RELEASE}/videos/video-0"


@pytest.fixture
def source():
    return FakeReleases(("cat", None, "dog"))


@pytest.fixture
def alone(source):
    closed: list[bool] = []
    with TestClient(create_browser(source, RELEASE, close=lambda: closed.append(True)), "http://127.0.0.1") as client:
        yield client
    assert closed


@pytest.fixture
def client(source, tmp_path):
    """Clients of a queue, by the name of a person."""
    database = Database(f"sqlite:///{tmp_path}/queue.db")
    accounts = add_people(database)
    app = create_app(TicketStore(database), SyntheticMedia(FRAMES), accounts=accounts, release_source=source)

    def of(name, projects=None):
        accounts.projects = Projects(projects or {})
        return TestClient(app, headers={"Authorization": f"Bearer {accounts.issue_token(name)}"})

    yield of
    database.close()


def test_the_browser_of_one_machine_serves_a_release_without_a_log_in(alone, source):
    assert alone.get("/", follow_redirects=False).headers["location"] == f"/web/release.html#release={RELEASE}"
    assert "release.js" in alone.get("/web/release.html").text
    assert alone.get("/api/releases").json() == {
        "alone": True,
        "releases": [{"name": RELEASE, "videos": 1, "masklets": 3}],
    }
    page = alone.get(MASKLETS, params={"label": "cat", "score_from": 0.5, "disagreement_from": 0.1}).json()
    assert ([each["masklet_id"] for each in page["masklets"]], page["next"], page["looked"]) == (["m0"], "0.2", 2)
    (asked,) = source.asked
    assert (asked.label, asked.score_from, asked.score_to, asked.disagreement_from) == ("cat", 0.5, None, 0.1)
    assert [each["masklet_id"] for each in alone.get(VIDEO).json()["masklets"]] == ["m0", "m1", "m2"]
    piece = alone.get(f"{VIDEO}/masks", params={"first": 4, "count": 8}).json()
    assert (piece["first"], piece["end"]) == (4, 12)
    assert [each["frame_idx"] for each in piece["masklets"]] == [[4, 8]] * 3
    assert "default-src 'self'" in alone.get("/api/releases").headers["content-security-policy"]


def test_browsers_ask_for_each_picture_again_and_see_none_of_a_withdrawn_video(alone, source):
    paths = [f"{VIDEO}/frames/4.jpg", f"{VIDEO}/m0/thumbnail"]
    tags = {}
    for path in paths:
        answer = alone.get(path)
        assert answer.headers["content-type"] == "image/jpeg" and "no-cache" in answer.headers["cache-control"]
        tags[path] = {"If-None-Match": answer.headers["etag"]}
        again = alone.get(path, headers=tags[path])
        assert (again.status_code, again.content) == (304, b"")
    assert alone.get(f"{VIDEO}/frames/8.jpg", headers=tags[paths[0]]).status_code == 200, "each frame has its own tag"
    source.withdrawn = True
    assert [alone.get(path, headers=tags[path]).status_code for path in paths] == [404, 404]


def test_the_browser_answers_no_other_site_and_changes_nothing(alone):
    assert alone.get("/api/releases", headers={"Host": "rebound.example"}).status_code == 400
    assert alone.post("/api/releases").status_code == 405
    assert alone.get("/api/me").status_code == alone.get("/api/tickets").status_code == 404


def test_mistakes_are_answered_in_one_line(alone):
    assert alone.get("/api/releases/other/masklets").json()["kind"] == "NoSuchRelease"
    assert alone.get(f"/api/releases/{RELEASE}/videos/other").json()["kind"] == "NoSuchVideo"
    assert alone.get(f"{VIDEO}/frames/{FRAMES}.jpg").json()["kind"] == "NoSuchFrame"
    for query in ({"score_from": 2}, {"after": "x"}, {"limit": 1000}):
        assert alone.get(MASKLETS, params=query).status_code == 422
    assert alone.get(f"{VIDEO}/masks", params={"first": 0, "count": 1001}).status_code == 422


def test_in_the_queue_leads_who_see_all_projects_look_through_releases(client):
    lea = client("lea")
    assert lea.get("/api/releases").json()["alone"] is False and lea.get(MASKLETS).status_code == 200
    for path in ("/api/releases", MASKLETS, VIDEO, f"{VIDEO}/masks", f"{VIDEO}/frames/0.jpg", f"{VIDEO}/m0/thumbnail"):
        assert client("vera").get(path).status_code == 403
        assert client("lea", {"cats": ["lea"]}).get(path).status_code == 403
        assert TestClient(lea.app).get(path).status_code == 401
