"""HTML pages of reports: one self-contained file with a title and the common style."""

from __future__ import annotations

import html

_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; --line: color-mix(in srgb, currentColor 18%, transparent); }}
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 1400px; margin: 2rem auto; padding: 0 1.5rem; }}
h1 {{ font-size: 1.5rem; }} h2 {{ font-size: 1.25rem; margin: 2.6rem 0 .3rem; }}
table {{ border-collapse: collapse; }} th, td {{ text-align: left; border-bottom: 1px solid var(--line); }}
img {{ max-width: 100%; border-radius: 4px; display: block; }}
.wide {{ overflow-x: auto; }}
footer {{ margin: 3rem 0; opacity: .7; overflow-wrap: anywhere; }}
{style}</style>
{body}
</html>
"""


def page(title: str, body: str, *, style: str) -> str:
    """A page. title: plain text.  body: HTML.  style: CSS rules of this page, after the common ones."""
    return _PAGE.format(title=html.escape(title), body=body, style=style)
