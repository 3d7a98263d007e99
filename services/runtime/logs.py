"""Logs: one event a line, as text or JSON; nothing in it can forge a line or paint a terminal."""

from __future__ import annotations

import datetime
import logging
import sys
from typing import Any

import orjson
from typing_extensions import override

_STANDARD = frozenset(logging.LogRecord("", 0, "", 0, "", None, None).__dict__) | {
    "message",
    "asctime",
    "taskName",
}
_SECRET = ("token", "secret", "password", "private_key", "seed", "authorization")


def configure_logging(level: str, style: str) -> None:
    """Send the logs of this process to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LineFormatter(json=style == "json"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for noisy in ("asyncio", "aiohttp", "pyroute2"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


class LineFormatter(logging.Formatter):
    """One record, one line."""

    def __init__(self, *, json: bool) -> None:
        super().__init__()
        self._json = json

    @override
    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record."""
        facts: dict[str, Any] = {
            "time": _utc(record.created),
            "level": record.levelname.lower(),
            "service": record.name,
            "event": record.getMessage(),
        }
        for name, value in record.__dict__.items():
            if name not in _STANDARD:
                facts[name] = "…" if any(word in name.lower() for word in _SECRET) else str(value)
        if record.exc_info:
            facts["trace"] = self.formatException(record.exc_info)
        if self._json:
            return orjson.dumps(facts).decode("utf-8")
        head = " ".join(str(facts.pop(name)) for name in ("time", "level", "service"))
        event = escaped(str(facts.pop("event")))
        rest = "".join(f" {name}={escaped(str(value))}" for name, value in facts.items())
        return f"{head} {event}{rest}"


def escaped(text: str) -> str:
    """Return text on one line, control characters written out."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii")
        for char in text
    )


def _utc(seconds: float) -> str:
    when = datetime.datetime.fromtimestamp(seconds, tz=datetime.UTC)
    return when.strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
