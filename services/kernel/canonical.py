"""The one JSON loader and the one canonical encoder (RFC 8785, integers only).

Nothing signed and nothing from outside is parsed by anything else: duplicate keys, floats, NaN,
numbers beyond 2**53-1, lone surrogates, a byte order mark and nesting deeper than 32 are refused
here, before any other code sees the value.
"""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn

import orjson

from services.kernel.errors import WireError

MAX_DEPTH = 32
MAX_INTEGER = 2**53 - 1

JsonValue = None | bool | int | str | list[Any] | dict[str, Any]

_STRING = re.compile(rb'"(?:[^"\\]|\\.)*+"', re.DOTALL)
_CLOSERS = frozenset(b"]}")
_OPENERS = frozenset(b"[{")


class NotCanonicalError(WireError):
    """The bytes are JSON, but not the one spelling that RFC 8785 allows."""

    default_code = "non_canonical"


class BadJsonError(WireError):
    """The bytes are not the JSON that we read."""

    default_code = "bad_json"


def encode(value: JsonValue) -> bytes:
    """Return the RFC 8785 bytes of a value.

    Raises:
        BadJsonError: a float, an integer beyond 2**53-1, a lone surrogate, a key that is not a
            string, or nesting deeper than 32.
    """
    ascii_keys = _check(value)
    try:
        if ascii_keys:
            return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
        return orjson.dumps(_utf16_sorted(value))
    except (TypeError, ValueError, RecursionError) as error:
        raise BadJsonError(f"not encodable: {error}") from error


def decode_canonical(data: bytes) -> JsonValue:
    """Parse bytes that must be in canonical form.

    Raises:
        BadJsonError: not our JSON.
        NotCanonicalError: JSON in another spelling (spaces, key order, duplicate keys, escapes).
    """
    check_depth(data)
    try:
        value: JsonValue = orjson.loads(data)
    except ValueError as error:
        raise BadJsonError(f"not JSON: {error}") from error
    if encode(value) != data:
        raise NotCanonicalError("not in RFC 8785 canonical form")
    return value


def decode(data: bytes) -> JsonValue:
    """Parse JSON in any spelling, as strictly as everything else here.

    Raises:
        BadJsonError: anything that is not exactly one JSON value within the limits.
    """
    check_depth(data)
    try:
        text = data.decode("utf-8")
        value: JsonValue = json.loads(  # noqa: TID251 (this is the one place)
            text,
            object_pairs_hook=_unique_pairs,
            parse_constant=_refuse_number,
            parse_float=_refuse_number,
            parse_int=_bounded_int,
        )
    except BadJsonError:
        raise
    except (ValueError, RecursionError) as error:
        raise BadJsonError(f"not JSON: {error}") from error
    _check(value)
    return value


def decode_object(data: bytes) -> dict[str, Any]:
    """Parse JSON whose top level must be an object.

    Raises:
        BadJsonError: not JSON, or not an object.
    """
    value = decode(data)
    if not isinstance(value, dict):
        raise BadJsonError("the top level must be an object")
    return value


def check_depth(data: bytes) -> None:
    """Refuse nesting deeper than 32 before any parser recurses.

    Raises:
        BadJsonError: too deep.
    """
    if data.count(b"[") + data.count(b"{") <= MAX_DEPTH:
        return
    depth = 0
    for byte in _STRING.sub(b"", data):
        if byte in _OPENERS:
            depth += 1
            if depth > MAX_DEPTH:
                raise BadJsonError(f"nested deeper than {MAX_DEPTH}")
        elif byte in _CLOSERS:
            depth -= 1


def _check(value: object, depth: int = 0) -> bool:
    """Walk a value; say whether all keys are ASCII (then orjson's key order is RFC 8785's)."""
    kind = type(value)
    if kind is str:
        _check_text(value)  # type: ignore[arg-type]
        return True
    if value is None or kind is bool:
        return True
    if kind is int:
        if not -MAX_INTEGER <= value <= MAX_INTEGER:  # type: ignore[operator]
            raise BadJsonError("integer beyond 2**53-1")
        return True
    if kind is dict or kind is list:
        return _check_container(value, depth)  # type: ignore[arg-type]
    raise BadJsonError(f"{kind.__name__} has no place in our JSON")


def _check_container(value: dict[object, object] | list[object], depth: int) -> bool:
    if depth >= MAX_DEPTH:
        raise BadJsonError(f"nested deeper than {MAX_DEPTH}")
    ascii_keys = True
    if type(value) is list:
        for item in value:
            ascii_keys &= _check(item, depth + 1)
        return ascii_keys
    for key, item in value.items():  # type: ignore[union-attr]
        if type(key) is not str:
            raise BadJsonError("a key must be a string")
        if not key.isascii():
            _check_text(key)
            ascii_keys = False
        ascii_keys &= _check(item, depth + 1)
    return ascii_keys


def _check_text(text: str) -> None:
    if text.isascii():
        return
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise BadJsonError("lone surrogate in a string", code="bad_field") from error


def _utf16_sorted(value: object) -> object:
    if type(value) is dict:
        ordered = sorted(value.items(), key=lambda pair: pair[0].encode("utf-16-be"))
        return {key: _utf16_sorted(item) for key, item in ordered}
    if type(value) is list:
        return [_utf16_sorted(item) for item in value]
    return value


def _unique_pairs(pairs: list[tuple[str, object]]) -> dict[str, object]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise BadJsonError("duplicate key")
    return result


def _refuse_number(text: str) -> NoReturn:
    raise BadJsonError(f"{text[:20]} is not an integer")


def _bounded_int(text: str) -> int:
    if len(text) > 17:
        raise BadJsonError("integer beyond 2**53-1")
    return int(text)
