"""Tabs of a real Chromium at a real server: on SQLite, or on both databases where a test is marked EVERY_DATABASE."""

from __future__ import annotations

import time

import pytest
from playwright.sync_api import Browser

from annotation_queue.api import app as app_module
from annotation_queue.api.app import create_app
from annotation_queue.database import Database
from annotation_queue.projects import Projects
from annotation_queue.tickets.store import TicketStore
from tests.annotation_queue.browsing import FRAMES, Page
from tests.annotation_queue.fake_releases import FakeReleases
from tests.annotation_queue.pipelines import FakePipeline
from tests.annotation_queue.synthetic_queue import (
    HASTY,
    SyntheticMedia,
    SyntheticModel,
    add_people,
    serving,
    track_ticket,
    verify_tickets,
)


@pytest.fixture
def uri(request, new_database):
    """A new SQLite database; of each kind where a test is marked EVERY_DATABASE."""
    with new_database(getattr(request, "param", "sqlite")) as uri:
        yield uri


class RunningClock:
    """The real time, plus the seconds that a test adds."""

    ahead = 0.0

    def __call__(self):
        return time.time() + self.ahead


@pytest.fixture
def clock():
    return RunningClock()


@pytest.fixture
def tickets(uri, clock):
    database = Database(uri)
    yield TicketStore(database, clock=clock, policy=HASTY)
    database.close()


class Tabs:
    """Opens tabs at one server, each as a browser of its own."""

    def __init__(self, browser: Browser, url: str, model: SyntheticModel) -> None:
        """model: the model that answers operations at this server."""
        self.model = model
        self._browser, self._url = browser, url
        self._pages: list[Page] = []

    def __call__(self) -> Page:
        context = self._browser.new_context(viewport={"width": 1280, "height": 720})
        context.set_default_timeout(60_000)
        self._pages.append(Page(context, self._url))
        return self._pages[-1]

    def close(self) -> list[str]:
        """Close all tabs. Returns the errors that their scripts threw."""
        problems = [problem for page in self._pages for problem in page.problems]
        for page in self._pages:
            page.context.close()
        return problems


@pytest.fixture
def stuck():
    """What the pipeline is stuck at. A test appends to it before it opens a page."""
    return []


@pytest.fixture
def plan():
    """The phases of the campaign. A test appends to it before it opens a page."""
    return []


@pytest.fixture
def pipeline(tmp_path):
    """What leads see of the pipeline. A test changes it before it opens a page."""
    return FakePipeline(tmp_path)


@pytest.fixture
def members():
    """The people of each project. A test adds some before it opens a page."""
    return {}


@pytest.fixture
def open_page(chromium, tickets, stuck, plan, pipeline, members, monkeypatch):
    """Opens tabs at a server with the tickets. A script error of any tab fails the test."""
    monkeypatch.setattr(app_module, "STATS_S", 0.0)  # else a page waits 15 s for the count of what was done just now
    accounts, model = add_people(tickets.database), SyntheticModel()
    accounts.projects = Projects(members)
    media = SyntheticMedia(FRAMES)
    app = create_app(
        tickets,
        media,
        accounts=accounts,
        segmenter=model,
        stuck=lambda: list(stuck),
        campaign=lambda: list(plan),
        overview=pipeline,
        release_source=FakeReleases(("cat",)),
    )
    with serving(app) as url:
        tabs = Tabs(chromium, url, model)
        yield tabs
        problems = tabs.close()
    assert problems == []


@pytest.fixture
def verifying(open_page, tickets):
    """Opens a tab in which Vera has the first of some verify tickets on screen, paused at its first frame."""

    def at(count=1):
        tickets.open_batch("b", verify_tickets(count, FRAMES))
        page = open_page()
        page.log_in()
        page.paused_at_start()
        return page

    return at


@pytest.fixture
def correcting(open_page, tickets):
    """Opens a tab in which Ann corrects a clip's only object."""

    def at(frame_idx=0):
        tickets.open_batch("b", [track_ticket(frame_count=FRAMES)])
        page = open_page()
        page.log_in("ann")
        page.correcting(frame_idx)
        return page

    return at
