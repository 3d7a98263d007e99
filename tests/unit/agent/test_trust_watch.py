"""The running agent asks for proofs by itself, tells of a lie once, and says so in its status."""

from __future__ import annotations

import asyncio

import pytest

from seipd.agent import trustwatch
from seipd.agent.answer import peers_of
from seipd.agent.doctor import examine_endpoint
from seipd.agent.trustlines import trust_lines
from seipd.agent.trustwatch import TrustWatch
from services.kernel.errors import UnauthenticatedError, WireError
from tests.fakes.endpoint import Api, agree, joined
from tests.fakes.one_server import OneServer
from tests.fakes.world import curve_key


@pytest.fixture
async def server(tmp_path):
    one = await OneServer.start(tmp_path / "server")
    yield one
    await one.stop()


class Bench:
    """A watch whose sessions lead to a server in this process."""

    def __init__(self, server, state, monkeypatch) -> None:
        self.told: list[tuple[str, str]] = []
        self.logins = 0
        self.fail = False
        self.taken_by = 1
        bench = self

        class Session(Api):
            def __init__(self, mesh, keys) -> None:
                super().__init__(server, state)
                bench.logins += 1

            async def call(self, method, path, body=None):
                if bench.fail:
                    raise UnauthenticatedError("the token is too old", code="token_invalid")
                return await super().call(method, path, body)

        async def report(mesh, keys, *, subject, verdict, now_ms):
            self.told.append((subject, verdict.code))
            return self.taken_by

        monkeypatch.setattr(trustwatch, "PrivateApi", Session)
        monkeypatch.setattr(trustwatch, "report_lie", report)
        monkeypatch.setattr(trustwatch, "SOON_S", 0.01)
        monkeypatch.setattr(trustwatch, "AGAIN_S", 0.02)
        self.watch = TrustWatch(
            state=state, mesh=state.mesh(), keys=state.keys(), signer_count=0, clock=server.clock
        )

    async def __aenter__(self) -> Bench:
        self._task = asyncio.get_running_loop().create_task(self.watch.run())
        return self

    async def __aexit__(self, *_) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def until(self, probe) -> None:
        async with asyncio.timeout(60):
            while not probe():
                await asyncio.sleep(0.01)

    @property
    def server_state(self) -> str:
        return self.watch.trust["server"]["state"]


async def test_nothing_is_asked_before_the_tunnel_is_up(server, tmp_path, monkeypatch) -> None:
    state = await joined(server, tmp_path / "e1", "e1")
    await agree(server)
    async with Bench(server, state, monkeypatch) as bench:
        assert bench.server_state == "believed"
        assert "by the root's certificate" in bench.watch.trust["server"]["why"]
        await asyncio.sleep(0.1)
        assert bench.logins == 0
        bench.watch.note_tunnel(connected=True)
        await bench.until(lambda: bench.server_state == "proven")
        assert bench.logins == 1
    said = dict(trust_lines(bench.watch.trust))
    assert said["server's key"] == "proven"
    assert said["signed by"] == "1 servers, 1 needed"


async def test_a_session_that_ended_is_made_anew(server, tmp_path, monkeypatch) -> None:
    state = await joined(server, tmp_path / "e1", "e1")
    await agree(server)
    async with Bench(server, state, monkeypatch) as bench:
        bench.watch.note_tunnel(connected=True)
        await bench.until(lambda: bench.server_state == "proven")
        bench.fail = True
        await bench.until(lambda: bench.server_state == "believed" and bench.logins > 1)
        bench.fail = False
        await bench.until(lambda: bench.server_state == "proven")
        assert not bench.told


