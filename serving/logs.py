"""Log lines on stderr, as JSON or as text; no user's text unless it was asked for."""

from __future__ import annotations

import logging
import re
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from serving.errors import ServingError
from serving.settings import Settings

_TRACE_PARENT = re.compile(
    rb"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-[0-9a-f]{2}(-.*)?"
)


class LineFormatter(logging.Formatter):
    """One line per record: time, level, logger, message."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self._render = renderer(settings)
        self._texts = settings.log_texts

    def format(self, record: logging.LogRecord) -> str:
        """The line; an exception is told by its kind and place, as its message may quote a text."""
        message = record.getMessage()
        if record.exc_info and record.exc_info[1]:
            message += f": {describe_error(record.exc_info[1], texts=self._texts)}"
        level = record.levelname.lower()
        return self._render(record.created, level, record.name, {"message": message})


def renderer(settings: Settings) -> Callable[[float, str, str, dict[str, Any]], str]:
    """How a line is made of the seconds since the epoch, level, logger and other fields."""
    terminal = settings.log_format == "auto" and sys.stderr.isatty()

    def render(when: float, level: str, name: str, fields: dict[str, Any]) -> str:
        moment = datetime.fromtimestamp(when, UTC).isoformat(timespec="milliseconds")
        if settings.log_format == "text" or terminal:
            told = (
                f"{key}={value}" if key != "message" else value for key, value in fields.items()
            )
            return " ".join([moment, level, name, *told])
        line = {"time": moment, "level": level, "logger": name, **fields}
        return msgspec.json.encode(line).decode()

    return render


def describe_error(error: BaseException, *, texts: bool) -> str:
    """What failed and where; a message we did not write may quote a text, so it stays out."""
    told = str(error) if texts or isinstance(error, ServingError) else "(message withheld)"
    frames = "".join(traceback.format_tb(error.__traceback__))
    return f"{type(error).__name__}: {told}\n{frames}"


def configure_logging(settings: Settings) -> None:
    """Send every logger of the process, uvicorn's too, to stderr in one form."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LineFormatter(settings))
    logging.basicConfig(handlers=[handler], level=settings.log_level.upper(), force=True)


class RequestLog:
    """A line per request at level info; without `logging`, which costs more than all else."""

    def __init__(self, settings: Settings) -> None:
        self._render = renderer(settings)
        self.wanted = settings.log_requests and settings.log_level in ("debug", "info")

    def write(self, fields: dict[str, Any]) -> None:
        """Write one line about one request."""
        line = self._render(time.time(), "info", "serving.request", fields)
        sys.stderr.write(f"{line}\n")


def read_trace_parent(values: Sequence[bytes]) -> tuple[str, str] | None:
    """The trace id and the caller's span id of a request's `traceparent` headers, if valid.

    Source: W3C Trace Context, section 3.2.
    """
    match = _TRACE_PARENT.fullmatch(values[0]) if len(values) == 1 else None
    if match is None or (match[1] == b"00" and match[4]):
        return None  # a version we know has nothing more; of others the first parts are the same
    return match[2].decode(), match[3].decode()
