"""``seipd root chain``: the generations, and the two keys where somebody has forked the root."""

from __future__ import annotations

import contextlib
import dataclasses

from services.base.crypto.signatures import generate_signing_key
from services.base.ledger.author import Author
from services.base.ledger.rootchain import ROTATE_KIND, link_from_record
from services.kernel.errors import RejectedError
from services.kernel.ids import b64u_encode


async def test_it_lists_the_generations(server, seipd) -> None:
    await server.rotation.rotate()
    done = await seipd("root", "chain")
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()[1:]] == ["1", "2"]


async def test_rkc_01_a_fork_is_told_with_both_keys_and_is_no_good_answer(server, seipd) -> None:
    await server.rotation.rotate()
    charter, rival = server.ledger.charter, generate_signing_key()
    first = link_from_record(charter.records[charter.chain.newest.number])
    other = dataclasses.replace(first, public_key=rival.public_key)
    endorsement = server.signer.keys["root-1"].sign(other.claim(server.ledger.mesh_id))
    author = Author(key=rival, mesh_id=server.ledger.mesh_id, clock=server.clock)
    body = dataclasses.replace(other, endorsement=endorsement).value()
    with contextlib.suppress(RejectedError):
        charter.offer(author.record(ROTATE_KIND, body))
    for words in (("root", "chain"), ("root", "chain", "--json")):
        done = await seipd(*words)
        assert done.returncode == 1
        assert "ROOT_FORK" in done.stderr
        for key in (first.public_key, rival.public_key):
            assert b64u_encode(key) in done.stderr
