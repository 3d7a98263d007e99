"""Settings from flags, environment, file and defaults, in this order, and where each came from."""

from __future__ import annotations

import dataclasses
import difflib
import stat
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seipd.config.model import DEFAULT_CONFIG, Settings
from services.kernel.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

ENVIRONMENT_PREFIX = "SEIPD_"
MAX_FILE_BYTES = 1 << 20

_FIELDS = {one.name: one for one in dataclasses.fields(Settings) if one.name not in ("sources",)}


def load_settings(
    *, flags: Mapping[str, Any], environment: Mapping[str, str], config: Path | None = None
) -> Settings:
    """Return the settings in force.

    Raises:
        ConfigError: every fault found, in one message.
    """
    chosen = config or (Path(text) if (text := environment.get("SEIPD_CONFIG")) else None)
    path = chosen or DEFAULT_CONFIG
    values: dict[str, Any] = {}
    sources: dict[str, str] = dict.fromkeys(_FIELDS, "default")
    faults: list[str] = []
    if chosen is not None or path.exists():
        for name, value in _read_file(path, faults).items():
            values[name], sources[name] = value, str(path)
    for name in _FIELDS:
        text = environment.get(ENVIRONMENT_PREFIX + name.upper())
        if text is not None:
            values[name], sources[name] = text, ENVIRONMENT_PREFIX + name.upper()
    for name, value in flags.items():
        if value is not None and name in _FIELDS:
            values[name], sources[name] = value, f"--{name.replace('_', '-')}"
    converted = {name: _convert(name, value, faults) for name, value in values.items()}
    if faults:
        raise ConfigError("; ".join(faults), mend=f"mend {path} or the variables named")
    return Settings(**converted, sources=sources)


def _read_file(path: Path, faults: list[str]) -> dict[str, Any]:
    try:
        mode = path.stat().st_mode
        if mode & stat.S_IWOTH:
            raise ConfigError(
                f"{path} can be written by everybody",
                code="key_permissions",
                mend=f"chmod o-w {path}",
            )
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} can't be read: {error}") from error
    try:
        table = tomllib.loads(text[:MAX_FILE_BYTES])
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: {error}", mend="write it as TOML: name = value") from error
    known: dict[str, Any] = {}
    for key, value in table.items():
        name = key.replace("-", "_")
        if name in _FIELDS:
            known[name] = value
            continue
        near = difflib.get_close_matches(name, _FIELDS, n=1)
        hint = f", did you mean {near[0]}?" if near else ""
        faults.append(f"{path}:{_line_of(text, key)}: unknown key {key[:40]}{hint}")
    return known


def _line_of(text: str, key: str) -> int:
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith(key):
            return number
    return 1


def _convert(name: str, value: Any, faults: list[str]) -> Any:  # noqa: ANN401 (TOML, text or flag)
    kind = str(_FIELDS[name].type)
    try:
        return _CONVERTERS[kind](value)
    except (ValueError, TypeError):
        faults.append(f"{name} must be {_WORDS[kind]}, not {str(value)[:40]!r}")
        return None


def _to_int(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise TypeError
    text = str(value)
    if not text.isascii() or not text.isdigit():
        raise ValueError
    return int(text)


def _to_float(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise TypeError
    return float(value)


def _to_bool(value: object) -> bool:
    if isinstance(value, bool):
        return value
    text = str(value).lower()
    if text not in ("true", "1", "false", "0"):
        raise ValueError
    return text in ("true", "1")


def _to_text(value: object) -> str:
    if not isinstance(value, (str, Path)):
        raise TypeError
    return str(value)


_CONVERTERS: dict[str, Any] = {
    "int": _to_int,
    "float": _to_float,
    "bool": _to_bool,
    "str": _to_text,
    "Path": lambda value: Path(_to_text(value)),
}
_WORDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "text",
    "Path": "a path",
}
