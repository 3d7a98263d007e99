"""Logs: one event a line, as text or JSON; nothing in it can forge a line or paint a terminal."""

from __future__ import annotations

import datetime
import logging
import re
import sys
from collections import OrderedDict
from typing import Any

import orjson
from typing_extensions import override

_STANDARD = frozenset(logging.LogRecord("", 0, "", 0, "", None, None).__dict__) | {
    "message",
    "asctime",
    "taskName",
}
_SECRET = ("token", "secret", "password", "passphrase", "private_key", "seed", "authorization")
_PLAIN = re.compile(r"[^\s\"=]+")

WINDOW_S = 10.0
EVENTS_PER_WINDOW = 50
MAX_EVENTS = 1024


def configure_logging(level: str, style: str) -> None:
    """Send the logs of this process to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LineFormatter(json=style == "json"))
    handler.addFilter(FloodFilter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for noisy in ("asyncio", "aiohttp", "pyroute2"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


class FloodFilter(logging.Filter):
    """Lets each event through fifty times in ten seconds; then tells how many were left out.

    An event is a logger and the message before its values are put in, so a peer that sends another
    name each time does not get another allowance each time.
    """

    def __init__(self) -> None:
        super().__init__()
        self._windows: OrderedDict[tuple[str, str], tuple[float, int]] = OrderedDict()

    @override
    def filter(self, record: logging.LogRecord) -> bool:
        """Say whether a record is written."""
        event = (record.name, str(record.msg))
        began_s, count = self._windows.pop(event, (record.created, 0))
        left_out = 0
        if not 0 <= record.created - began_s < WINDOW_S:
            left_out = max(count - EVENTS_PER_WINDOW, 0)
            began_s, count = record.created, 0
        self._windows[event] = (began_s, count + 1)
        while len(self._windows) > MAX_EVENTS:
            self._windows.popitem(last=False)
        if left_out:
            record.left_out_count = left_out
        return count < EVENTS_PER_WINDOW


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
            "event": escaped(record.getMessage()),
        }
        for name, value in record.__dict__.items():
            if name not in _STANDARD:
                secret = any(word in name.lower() for word in _SECRET)
                facts[name] = "…" if secret else escaped(str(value))
        if record.exc_info:
            facts["trace"] = escaped(self.formatException(record.exc_info))
        if self._json:
            return orjson.dumps(facts).decode("utf-8")
        head = " ".join(facts.pop(name) for name in ("time", "level", "service", "event"))
        return head + "".join(f" {name}={_quoted(value)}" for name, value in facts.items())


def escaped(text: str) -> str:
    """Return text on one line, control characters and lone surrogates written out."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii")
        for char in text
    )


def _quoted(text: str) -> str:
    """Return a value that no reader takes for two."""
    if _PLAIN.fullmatch(text):
        return text
    inner = text.replace('"', '\\"')
    return f'"{inner}"'


def _utc(seconds: float) -> str:
    when = datetime.datetime.fromtimestamp(seconds, tz=datetime.UTC)
    return when.strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
