"""A million packets for the DNS codec: what a stranger, an insider and a server asked may send.

    python -m tests.fuzz.fuzz_dns [--count 1000000] [--seed 1] [--engine auto|atheris|seeded]

Where atheris (a PyPI wheel) is installed it looks for bytes that reach new code; without it a
seeded generator makes packets out of good ones. Both judge each answer by the same rules; the first
packet that breaks one ends the run with its bytes.
"""

from __future__ import annotations

import argparse
import contextlib
import inspect
import os
import random
import shutil
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from services.edge.dns import (
    answering,
    building,
    denial,
    replies,
    signedbody,
    signing,
    wire,
    zone,
)
from services.edge.dns.replies import Question, parse_reply
from services.edge.dns.wire import parse_query
from services.kernel.dnsnames import name_of
from services.kernel.errors import WireError
from tests.fakes.signed_zone import SignedZone
from tests.unit.edge_dns.dns_kit import (
    DOMAIN,
    INSIDE,
    LONG,
    NOW_S,
    STRANGER,
    STREAM,
    Small,
    cookie,
    opt,
    query,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FunctionType, ModuleType

NAMES = ("", LONG, f"_config.{LONG}", "eu-west.seip", "ns1", "pc.acme.ep", "no", "x.org.", ".")
TYPES = (1, 2, 5, 6, 12, 15, 16, 28, 33, 41, 43, 46, 47, 48, 65, 97, 251, 252, 255, 257)
QUESTION = Question(message_id=b"\x12\x34", name=name_of(f"{LONG}.{DOMAIN}"), rtype=1)
CODES = {0, 1, 3, 4, 5}
DNSSEC_OK = 0x8000


class Judge:
    """Feeds packets to one answerer, and looks at what comes of them."""

    def __init__(self) -> None:
        self.small = signed()
        self.count = 0
        self.answered_count = 0

    def look(self, data: bytes) -> None:
        """Judge one packet."""
        self.count += 1
        for asker in (STRANGER, INSIDE, STREAM):
            answer = self.small.raw(data, asker)
            if answer is None:
                assert len(data) < 12 or data[2] & 0x80, "a query without an answer"
                continue
            self.answered_count += 1
            self.check(data, answer, asker)
        with contextlib.suppress(WireError):
            parse_reply(b"\x12\x34" + data[2:], QUESTION).texts()

    def check(self, data: bytes, answer: bytes, asker) -> None:
        """Judge one answer."""
        assert answer[:2] == data[:2], "another id"
        assert answer[2] & 0x80, "no response"
        assert answer[3] & 0xF in CODES, "an odd code"
        assert len(answer) >= 12
        if answer[4:6] == b"\0\1":
            asked = parse_query(data)
            assert answer[12:].startswith(asked.question), "another question"
        if asker is STRANGER and not self.has_cookie(data):
            assert len(answer) <= 1.5 * len(data), "amplified"
        if not asker.stream:
            assert len(answer) <= 1232, "too long"
        assert self.small.raw(answer, asker) is None, "an answer to an answer"

    def has_cookie(self, data: bytes) -> bool:
        """Say whether a packet holds a cookie of ours: among the good ones some do."""
        try:
            edns = parse_query(data).edns
        except WireError:
            return False
        if edns is None:
            return False
        cookies, address = self.small.answerer._cookies, STRANGER.address
        return cookies.is_good(edns.client_cookie, edns.server_cookie, address, now_s=NOW_S)


def signed() -> Small:
    """Return an answerer that signs where it is asked to."""
    return Small(signer=SignedZone(DOMAIN, now_s=NOW_S).signer)


def good_packets(rng: random.Random) -> list[bytes]:
    """Return queries of many kinds, and the answers to them."""
    good = []
    for name in NAMES:
        for rtype in TYPES:
            good.append(query(name, rtype, rclass=rng.choice((1, 1, 1, 3, 255))))
            options = rng.choice((b"", cookie(bytes(8)), cookie(bytes(8), bytes(16)), b"\0\3\0\0"))
            good.append(query(name, rtype, edns=rng.choice((0, 512, 1232, 65535)), options=options))
            plain = query(name, rtype)
            good.append(plain[:10] + b"\0\1" + plain[12:] + opt(1232, options, flags=DNSSEC_OK))
    answers = [one for asked in good if (one := signed().raw(asked, STREAM))]
    return good + answers


def packets(rng: random.Random) -> Iterator[bytes]:
    """Yield packets without end: good ones, twisted ones, and noise."""
    pool = good_packets(rng)
    pieces = (b"\xc0\x0c", b"\xff\xff", b"\0", b"\x3f" + b"a" * 63, opt(1232), b"\0\x29", b"\x40")
    while True:
        data = bytearray(rng.choice(pool))
        for _ in range(rng.choice((0, 1, 1, 2, 3, 8))):
            at = rng.randrange(len(data) + 1)
            match rng.randrange(6):
                case 0 if at < len(data):
                    data[at] = rng.randrange(256)
                case 1 if at < len(data):
                    data[at] ^= 1 << rng.randrange(8)
                case 2:
                    del data[at : at + rng.randrange(1, 20)]
                case 3:
                    data[at:at] = rng.choice(pieces)
                case 4:
                    other = rng.choice(pool)
                    data[at:] = other[rng.randrange(len(other)) :]
                case _:
                    data[at:at] = rng.randbytes(rng.randrange(1, 40))
        yield bytes(data)


def run_seeded(judge: Judge, count: int, seed: int) -> None:
    for data in packets(random.Random(seed)):  # noqa: S311 (failures repeat)
        try:
            judge.look(data)
        except Exception:
            print(f"after {judge.count} packets: {data.hex()}", file=sys.stderr)
            raise
        if judge.count == count:
            return


def run_atheris(judge: Judge, count: int, seed: int) -> None:
    """Let atheris choose the packets; it ends the process by itself."""
    import atheris

    begun_s = time.monotonic()
    corpus = Path(tempfile.mkdtemp())

    def one(data: bytes) -> None:
        judge.look(data)
        if judge.count == count:
            report("atheris", judge, time.monotonic() - begun_s)
            shutil.rmtree(corpus, ignore_errors=True)
            os._exit(0)  # libFuzzer would go on

    modules = (answering, building, denial, replies, signedbody, signing, wire, zone)
    for function in set(functions_of(*modules)):
        atheris.instrument_func(function)
    for number, data in enumerate(good_packets(random.Random(seed))):  # noqa: S311
        (corpus / str(number)).write_bytes(data)
    words = [sys.argv[0], f"-seed={seed}", "-max_len=600", "-verbosity=0", str(corpus)]
    atheris.Setup(words, one)
    atheris.Fuzz()


def functions_of(*modules: ModuleType) -> Iterator[FunctionType]:
    """Yield the functions and methods that modules define."""
    for module in modules:
        for _, found in inspect.getmembers(module):
            if getattr(found, "__module__", "") != module.__name__:
                continue
            if inspect.isfunction(found):
                yield found
            elif inspect.isclass(found):
                yield from (one for _, one in inspect.getmembers(found, inspect.isfunction))


def report(engine: str, judge: Judge, seconds: float) -> None:
    print(
        f"{engine}: {judge.count:,} packets, {judge.answered_count:,} answers judged in"
        f" {seconds:.0f} s, nothing found",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--engine", choices=("auto", "atheris", "seeded"), default="auto")
    options = parser.parse_args()
    judge = Judge()
    if options.engine == "atheris" or (options.engine == "auto" and find_spec("atheris")):
        run_atheris(judge, options.count, options.seed)
        return
    begun_s = time.monotonic()
    run_seeded(judge, options.count, options.seed)
    report("seeded", judge, time.monotonic() - begun_s)


if __name__ == "__main__":
    main()
