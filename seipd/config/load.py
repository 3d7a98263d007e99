"""Settings from flags, environment, file and defaults, in this order, and where each came from."""

from __future__ import annotations

import dataclasses
import difflib
import stat
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seipd.config.model import DEFAULT_CONFIG, BadSettingsError, Settings
from services.kernel.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

ENVIRONMENT_PREFIX = "SEIPD_"
MAX_FILE_BYTES = 1 << 20

_FIELDS = {one.name: one for one in dataclasses.fields(Settings) if one.name != "sources"}
_OTHER_VARIABLES = ("SEIPD_CONFIG", "SEIPD_JSON")


def load_settings(
    *, flags: Mapping[str, Any], environment: Mapping[str, str], config: Path | None = None
) -> Settings:
    """Return the settings in force.

    Raises:
        ConfigError: every fault found, each with the place where it stands.
    """
    chosen = config or (Path(text) if (text := environment.get("SEIPD_CONFIG")) else None)
    path = chosen or DEFAULT_CONFIG
    faults: list[str] = []
    given = _Given()
    if chosen is not None or path.exists():
        _take_file(path, given, faults)
    _take_environment(environment, given, faults)
    for name, value in flags.items():
        if value is not None and name in _FIELDS:
            given.put(name, value, source=f"--{name.replace('_', '-')}")
    settings = _settings_of(given, faults)
    if faults or settings is None:
        raise ConfigError("; ".join(faults), mend="mend what is named and try again")
    return settings


class _Given:
    """What was said, by whom, and the place that a person looks at to mend it."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.sources: dict[str, str] = dict.fromkeys(_FIELDS, "default")
        self._places: dict[str, str] = {}

    def put(self, name: str, value: object, *, source: str, place: str = "") -> None:
        self.values[name], self.sources[name] = value, source
        self._places[name] = place or source

    def told(self, name: str, text: str) -> str:
        """Return a fault with its place in front."""
        place = self._places.get(name)
        return f"{place}: {name} {text}" if place else f"{name} {text}"


def _settings_of(given: _Given, faults: list[str]) -> Settings | None:
    """Convert and check; what could not be converted is left out, so that the rest is judged."""
    good: dict[str, Any] = {}
    for name, value in given.values.items():
        kind = str(_FIELDS[name].type)
        try:
            good[name] = _CONVERTERS[kind](value)
        except (ValueError, TypeError):
            faults.append(given.told(name, f"must be {_WORDS[kind]}, not {str(value)[:40]!r}"))
    try:
        return Settings(**good, sources=given.sources)
    except BadSettingsError as error:
        faults += [given.told(name, text) for name, text in error.faults]
        return None


def _take_environment(environment: Mapping[str, str], given: _Given, faults: list[str]) -> None:
    for variable, text in sorted(environment.items()):
        if not variable.startswith(ENVIRONMENT_PREFIX) or variable in _OTHER_VARIABLES:
            continue
        name = variable.removeprefix(ENVIRONMENT_PREFIX).lower()
        if name in _FIELDS:
            given.put(name, text, source=variable)
        elif near := _nearest(name):
            # A variable that is like none of ours may be another program's; a near miss is a typo.
            faults.append(f"{variable}: unknown, did you mean {ENVIRONMENT_PREFIX}{near.upper()}?")


def _take_file(path: Path, given: _Given, faults: list[str]) -> None:
    text = _text_of(path)
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: {error}", mend="write it as TOML: name = value") from error
    for key, value in table.items():
        name = key.replace("-", "_")
        place = f"{path}:{_line_of(text, key)}"
        if name in _FIELDS:
            given.put(name, value, source=str(path), place=place)
            continue
        near = _nearest(name)
        hint = f", did you mean {near}?" if near else ""
        faults.append(f"{place}: unknown key {key[:40]}{hint}")


def _text_of(path: Path) -> str:
    try:
        mode = path.stat().st_mode
        if mode & stat.S_IWOTH:
            raise ConfigError(
                f"{path} can be written by everybody",
                code="key_permissions",
                mend=f"chmod o-w {path}",
            )
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
        text = data.decode("utf-8")
    except OSError as error:
        raise ConfigError(
            f"{path} can't be read: {error.strerror}", mend="name another with --config"
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8", mend="write it as UTF-8") from error
    if len(data) > MAX_FILE_BYTES:
        raise ConfigError(f"{path} is over {MAX_FILE_BYTES} bytes", mend="name another file")
    return text


def _nearest(name: str) -> str | None:
    near = difflib.get_close_matches(name, _FIELDS, n=1, cutoff=0.75)
    return near[0] if near else None


def _line_of(text: str, key: str) -> int:
    for number, line in enumerate(text.splitlines(), 1):
        words = line.replace("=", " ").split()
        if words and words[0].strip("\"'[]") == key:
            return number
    return 1


def _to_int(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    text = _to_text(value)
    if not text.isascii() or not text.isdigit() or (text[0] == "0" and text != "0"):
        raise ValueError
    return int(text)


def _to_float(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise TypeError
    return float(value)


def _to_bool(value: object) -> bool:
    if isinstance(value, bool):
        return value
    if not isinstance(value, str) or value.lower() not in ("true", "1", "false", "0"):
        raise ValueError
    return value.lower() in ("true", "1")


def _to_text(value: object) -> str:
    if not isinstance(value, (str, Path)):
        raise TypeError
    return str(value)


def _to_path(value: object) -> Path:
    text = _to_text(value)
    if not text or "\0" in text:
        raise ValueError
    return Path(text)


_CONVERTERS: dict[str, Any] = {
    "int": _to_int,
    "float": _to_float,
    "bool": _to_bool,
    "str": _to_text,
    "Path": _to_path,
}
_WORDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "text",
    "Path": "a path",
}
