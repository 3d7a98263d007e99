"""How long 100 holders' shares take: dealt, sealed, checked by a holder, and combined.

The measure beside it is libsodium sealing 100 boxes and opening 75: what any sharing among so many
holders costs at least. Each figure is the best of several rounds by the clock on the wall, with the
processor's time beside the sum: where the two differ, the machine was busy. Run as
``python -m tests.bench.bench_shares``; it fails above the limit.
"""

from __future__ import annotations

import secrets
import sys
import time
from typing import TYPE_CHECKING

from services.base.crypto.agreement import generate_x25519, open_box, seal_box
from services.base.crypto.sealing import curve_private, curve_public, open_sealed_for, seal_for
from services.base.crypto.shamir import combine
from services.base.crypto.signatures import generate_signing_key
from services.base.crypto.verifiable import deal, decode_opening, is_of

if TYPE_CHECKING:
    from collections.abc import Callable

HOLDERS = 100
THRESHOLD = 75
ROUNDS = 30
LIMIT_MS = 100.0
PURPOSE = "seipd/bench/v1"
CONTEXT = bytes(32)


def _best_ms(work: Callable[[], object], clock_s: Callable[[], float] = time.perf_counter) -> float:
    best = float("inf")
    for _ in range(ROUNDS):
        start_s = clock_s()
        work()
        best = min(best, clock_s() - start_s)
    return best * 1000


def main() -> int:
    """Print the figures; return 1 where the limit is missed."""
    holders = [generate_signing_key() for _ in range(HOLDERS)]
    private, public = generate_x25519()
    secret = secrets.token_bytes(32)

    def dealt() -> tuple[list, object]:
        openings, proof = deal(
            secret,
            threshold=THRESHOLD,
            count=HOLDERS,
            context=CONTEXT,
            random=secrets.token_bytes,
        )
        sealed = [
            seal_for(curve_public(key.public_key), one.encode(), purpose=PURPOSE, context=CONTEXT)
            for key, one in zip(holders, openings, strict=True)
        ]
        return sealed, proof

    sealed, proof = dealt()

    def checked(at: int = 1) -> bytes:
        data = open_sealed_for(
            curve_private(holders[at - 1].seed), sealed[at - 1], purpose=PURPOSE, context=CONTEXT
        )
        assert is_of(decode_opening(at, data), proof, CONTEXT)
        return data

    released = [
        seal_for(public, checked(at), purpose=PURPOSE, context=CONTEXT)
        for at in range(1, THRESHOLD + 1)
    ]

    def combined() -> None:
        shares = []
        for at, one in enumerate(released, 1):
            data = open_sealed_for(private, one, purpose=PURPOSE, context=CONTEXT)
            opening = decode_opening(at, data)
            assert is_of(opening, proof, CONTEXT)
            shares.append(opening.share)
        assert combine(shares, threshold=THRESHOLD) == secret

    def bare() -> None:
        boxes = [seal_box(public, secret) for _ in range(HOLDERS)]
        for one in boxes[:THRESHOLD]:
            open_box(private, one)

    deal_ms, check_ms, combine_ms = _best_ms(dealt), _best_ms(checked), _best_ms(combined)
    bare_ms = _best_ms(bare)
    total_ms = deal_ms + combine_ms
    processor_ms = _best_ms(dealt, time.process_time) + _best_ms(combined, time.process_time)
    print(f"deal and seal to {HOLDERS}, {THRESHOLD} needed: {deal_ms:.1f} ms")
    print(f"one holder opens and checks its share: {check_ms:.2f} ms")
    print(f"open, check and combine {THRESHOLD}: {combine_ms:.1f} ms")
    print(f"libsodium seals {HOLDERS} boxes and opens {THRESHOLD}: {bare_ms:.1f} ms")
    print(f"dealing and combining: {total_ms:.1f} ms, {total_ms / bare_ms:.1f} times libsodium's")
    print(f"processor time of both: {processor_ms:.1f} ms")
    return 0 if total_ms < LIMIT_MS else 1


if __name__ == "__main__":
    sys.exit(main())