async def test_a_lie_is_told_once_as_soon_as_somebody_takes_it(
    server, tmp_path, monkeypatch
) -> None:
    state = await joined(server, tmp_path / "e1", "e1")
    await agree(server)
    mesh = state.mesh()
    mesh["server"]["wireguard_key"] = curve_key("mallory")
    state.save_mesh(mesh)
    async with Bench(server, state, monkeypatch) as bench:
        bench.taken_by = 0
        bench.watch.note_tunnel(connected=True)
        await bench.until(lambda: len(bench.told) >= 2)
        assert bench.watch.trust["reported"] == 0
        bench.taken_by = 2
        await bench.until(lambda: bench.watch.trust["reported"] == 1)
        count = len(bench.told)
        await asyncio.sleep(0.2)
        assert len(bench.told) == count
        assert set(bench.told) == {(server.ledger.server_id, "key_differs")}
        assert bench.server_state == "refused"
    assert "reported" in dict(trust_lines(bench.watch.trust))


async def test_what_was_proven_two_minutes_ago_is_believed(server, tmp_path, monkeypatch) -> None:
    state = await joined(server, tmp_path / "e1", "e1")
    await agree(server)
    async with Bench(server, state, monkeypatch) as bench:
        bench.watch.note_tunnel(connected=True)
        await bench.until(lambda: bench.server_state == "proven")
        bench.watch.note_tunnel(connected=False)
        await bench.until(lambda: bench.watch.trust["server"]["state"] == "proven")
        server.clock.shift_ms += 120_000
        assert bench.server_state == "believed"
        assert "s old" in bench.watch.trust["server"]["why"]


async def test_a_server_that_the_root_removed_is_dropped_on_anybodys_showing(
    server, tmp_path, monkeypatch
) -> None:
    state = await joined(server, tmp_path / "e1", "e1")
    shown = [False]
    dropped = []

    class Roster:
        def __init__(self, mesh) -> None:
            pass

        async def look(self) -> bool:
            return shown[0]

    async def drop() -> None:
        dropped.append(True)

    monkeypatch.setattr(trustwatch, "RevocationWatch", Roster)
    bench = Bench(server, state, monkeypatch)
    task = asyncio.get_running_loop().create_task(bench.watch.mind_roster(drop))
    await asyncio.sleep(0.1)
    assert not dropped
    shown[0] = True
    async with asyncio.timeout(60):
        await task
    assert dropped == [True]
    assert bench.watch.trust["server"]["code"] == "revoked"
    assert "new invitation" in bench.watch.trust["server"]["mend"]
    running = {"last_handshake_seconds": None, "trust": bench.watch.trust}
    monkeypatch.setattr("seipd.agent.doctor.read_status", lambda _: running)
    (finding,) = await examine_endpoint(state)
    assert finding.what == "the root removed this server from the mesh"


async def test_the_doctor_names_the_lie(server, tmp_path, monkeypatch) -> None:
    state = await joined(server, tmp_path / "e1", "e1")
    refused = {"state": "refused", "code": "key_differs", "why": "another key", "mend": ""}
    running = {"last_handshake_seconds": 1, "trust": {"server": refused}}
    monkeypatch.setattr("seipd.agent.doctor.read_status", lambda _: running)
    (finding,) = await examine_endpoint(state)
    assert finding.what == "what the server shows of its key is false: another key"


GOOD = {
    "node_id": "00000000-0000-4000-8000-000000000001",
    "name": "e2",
    "address": "10.64.0.11",
    "address6": "fd00::11",
    "wireguard_key": curve_key("e2"),
    "path": "server",
}


def test_a_list_of_peers_has_nothing_in_it_but_names_and_addresses() -> None:
    assert peers_of({"peers": [{**GOOD, "later": 1}], "total": 1}) == [GOOD]
    for name in GOOD:
        for evil in ("\x1b[2J", "e2\n", "", None, 7, "$(id)", "; rm"):
            with pytest.raises(WireError):
                peers_of({"peers": [{**GOOD, name: evil}]})
    for value in ({}, {"peers": None}, {"peers": [7]}, [], None):
        with pytest.raises(WireError):
            peers_of(value)
