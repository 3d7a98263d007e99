"""SLIP-39's published shares, combined by our arithmetic; the rest of SLIP-39 stands here alone."""

from __future__ import annotations

import hashlib
import hmac
from collections import defaultdict
from dataclasses import dataclass

import pytest

from services.base.crypto.shamir import interpolate
from services.kernel import canonical
from tests.vectors.locate import vectors_dir

SECRET_INDEX, DIGEST_INDEX = 255, 254
GENERATOR = (
    0xE0E040, 0x1C1C080, 0x3838100, 0x7070200, 0xE0E0009,
    0x1C0C2412, 0x38086C24, 0x3090FC48, 0x21B1F890, 0x3F3F120,
)  # fmt: skip
FOLDER = vectors_dir("slip39")
WORDS = {word: at for at, word in enumerate((FOLDER / "wordlist.txt").read_text().split())}
ROWS = canonical.decode((FOLDER / "vectors.json").read_bytes())


@dataclass(frozen=True)
class Mnemonic:
    identifier: int
    extendable: int
    exponent: int
    group: int
    group_threshold: int
    group_count: int
    index: int
    threshold: int
    value: bytes


def checksum(values: list[int]) -> int:
    state = 1
    for value in values:
        top = state >> 20
        state = (state & 0xFFFFF) << 10 ^ value
        for at in range(10):
            state ^= GENERATOR[at] if top >> at & 1 else 0
    return state


def read(text: str) -> Mnemonic:
    words = [WORDS[word] for word in text.split()]
    extendable = words[1] >> 4 & 1
    custom = b"shamir_extendable" if extendable else b"shamir"
    if len(words) < 20 or checksum([*custom, *words]) != 1:
        raise ValueError("checksum")
    head = 0
    for word in words[:4]:
        head = head << 10 | word
    padding = 10 * (len(words) - 7) % 16
    number = 0
    for word in words[4:-3]:
        number = number << 10 | word
    length = (10 * (len(words) - 7) - padding) // 8
    if padding > 8 or number >> 8 * length:
        raise ValueError("padding")
    return Mnemonic(
        identifier=head >> 25,
        extendable=extendable,
        exponent=head >> 20 & 15,
        group=head >> 16 & 15,
        group_threshold=(head >> 12 & 15) + 1,
        group_count=(head >> 8 & 15) + 1,
        index=head >> 4 & 15,
        threshold=(head & 15) + 1,
        value=number.to_bytes(length, "big"),
    )


def recovered(threshold: int, points: list[tuple[int, bytes]]) -> bytes:
    if len(points) != threshold:
        raise ValueError("number of shares")
    if threshold == 1:
        return points[0][1]
    secret = interpolate(points, at=SECRET_INDEX)
    digest = interpolate(points, at=DIGEST_INDEX)
    if hmac.digest(digest[4:], secret, "sha256")[:4] != digest[:4]:
        raise ValueError("digest")
    return secret


def decrypted(secret: bytes, one: Mnemonic) -> bytes:
    half = len(secret) // 2
    left, right = secret[:half], secret[half:]
    salt = b"" if one.extendable else b"shamir" + one.identifier.to_bytes(2, "big")
    for step in (3, 2, 1, 0):
        rounds = (10000 << one.exponent) // 4
        key = hashlib.pbkdf2_hmac(
            "sha256", bytes([step]) + b"TREZOR", salt + right, rounds, dklen=half
        )
        left, right = right, bytes(a ^ b for a, b in zip(left, key, strict=True))
    return right + left


def combined(mnemonics: list[str]) -> bytes:
    shares = [read(text) for text in mnemonics]
    first = shares[0]
    for one in shares:
        alike = ("identifier", "extendable", "exponent", "group_threshold", "group_count")
        if any(getattr(one, name) != getattr(first, name) for name in alike):
            raise ValueError("not of one set")
        if len(one.value) < 16 or len(one.value) % 2 or len(one.value) != len(first.value):
            raise ValueError("length")
    if first.group_threshold > first.group_count:
        raise ValueError("group threshold")
    groups: dict[int, list[Mnemonic]] = defaultdict(list)
    for one in shares:
        groups[one.group].append(one)
    points = []
    for group, members in groups.items():
        if len({(one.threshold) for one in members}) != 1:
            raise ValueError("member threshold")
        if len({one.index for one in members}) != len(members):
            raise ValueError("member twice")
        value = recovered(members[0].threshold, [(one.index, one.value) for one in members])
        points.append((group, value))
    return decrypted(recovered(first.group_threshold, points), first)


def test_every_vector_is_here() -> None:
    assert len(ROWS) == 45
    assert sum(1 for row in ROWS if row[2]) == 15


@pytest.mark.parametrize("row", [row for row in ROWS if row[2]], ids=lambda row: row[0][:40])
def test_valid_shares_give_the_master_secret(row: list) -> None:
    assert combined(row[1]).hex() == row[2]


@pytest.mark.parametrize("row", [row for row in ROWS if not row[2]], ids=lambda row: row[0][:40])
def test_rkc_10_invalid_shares_give_nothing(row: list) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 (each of the many kinds)
        combined(row[1])
