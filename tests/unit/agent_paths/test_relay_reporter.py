"""What an endpoint tells of the relays that it used: in time, and with both signatures."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from seipd.agent.paths.relayreport import REPORT_S, STATEMENT_S, RelayReporter
from services.authority.relays.usage import Usage, signed_usage
from services.edge.relay.tickets import parse_ticket
from services.edge.relaying.reports import parse_report
from services.kernel.errors import UnreachableError
from services.kernel.ids import node_id_of, parse_wireguard_key
from tests.fakes.relays import RelayMesh
from tests.fakes.world import key_of


@dataclass(frozen=True)
class Offer:
    relay_id: bytes
    ticket: bytes


class Session:
    """An endpoint whose packets to a peer go over a relay of a little mesh."""

    def __init__(self, mesh: RelayMesh) -> None:
        self.mesh = mesh
        self.node, peer = mesh.endpoint("laptop"), mesh.endpoint("phone")
        mesh.refold()
        offer = next(
            one
            for one in mesh.offering.offers(self.node, peer)
            if one.host4 == bytes([198, 51, 100, 11])
        )
        self.relay_id, self.ticket = offer.relay_id, offer.ticket
        self.peer_key = parse_wireguard_key(mesh.ledger.state.get("tree", peer)["wireguard_key"])
        self.own_key = parse_ticket(self.ticket).other_than(self.peer_key)
        self.started_ms = mesh.clock.now_ms()
        self.sent: list[dict] = []
        self.asked: list[bytes] = []
        self.is_reachable = True
        self.reporter = RelayReporter(
            identity=key_of("endpoint laptop"),
            mesh_id=mesh.world.mesh_id,
            send=self._send,
            ask_usage=self.asked.append,
            clock=mesh.clock,
        )
        self.reporter.offered(self.peer_key, [Offer(self.relay_id, self.ticket)])

    async def _send(self, report: dict) -> None:
        if not self.is_reachable:
            raise UnreachableError("the tunnel is down")
        self.sent.append(report)

    def beat(self, count: int, round_trip_ms: float | None = 20.0) -> None:
        for _ in range(count):
            self.mesh.clock.s += 5
            self.reporter.heartbeat(self.peer_key, self.relay_id, round_trip_ms)
            self.reporter.look()

    def state_usage(self) -> None:
        usage = Usage(
            relay=self.relay_id,
            session=parse_ticket(self.ticket).nonce,
            party=self.own_key,
            from_bytes=100,
            to_bytes=100,
            started_ms=self.started_ms,
            told_ms=self.mesh.clock.now_ms(),
        )
        statement = signed_usage(self.mesh.world.servers[1].key, self.mesh.world.mesh_id, usage)
        self.reporter.usage(self.peer_key, self.relay_id, statement)

    def take(self, report: dict):
        return self.mesh.directory.reports.take(self.node, report)


@pytest.fixture
async def session():
    mesh = RelayMesh()
    await mesh.directory.start()
    yield Session(mesh)
    await mesh.directory.stop()


async def test_a_report_is_sent_each_five_minutes_and_counts(session: Session) -> None:
    for _ in range(int(REPORT_S / STATEMENT_S) + 1):
        session.beat(int(STATEMENT_S / 5))
        if session.asked:
            session.state_usage()
    await session.reporter.flush()
    (report,) = session.sent
    assert parse_report(report).answered == parse_report(report).sent
    assert parse_report(report).latency_ms == 20
    assert len(session.asked) >= REPORT_S / STATEMENT_S - 1
    assert session.take(report).counts


async def test_at_the_end_there_is_a_report_of_a_short_session_too(session: Session) -> None:
    session.beat(6)
    session.state_usage()
    session.beat(2)
    session.reporter.ended(session.peer_key, session.relay_id)
    await session.reporter.flush()
    (report,) = session.sent
    assert (report["rating"], report["silent_s"]) == (100, 0)
    assert session.take(report).counts
    session.reporter.ended(session.peer_key, session.relay_id)
    await session.reporter.flush()
    assert len(session.sent) == 1


async def test_a_relay_that_dies_is_reported_by_what_it_said_last(session: Session) -> None:
    session.beat(12)
    session.state_usage()
    session.beat(3, None)
    session.reporter.ended(session.peer_key, session.relay_id, "silent")
    await session.reporter.flush()
    (report,) = session.sent
    assert report["rating"] == 0
    assert report["silent_s"] == 15
    assert report["sent"] - report["answered"] == 3
    assert session.take(report).counts


async def test_rly_10_without_the_relays_statement_nothing_is_sent(session: Session) -> None:
    session.beat(80)
    session.reporter.ended(session.peer_key, session.relay_id)
    await session.reporter.flush()
    assert session.sent == []
    assert session.node == node_id_of(key_of("endpoint laptop").public_key)


async def test_what_can_not_be_sent_does_not_stop_the_rest(session: Session) -> None:
    session.is_reachable = False
    session.beat(6)
    session.state_usage()
    session.reporter.ended(session.peer_key, session.relay_id)
    await session.reporter.flush()
    assert session.sent == []
    session.is_reachable = True
    session.reporter.offered(session.peer_key, [Offer(session.relay_id, session.ticket)])
    session.beat(6)
    session.state_usage()
    session.reporter.ended(session.peer_key, session.relay_id)
    await session.reporter.flush()
    assert len(session.sent) == 1


async def test_the_jitter_and_the_gaps_are_noted(session: Session) -> None:
    for number in range(20):
        session.beat(1, 20.0 + 10 * (number % 2))
    session.beat(2, None)
    session.beat(1)
    session.state_usage()
    session.reporter.ended(session.peer_key, session.relay_id)
    await session.reporter.flush()
    (report,) = session.sent
    assert report["jitter_ms"] == 10
    assert report["silent_s"] == 15
