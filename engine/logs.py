"""How log lines are written: readable ones, or one JSON object a line, with the ids of `storage/log_ids.py`.

For processes that run for long: `masklets serve`, `up` and `run`. Airflow writes the lines of tasks.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import TextIO

from engine.settings import LogSettings
from storage import log_ids

OURS = ("engine", "annotation_queue", "storage", "model", "validation")  # other libraries are heard from WARNING on


def set_up(settings: LogSettings, stream: TextIO | None = None) -> None:
    """Writes the lines of this process to `stream`, by default standard error; a second call replaces the first."""
    handler: logging.Handler = StandardError() if stream is None else logging.StreamHandler(stream)
    handler.setFormatter(JsonLines() if settings.json_lines else ReadableLines())
    handler.addFilter(add_ids)
    root = logging.getLogger()
    for old in [each for each in root.handlers if isinstance(each.formatter, JsonLines | ReadableLines)]:
        root.removeHandler(old)
    root.addHandler(handler)
    for name in OURS:
        logging.getLogger(name).setLevel(settings.level.upper())


class StandardError(logging.Handler):
    """Writes to what `sys.stderr` is at that moment: a progress bar replaces it while it is drawn."""

    def emit(self, record: logging.LogRecord) -> None:
        """Writes a line."""
        try:
            print(self.format(record), file=sys.stderr, flush=True)
        except Exception:  # a log line never stops the work
            self.handleError(record)


def add_ids(record: logging.LogRecord) -> bool:
    """A filter that drops nothing: gives each line the ids of the work under way. Those in `extra` win."""
    for name, value in log_ids.current().items():
        if not hasattr(record, name):
            setattr(record, name, value)
    return True


def _ids_of(record: logging.LogRecord) -> dict[str, str]:
    return {name: str(value) for name in log_ids.NAMES if (value := getattr(record, name, None))}


def _utc(record: logging.LogRecord) -> str:
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(record.created))}.{int(record.msecs):03d}Z"


class JsonLines(logging.Formatter):
    """One JSON object a line: time, level, logger, message, the ids, and the traceback as `error`."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        said = {"time": _utc(record), "level": record.levelname.lower(), "logger": record.name}
        said |= {"message": record.getMessage(), **_ids_of(record)}
        if record.exc_info:
            said["error"] = self.formatException(record.exc_info)
        return json.dumps(said, default=str)


class ReadableLines(logging.Formatter):
    """`2026-11-30 06:12:01 WARNING engine.trouble: no memory (batch_id 3f9c…)`, and the traceback below it."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        ids = ", ".join(f"{name} {value}" for name, value in _ids_of(record).items())
        stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.created))
        line = f"{stamp} {record.levelname} {record.name}: {record.getMessage()}" + (f" ({ids})" if ids else "")
        return line + (f"\n{self.formatException(record.exc_info)}" if record.exc_info else "")
