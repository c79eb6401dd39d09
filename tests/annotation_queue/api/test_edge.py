"""The headers of every answer, and that one person's requests leave threads for everybody else's."""

from __future__ import annotations


def test_every_answer_carries_the_security_headers(browser):
    for path in ("/", "/web/index.html", "/api/me", "/nowhere"):
        headers = browser.get(path).headers
        assert "default-src 'self'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
