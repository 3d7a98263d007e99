"""What a witness answers, and what it never signs."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seipd.api.errors import status_of
from services.base.crypto.signatures import SigningKey
from services.base.ledger.checkpoint import (
    Checkpoint,
    sign_checkpoint,
    verify_checkpoint,
    verify_cosignature,
)
from services.base.ledger.merkle import EMPTY_ROOT, Frontier, consistency_proof, leaf_hash
from services.base.ledger.note import NoteVerifier
from services.base.ledger.witness import StaleSizeError, Witness, held_of, parse_request
from services.base.ledger.witnesskey import AHEAD_S, WitnessKey
from services.kernel.errors import NotFoundError, SeipdError, StorageError, WireError
from tests.fakes.witnessed import RememberedLog, RememberedLogs

LOG = SigningKey(b"l" * 32)
WITNESS = SigningKey(b"w" * 32)
ORIGIN = "log.example/feed"
NAME = "witness.example/1"
NOW_S = 1_700_000_000


class Clock:
    def __init__(self) -> None:
        self.now_s = NOW_S

    def now_ms(self) -> int:
        return self.now_s * 1000

    def monotonic_s(self) -> float:
        return 0.0


class Tree:
    """A log's tree, of which every size can be signed and proved."""

    def __init__(self, word: str = "leaf", common: int = 0) -> None:
        self.leaves = [
            leaf_hash(f"{'leaf' if i < common else word} {i}".encode()) for i in range(9)
        ]

    def node(self, level: int, index: int) -> bytes:
        frontier = Frontier()
        frontier.extend(self.leaves[index << level : (index + 1) << level])
        return frontier.root()

    def checkpoint(self, size: int, *extensions: str) -> bytes:
        frontier = Frontier()
        frontier.extend(self.leaves[:size])
        root = frontier.root()
        value = Checkpoint(origin=ORIGIN, size=size, root=root, extensions=extensions)
        return sign_checkpoint(value, signer=LOG)

    def request(self, old: int, new: int) -> bytes:
        proof = consistency_proof(old, new, self.node) if old else []
        return request(str(old), proof, self.checkpoint(new))


def request(old: str, proof: list[bytes], note: bytes) -> bytes:
    lines = "".join(base64.b64encode(one).decode() + "\n" for one in proof)
    return f"old {old}\n{lines}\n".encode() + note


class Place:
    def __init__(self) -> None:
        self.log = RememberedLog(NoteVerifier(name=ORIGIN, public_key=LOG.public_key))
        self.clock = Clock()
        self.key = WitnessKey(key=WITNESS, clock=self.clock)
        self.witness = Witness(logs=RememberedLogs(self.log), key=self.key, name=NAME)

    async def ask(self, body: bytes) -> tuple[int, str]:
        try:
            return 200, (await self.witness.add_checkpoint(body)).decode()
        except StaleSizeError as error:
            return status_of(error), str(error.size)
        except SeipdError as error:
            return status_of(error), error.code


TREE = Tree()


async def test_the_answer_verifies_beside_the_logs_signature() -> None:
    place = Place()
    status, line = await place.ask(TREE.request(0, 3))
    assert status == 200
    signed = TREE.checkpoint(3) + line.encode()
    assert verify_cosignature(signed, place.key.verifier(NAME)) == NOW_S
    # The whole signed checkpoint is remembered, so that a lie can be proved later.
    assert place.log.remembered is not None
    assert place.log.remembered.note == TREE.checkpoint(3)


async def test_the_same_checkpoint_is_signed_again() -> None:
    place = Place()
    await place.ask(TREE.request(0, 3))
    assert (await place.ask(request("3", [], TREE.checkpoint(3))))[0] == 200


async def test_led_05_a_second_root_at_one_size_is_never_signed_and_is_kept_as_evidence() -> None:
    place = Place()
    await place.ask(TREE.request(0, 3))
    fork = request("3", [], Tree("other").checkpoint(3))
    assert await place.ask(fork) == (422, "proof_invalid")
    assert [one.note for one in place.log.suspected] == [Tree("other").checkpoint(3)]
    assert place.log.remembered is not None
    assert place.log.remembered.note == TREE.checkpoint(3)


async def test_a_branch_that_parted_earlier_is_never_signed() -> None:
    place = Place()
    await place.ask(TREE.request(0, 5))
    for new in range(5, 10):
        assert await place.ask(Tree("other", common=3).request(5, new)) == (422, "proof_invalid")


async def test_led_06_of_two_at_once_one_is_signed_and_the_other_told_the_size() -> None:
    place = Place()
    await place.ask(TREE.request(0, 2))
    place.log.writing.clear()
    asks = [asyncio.create_task(place.ask(TREE.request(2, new))) for new in (4, 7)]
    # Both have decided on the same old size before either is remembered.
    for _ in range(10):
        await asyncio.sleep(0)
    assert not any(one.done() for one in asks)
    place.log.writing.set()
    first, second = await asyncio.gather(*asks)
    assert first[0] == 200
    assert second == (409, "4")
    assert held_of(place.log).size == 4


@pytest.mark.parametrize(
    ("old", "status"),
    [
        ("1", 409),
        ("0", 409),
        ("4", 409),
        ("6", 400),
        ("02", 400),
        ("+2", 400),
        ("-1", 400),
        ("", 400),
        (" 2", 400),
        ("2 ", 400),
        ("2_0", 400),
        ("٢", 400),
        ("2.0", 400),
        ("18446744073709551616", 400),
        ("9223372036854775808", 400),
        ("9" * 5000, 400),
    ],
)
async def test_led_07_a_wrong_old_size(old, status) -> None:
    place = Place()
    await place.ask(TREE.request(0, 2))
    proof = consistency_proof(2, 5, TREE.node)
    found, text = await place.ask(request(old, proof, TREE.checkpoint(5)))
    assert (found, held_of(place.log).size) == (status, 2)
    if status == 409:
        assert text == "2"


