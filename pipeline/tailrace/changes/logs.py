"""How a process writes its log: one line per event, as text for people or as JSON for machines.

An event is a log call whose fields travel in `extra`:

    _log.info("connection closed", extra={"client": "/10.0.0.7", "after_s": 3.2})

    text   2026-11-25 04:50:01,123 INFO tailrace.broker connection closed client=/10.0.0.7 after_s=3.2
    json   {"time": "2026-11-25T04:50:01.123+00:00", "level": "INFO", "logger": "tailrace.broker",
            "event": "connection closed", "client": "/10.0.0.7", "after_s": 3.2}

Never a row value, never a secret.
"""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any, Literal

LogFormat = Literal["text", "json"]

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def log_to_stderr(style: LogFormat = "text", level: int = logging.INFO) -> None:
    """Send every logger of this process to standard error, in one style."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if style == "json" else TextFormatter())
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)


class TextFormatter(logging.Formatter):
    """The line that people read; fields follow the message as name=value."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The message with its fields, on one line."""
        line = " ".join(super().formatMessage(record).splitlines())
        return " ".join([line, *(f"{name}={_shown(value)}" for name, value in _fields(record).items())])


class JsonFormatter(logging.Formatter):
    """One JSON object a line; a traceback is the field `exception`."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as JSON."""
        when = datetime.fromtimestamp(record.created, UTC)
        document = {
            "time": when.isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "event": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            document["exception"] = self.formatException(record.exc_info)
        return json.dumps(document, default=str, ensure_ascii=False)


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    return {name: value for name, value in vars(record).items() if name not in _STANDARD}


def _shown(value: object) -> str:
    text = str(value)
    return json.dumps(text) if any(character in text for character in ' "=\n') or not text else text
