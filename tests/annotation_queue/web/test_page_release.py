"""The page on which people look through a release: filters, pages, and a video with its masklets."""

from __future__ import annotations

from contextlib import contextmanager

import pytest

from annotation_queue.api.releases import create_browser
from benchmarks.browsers import axe
from tests.annotation_queue.browsing import Page
from tests.annotation_queue.fake_releases import RELEASE, FakeReleases
from tests.annotation_queue.synthetic_queue import serving


@contextmanager
def looking(chromium, releases):
    """A tab at a server that shows a release only."""
    with serving(create_browser(releases, RELEASE, close=lambda: None)) as url:
        context = chromium.new_context(viewport={"width": 1280, "height": 720})
        page = Page(context, url)
        yield page
        assert page.problems == []
        context.close()


@pytest.fixture
def page(chromium):
    with looking(chromium, FakeReleases(("cat", None, "dog"))) as page:
        yield page


def violations(page):
    """What axe-core finds on the page as it is; nothing where it is not installed, as `test_page_axe` says."""
    source = axe.source()
    return axe.violations(page.tab, source) if source else []


def focused(page):
    return page.tab.evaluate("document.activeElement.textContent")


def cards(page):
    return page.tab.locator("#cards .card-of").all_inner_texts()


def test_a_release_is_filtered_and_a_video_is_watched_with_one_masklet_or_all(page):
    page.until(lambda: page.text("#found") == "3 found among 4 looked at")
    assert "25 % disagree" in cards(page)[0] and "vera" in cards(page)[0]
    assert page.tab.locator(".of-queue").first.is_hidden()  # there is no queue here
    assert violations(page) == []
    page.tab.fill("[name=label]", "dog")
    page.press("Enter")
    page.until(lambda: len(cards(page)) == 1 and "label=dog" in page.tab.url)
    page.tab.click(".card-of a")
    frame = lambda: page.tab.get_attribute("#picture", "data-frame")  # noqa: E731
    page.until(lambda: frame() == "8")  # where the object is largest
    assert focused(page) == "video-0.mp4"
    assert page.tab.get_attribute("#object-2", "aria-pressed") == "true" and "0.25" in page.text("#facts")
    assert violations(page) == []
    page.press("0")
    assert page.text("#facts") == "" and page.tab.get_attribute("#object-2", "aria-pressed") == "false"
    page.press("ArrowRight")
    page.until(lambda: frame() == "12")
    assert page.tab.get_attribute("#at", "aria-live") == "polite"
    page.press(" ")
    page.until(lambda: frame() == "4")  # it plays, to the end and on from the start
    assert page.tab.get_attribute("#at", "aria-live") == "off", "a screen reader would say every frame"
    page.press("Escape")
    page.until(lambda: page.tab.locator("#list").is_visible())
    assert page.tab.evaluate("document.activeElement.closest('.card-of') !== null"), "the card that was opened"
    assert page.tab.get_attribute("#at", "aria-live") == "polite"
    assert len(cards(page)) == 1 and page.tab.input_value("[name=label]") == "dog"
    page.tab.go_back()
    page.tab.reload()
    page.until(lambda: frame() == "8")
    page.press("Escape")
    page.until(lambda: page.tab.url.endswith(f"#release={RELEASE}"))  # nobody has seen a list before: all masklets
    page.until(lambda: focused(page) == "Masklets of a release")
    page.tab.goto(f"{page.url}/web/release.html#release={RELEASE}&video=../masklets")
    page.until(lambda: page.text("#error") == "Not Found")


def test_the_masks_of_a_long_video_are_fetched_where_it_is_watched(chromium):
    source = FakeReleases(("cat",), frames=960)
    with looking(chromium, source) as page:
        page.tab.goto(f"{page.url}/web/release.html#release={RELEASE}&video=video-0")
        page.until(lambda: page.tab.get_attribute("#picture", "data-frame") == "0")
        page.until(lambda: len(source.pieces) == 2)
        assert sorted(source.pieces) == [(0, 240), (240, 480)], "of this frame, and what is played next"
        page.tab.focus("#scrub")
        page.press("End")
        page.until(lambda: page.tab.get_attribute("#picture", "data-frame") == "956")
        assert sorted(source.pieces) == [(0, 240), (240, 480), (720, 960)]