async def test_a_proof_from_nothing_is_refused() -> None:
    place = Place()
    body = request("0", [bytes(32)], TREE.checkpoint(3))
    assert await place.ask(body) == (422, "proof_invalid")
    assert place.log.remembered is None


async def test_an_empty_log_has_one_root() -> None:
    place = Place()
    note = sign_checkpoint(Checkpoint(origin=ORIGIN, size=0, root=bytes(32)), signer=LOG)
    assert await place.ask(request("0", [], note)) == (422, "proof_invalid")
    note = sign_checkpoint(Checkpoint(origin=ORIGIN, size=0, root=EMPTY_ROOT), signer=LOG)
    assert (await place.ask(request("0", [], note)))[0] == 200


async def test_only_the_logs_own_signature_counts() -> None:
    place = Place()
    other = SigningKey(b"x" * 32)
    value = Checkpoint(origin=ORIGIN, size=3, root=TREE.node(0, 0))
    assert await place.ask(request("0", [], sign_checkpoint(value, signer=other))) == (
        403,
        "sig_invalid",
    )
    assert await place.ask(
        request("0", [], sign_checkpoint(value, signer=LOG, name="another.name"))
    ) == (403, "sig_invalid")


async def test_lines_in_the_witness_name_do_not_poison_what_is_remembered() -> None:
    place = Place()
    forged = f"— {NAME} {base64.b64encode(bytes(76)).decode()}\n".encode()
    body = TREE.request(0, 3) + forged
    status, line = await place.ask(body)
    assert status == 200
    assert place.log.remembered is not None
    assert place.log.remembered.note == TREE.checkpoint(3)
    verify_cosignature(TREE.checkpoint(3) + line.encode(), place.key.verifier(NAME))


async def test_the_newest_checkpoint_is_read_by_the_hash_of_the_origin() -> None:
    place = Place()
    await place.ask(TREE.request(0, 3))
    await place.ask(TREE.request(3, 4))
    place.clock.now_s += 7
    found = place.witness.newest(hashlib.sha256(ORIGIN.encode()).hexdigest())
    assert verify_checkpoint(found, place.log.verifier, ORIGIN).size == 4
    assert verify_cosignature(found, place.key.verifier(NAME)) == NOW_S + 7
    with pytest.raises(NotFoundError):
        place.witness.newest(hashlib.sha256(b"another").hexdigest())


async def test_an_extension_line_is_refused() -> None:
    place = Place()
    body = request("0", [], TREE.checkpoint(3, "an extension"))
    assert await place.ask(body) == (400, "bad_checkpoint")


@pytest.mark.parametrize("count", [64, 200, 400])
def test_too_long_a_proof_is_refused(count) -> None:
    with pytest.raises(WireError):
        parse_request(request("2", [bytes(32)] * count, TREE.checkpoint(5)))


GOOD = TREE.request(2, 7)


@given(st.integers(0, len(GOOD) - 1), st.integers(1, 255))
def test_led_07_any_change_of_one_byte_is_refused_or_changes_nothing(at, flip) -> None:
    body = bytearray(GOOD)
    body[at] ^= flip

    async def story() -> None:
        place = Place()
        await place.ask(TREE.request(0, 2))
        status, _ = await place.ask(bytes(body))
        assert status in {400, 403, 404, 409, 422}
        assert held_of(place.log).size == 2

    asyncio.run(story())


@given(st.binary(max_size=300))
def test_any_bytes_are_a_request_or_malformed(data) -> None:
    with contextlib.suppress(WireError):
        assert parse_request(data).old_size >= 0


async def test_led_18_where_the_clock_goes_back_the_time_signed_does_not() -> None:
    place = Place()
    times = []
    for size, now_s in enumerate([NOW_S, NOW_S + 60, NOW_S - 3600, NOW_S + 30, NOW_S + 90], 1):
        place.clock.now_s = now_s
        _, line = await place.ask(TREE.request(size - 1, size))
        signed = TREE.checkpoint(size) + line.encode()
        times.append(verify_cosignature(signed, place.key.verifier(NAME)) - NOW_S)
        assert bool(place.key.trouble) == (times[-1] - (now_s - NOW_S) > AHEAD_S)
    assert times == [0, 60, 60, 60, 90]


async def test_led_18_the_time_signed_does_not_go_back_over_a_restart() -> None:
    kept: list[int] = []
    clock = Clock()
    first = WitnessKey(key=WITNESS, clock=clock, keep=kept.append)
    signed = []
    for _ in range(20):
        signed.append(first.sign("text\n")[0])
        assert kept[-1] >= signed[-1]
        clock.now_s += 1
    assert len(kept) == 4
    clock.now_s = NOW_S - 86_400
    again = WitnessKey(key=WITNESS, clock=clock, kept_s=kept[-1], keep=kept.append)
    assert "clock went back" in again.trouble
    assert again.sign("text\n")[0] >= signed[-1]


async def test_nothing_is_signed_where_its_time_can_not_be_kept() -> None:
    def keep(_: int) -> None:
        raise StorageError("no space")

    key = WitnessKey(key=WITNESS, clock=Clock(), keep=keep)
    for _ in range(2):
        with pytest.raises(StorageError):
            key.sign("text\n")
    assert key.last_s == 0
