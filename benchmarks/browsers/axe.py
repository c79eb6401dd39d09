"""What axe-core, the checker of accessibility, finds wrong with a page. `npm ci` installs it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Protocol

SOURCE = Path(__file__).parents[2] / "node_modules/axe-core/axe.min.js"
RUN = """
async () => {
  // colours fade after a change: they are judged once they are there
  await new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn)));
  await Promise.all(document.getAnimations().map((animation) => animation.finished.catch(() => {})));
  const { violations } = await axe.run(document, { resultTypes: ["violations"] });
  return violations.flatMap(({ id, nodes }) => nodes.map(({ target, failureSummary }) =>
    `${id}: ${target.join(" ")}: ${failureSummary.split("\\n").slice(1, 2).join("").trim()}`));
}
"""


class Tab(Protocol):
    """A tab of any browser."""

    def evaluate(self, expression: str, arg: Any = None, /) -> Any: ...


def source() -> str | None:
    """The source of axe-core, or None where it is not installed. MASKLETS_TEST_AXE: another place of the file."""
    path = Path(os.environ.get("MASKLETS_TEST_AXE", SOURCE))
    return path.read_text() if path.exists() else None


def violations(page: Tab, axe: str) -> list[str]:
    """Each violation on the page as it is now, with its element, one line each. axe: see `source`."""
    page.evaluate(axe)
    found: list[str] = page.evaluate(RUN)
    return found
