"""A restored server asks the root to let its feed go on: what is answered, and what is refused."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import pytest

from seipd.daemon.restored import Restored, read_restored, write_restored
from seipd.daemon.restoring import RestoringService
from services.authority.enroll.service import Wanted
from services.authority.ipam.service import IpamService
from services.authority.rootkeys.service import RootKeysService
from services.base.ledger.author import Author
from services.base.ledger.service import LedgerService
from services.edge.auth.sessions import auth_input
from services.kernel.errors import UnavailableError, UnreachableError
from services.kernel.ids import b64u_decode, b64u_encode
from services.kernel.records import record_from_value
from services.kernel.service import HealthState
from services.mesh.bulk.ports import Place
from tests.fakes.neighbour import Neighbour, hand_over
from tests.fakes.one_server import QUICK, OneServer
from tests.fakes.world import APPLIERS, key_of

if TYPE_CHECKING:
    from services.base.ledger.changes import EpochEnd


@pytest.fixture
async def other(one, tmp_path):
    found = await Neighbour.join(one, tmp_path / "other")
    await hand_over(one.ledger, found.ledger)
    await hand_over(found.ledger, one.ledger)
    yield found
    await found.stop()


async def token_of(public, one, key) -> str:
    given = await (await public.post("/api/auth/challenge", data="{}")).json()
    nonce = b64u_decode(given["nonce"])
    signed = auth_input(one.ledger.mesh_id, one.ledger.server_id, nonce)
    body = {
        "key": b64u_encode(key.public_key),
        "nonce": given["nonce"],
        "signature": b64u_encode(key.sign(signed)),
    }
    return (await (await public.post("/api/auth", data=json.dumps(body))).json())["token"]


async def ask(public, token, body):
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    answer = await public.post("/api/servers/epoch", data=json.dumps(body), headers=headers)
    return answer.status, await answer.json()


def end_of(ledger, **changes):
    end = ledger.own_feed_end()
    return {"epoch": 1, "size": end.size, "root": b64u_encode(end.root), **changes}


async def test_a_server_gets_the_next_epoch_of_its_own_feed_once(one, other, public):
    token = await token_of(public, one, other.key)
    body = end_of(other.ledger)
    for _ in range(2):
        status, said = await ask(public, token, body)
        assert status == 200
        assert len(said["charter"]) == 4
    assert one.ledger.charter.server(other.server_id).epoch == 2
    assert one.ledger.feeds()[other.server_id].epoch == 2
    newest = record_from_value(said["charter"][-1])
    assert newest.body["ended"] == [
        {"server": other.server_id, "size": body["size"], "root": body["root"]}
    ]


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"size": 99}, 503, "feed_behind"),
        ({"size": 0}, 503, "feed_behind"),
        ({"root": b64u_encode(bytes(32))}, 409, "another_story"),
        ({"epoch": 2}, 409, "epoch_over"),
        ({"epoch": 0}, 400, "bad_field"),
        ({"size": -1}, 400, "bad_field"),
        ({"size": 1 << 50}, 400, "bad_field"),
        ({"root": "x"}, 400, "bad_key"),
        ({"server": "server-0000000000000000"}, 400, "bad_field"),
    ],
)
async def test_what_is_refused_changes_nothing(one, other, public, changes, status, code):
    token = await token_of(public, one, other.key)
    said = await ask(public, token, end_of(other.ledger, **changes))
    assert (said[0], said[1]["code"]) == (status, code)
    assert one.ledger.charter.number == 2


async def test_nobody_but_a_server_may_ask(one, other, public):
    assert (await ask(public, "", end_of(other.ledger)))[0] == 401
    endpoint = key_of("an endpoint")
    record = one.join_record(await one.token(), endpoint, "laptop")
    await public.post("/api/join", data=json.dumps({"record": record}))
    token = await token_of(public, one, endpoint)
    assert (await ask(public, token, end_of(other.ledger)))[0] == 403
    answer = await public.get("/api/servers/charter")
    assert answer.status == 401


class Asking:
    """Asks ``one`` in this process; before that it is out of reach for a while."""

    def __init__(self, one: OneServer, other: Neighbour, *, away: int = 0) -> None:
        self._one, self._other = one, other
        self.away = away
        self.asked = 0

    async def end_epoch(self, place: Place, end: EpochEnd, epoch: int):
        self.asked += 1
        if self.asked <= self.away:
            raise UnreachableError("nobody listens there")
        await self._one.root_keys.end_epoch(end, epoch)
        return self._one.ledger.charter.records


async def restarted(one: OneServer, other: Neighbour, folder, asks) -> RestoringService:
    """Start the other server's ledger on its disk, as a restore leaves it."""
    await other.ledger.stop()
    write_restored(folder, Restored(epoch=1, created_ms=1))
    other.ledger = LedgerService(
        folder=other.folder,
        signing_key=other.key,
        charter_records=one.ledger.charter.records,
        appliers=APPLIERS,
        clock=one.clock,
        on_fatal=one.fatal.append,
        settings=QUICK,
    )
    other.ledger.wait_for_epoch()
    await other.ledger.start()
    restoring = RestoringService(
        identity=folder,
        mark=read_restored(folder),
        ledger=other.ledger,
        author=Author(key=other.key, mesh_id=one.ledger.mesh_id, clock=one.clock),
        root_keys=RootKeysService(ledger=other.ledger, signer=None, clock=one.clock),
        asks=asks,
        places=lambda: [Place(server_id=one.ledger.server_id, host="192.0.2.1", port=9100)],
    )
    await restoring.start()
    return restoring


async def test_pub_14_after_the_restore_no_invitation_of_before_is_good(
    one, other, tmp_path, monkeypatch
):
    monkeypatch.setattr("seipd.daemon.restoring.RETRY_S", 0.2)
    ipam = IpamService(ledger=other.ledger, author=other.author)
    await ipam.start()
    issued = await other.enroll(ipam).invite(Wanted(role="endpoint"), addresses=("192.0.2.1:1",))
    kept = await one.token()
    await hand_over(other.ledger, one.ledger)
    asks = Asking(one, other, away=1)
    restoring = await restarted(one, other, tmp_path, asks)
    assert restoring.health().state is HealthState.DEGRADED
    async with asyncio.timeout(60):
        while restoring.health().state is not HealthState.OK:
            await asyncio.sleep(0.05)
    assert asks.asked == 2
    assert read_restored(tmp_path) is None
    assert other.ledger.state.get("invite", issued.invite_id) is None
    await hand_over(other.ledger, one.ledger)
    left = [invite["server"] for _, _, invite in one.ledger.state.scan("invite")]
    assert left == [one.ledger.server_id]
    assert kept
    assert one.ledger.feeds()[other.server_id] == other.ledger.feeds()[other.server_id]
    await restoring.stop()


async def test_without_the_root_it_says_what_it_waits_for_and_takes_no_writes(
    one, other, tmp_path, monkeypatch
):
    monkeypatch.setattr("services.base.ledger.writer.MAX_CLOSED_S", 0.05)
    restoring = await restarted(one, other, tmp_path, Asking(one, other, away=1000))
    async with asyncio.timeout(60):
        while "nobody listens there" not in (restoring.health().detail or ""):
            await asyncio.sleep(0.02)
    with pytest.raises(UnavailableError) as caught:
        await other.ledger.submit([other.author.record("auth.cancel", {"invite": "0" * 32})])
    assert caught.value.code == "catching_up"
    assert "restored from a backup" in str(caught.value)
    await restoring.stop()
    assert read_restored(tmp_path) is not None
