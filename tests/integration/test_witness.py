"""An auditor asks running servers, over HTTPS alone, whether they hold the same checkpoint."""

from __future__ import annotations

import hashlib
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from services.base.ledger.checkpoint import parse_checkpoint, verify_cosignature
from services.base.ledger.note import parse_note, parse_vkey
from services.kernel import canonical
from tests.fakes.labs import lab_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from seipd.lab.mesh import Lab
    from seipd.lab.plan import Host

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """Two servers, and a host that is in no mesh."""
    with lab_of(2, 1) as built:
        built.prepare()
        built.start_servers(lambda line: None)
        yield built


class Auditor:
    """Has curl, and an address in the network of the servers."""

    def __init__(self, lab: Lab, place: Host, folder: Path) -> None:
        self.lab = lab
        self.place = place
        self.folder = folder

    def ask(self, server: Host, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        url = f"https://{server.address}:{self.lab.status(server)['ports']['http']}{path}"
        command = ["curl", "-sk", "-m", "20", "-w", "%{http_code}", "-o", str(self.folder / "out")]
        if body is not None:
            (self.folder / "in").write_bytes(body)
            command += ["--data-binary", f"@{self.folder / 'in'}"]
        done = subprocess.run(
            [*self.place.enter(), *command, url], capture_output=True, text=True, check=True
        )
        return int(done.stdout), (self.folder / "out").read_bytes()


def test_every_server_co_signs_what_it_holds_and_nothing_else(lab: Lab, tmp_path) -> None:
    author, witness = lab.plan.servers
    auditor = Auditor(lab, lab.plan.endpoints[0], tmp_path)
    author_id = lab.status(author)["server_id"]

    # The feed may grow between two questions: who asks again is answered.
    for _ in range(20):
        status, note = auditor.ask(author, "/ledger/feed/checkpoint")
        assert status == 200
        size = parse_checkpoint(parse_note(note).text).size
        status, line = auditor.ask(witness, "/witness/add-checkpoint", b"old %d\n\n" % size + note)
        if status != 409:
            break
        time.sleep(0.3)
    assert status == 200, line
    _, key = auditor.ask(witness, "/witness/vkey")
    verifier = parse_vkey(canonical.decode_object(key)["vkey"])
    assert abs(verify_cosignature(note + line, verifier) - time.time()) < 60

    origin = parse_checkpoint(parse_note(note).text).origin
    assert author_id in origin
    path = f"/witness/{hashlib.sha256(origin.encode()).hexdigest()}/checkpoint"
    status, cosigned = auditor.ask(witness, path)
    assert status == 200
    verify_cosignature(cosigned, verifier)

    status, told = auditor.ask(witness, "/witness/add-checkpoint", b"old 0\n\n" + note)
    assert status == 409
    assert int(told) >= size
    other = note.replace(origin.encode(), b"log.example/other")
    assert auditor.ask(witness, "/witness/add-checkpoint", b"old 0\n\n" + other)[0] == 404
