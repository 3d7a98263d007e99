"""DNS names in wire format: length-prefixed labels, a zero at the end (RFC 1035 section 3.1). Pure.

Where a name is a key it is in lower case.
"""

from __future__ import annotations

from typing import Final

from services.kernel.errors import InputError

MAX_NAME_BYTES: Final = 255
MAX_LABEL_BYTES: Final = 63
ROOT: Final = b"\0"


def name_of(text: str) -> bytes:
    """Return a name in wire format, in lower case; a last dot makes no difference.

    Raises:
        InputError: ``bad_name``: an empty label, one over 63 octets, over 255 in all, not ASCII.
    """
    body = text.removesuffix(".").lower()
    if not body:
        return ROOT
    wire = bytearray()
    for label in body.split("."):
        if not 0 < len(label) <= MAX_LABEL_BYTES or not label.isascii():
            raise InputError(f"{text[:64]!r} is not a DNS name", code="bad_name")
        wire += bytes([len(label)]) + label.encode("ascii")
    if len(wire) + 1 > MAX_NAME_BYTES:
        raise InputError("a DNS name has at most 255 octets", code="bad_name")
    return bytes(wire) + ROOT


def labels_of(name: bytes) -> list[bytes]:
    """Return the labels of a name in wire format, the first one first, without the root."""
    labels, at = [], 0
    while length := name[at]:
        labels.append(name[at + 1 : at + 1 + length])
        at += 1 + length
    return labels


def text_of(name: bytes) -> str:
    """Return a name as people write it, without the last dot; odd octets as three digits."""
    texts = []
    for label in labels_of(name):
        plain = (
            chr(octet) if 0x21 <= octet <= 0x7E and octet not in b'.\\"' else f"\\{octet:03d}"
            for octet in label
        )
        texts.append("".join(plain))
    return ".".join(texts) or "."


def parents_of(name: bytes) -> list[bytes]:
    """Return the names above one, the nearest first, the root left out."""
    parents, at = [], 0
    while name[at]:
        at += 1 + name[at]
        if name[at]:
            parents.append(name[at:])
    return parents


def is_below(name: bytes, apex: bytes) -> bool:
    """Say whether a name is an apex or lies below it."""
    if name == apex:
        return True
    # The octets of a suffix may stand by chance at the end of a longer label: labels are walked.
    return name.endswith(apex) and apex in parents_of(name)
