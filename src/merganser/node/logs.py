"""Structured logs: one JSON object per event and line."""

from __future__ import annotations

import datetime
import logging
import sys
from collections.abc import Mapping
from typing import TextIO

import orjson

LOGGER = logging.getLogger("merganser")


class JsonLines(logging.Formatter):
    """Formats a record as one line: time, level, event, then the fields of all events and the event's own."""

    def __init__(self, fields: Mapping[str, object]) -> None:
        """Put ``fields`` into every line."""
        super().__init__()
        self._fields = fields

    def format(self, record: logging.LogRecord) -> str:
        """Return the line without its end."""
        moment = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
        line = {
            "time": moment.isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **self._fields,
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return orjson.dumps(line, default=str).decode()


def log_to(stream: TextIO = sys.stderr, **fields: object) -> None:
    """Send the events of this process to ``stream``, all of them with ``fields``."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines(fields))
    LOGGER.handlers = [handler]
    LOGGER.setLevel(logging.INFO)
    LOGGER.propagate = False


def event(name: str, **fields: object) -> None:
    """Log that something happened."""
    LOGGER.info(name, extra={"fields": fields})


def failure(name: str, error: BaseException | None = None, **fields: object) -> None:
    """Log that something went wrong, with its traceback."""
    LOGGER.error(name, exc_info=error, extra={"fields": fields})
