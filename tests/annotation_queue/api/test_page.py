"""The page's files."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from annotation_queue.api.page import PageFiles


@pytest.mark.parametrize(
    "path",
    [
        "/api/videos/..%2f..%2fetc%2fpasswd",
        "/api/videos/%2e%2e/frames/0.jpg",
        "/api/videos/video-0/frames/-1.jpg",
        "/api/videos/video-0/frames/99999999999999999999.jpg",
        "/api/tickets/a%00b",
        "/web/..%2fclient.py",
        "/web/%2e%2e%2fclient.py",
        "/web/client.py",
        "/web/",
        "/nowhere",
    ],
)
def test_no_path_reaches_the_file_system(pipeline, path):
    answer = pipeline._http.get(path)  # it may see every video
    assert answer.status_code in (404, 422)
    assert set(answer.json()) == {"error", "kind"} and "\n" not in answer.json()["error"]


def test_the_page_is_cached_until_its_content_changes(browser):
    page = browser.get("/")
    assert "Masklet review" in page.text
    for path in ["/", *re.findall(r'"(/web/[^"]+)"', page.text)]:
        answer = browser.get(path)
        assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-cache")
        again = browser.get(path, headers={"If-None-Match": answer.headers["etag"]})
        assert (again.status_code, again.headers["etag"]) == (304, answer.headers["etag"])


def test_every_file_has_the_content_type_that_browsers_expect(browser):
    types = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
    paths = ["/web/index.html", *re.findall(r'"(/web/[^"]+)"', browser.get("/").text)]
    assert {Path(path).suffix for path in paths} == set(types)
    for path in paths:
        assert browser.get(path).headers["content-type"].split(";")[0] == types[Path(path).suffix]


def test_the_etag_follows_the_content_and_not_the_time(tmp_path):
    """An installed file of another version may have the same size and time."""
    for content in ("one", "two"):
        (tmp_path / content).mkdir()
        (tmp_path / content / "page.js").write_text(content)
        os.utime(tmp_path / content / "page.js", (1, 1))
    pages = [TestClient(PageFiles(directory=tmp_path / name)).get("/page.js") for name in ("one", "two")]
    assert pages[0].headers["etag"] != pages[1].headers["etag"]
