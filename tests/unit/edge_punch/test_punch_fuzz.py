"""Whatever endpoints and servers say, in any order, a server says little, and to members alone."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from services.edge.punch.messages import (
    MAX_DATAGRAM_BYTES,
    Call,
    Candidate,
    CandidateKind,
    Carried,
    Carry,
    Here,
    Met,
    Pass,
    Passed,
    Refused,
    Signal,
    SignalCode,
    Signalled,
    Why,
    encode,
    tunnel_bytes,
)
from tests.fakes.rendezvous import FakeMesh

ADDRESSES = [f"10.64.0.{number}" for number in (10, 11, 12, 99)]

tunnels = st.sampled_from([tunnel_bytes(one) for one in ADDRESSES])
numbers = st.integers(0, 3) | st.integers(0, 2**53 - 1)
hosts = st.one_of(st.binary(min_size=4, max_size=4), st.binary(min_size=16, max_size=16))
candidates = st.lists(
    st.builds(Candidate, st.sampled_from(CandidateKind), hosts, st.integers(1, 65535)), max_size=16
).map(tuple)
relays = st.lists(st.binary(min_size=16, max_size=16), max_size=4).map(tuple)
codes = st.sampled_from(SignalCode)
nothing: st.SearchStrategy[tuple[()]] = st.just(())

from_endpoint = st.one_of(
    st.builds(
        Here, numbers, candidates | st.none(), st.booleans(), st.booleans(), numbers, numbers
    ),
    st.builds(Call, numbers, tunnels, relays),
    st.builds(Met, tunnels, numbers),
    st.builds(Signal, numbers, tunnels, codes),
    st.builds(Signalled, numbers, tunnels),
)
observed = hosts | st.just(b"")
from_server = st.one_of(
    st.builds(Pass, numbers, tunnels, tunnels, candidates, st.booleans(), observed, nothing),
    st.builds(Passed, numbers, tunnels, tunnels, candidates, st.booleans(), observed),
    st.builds(Refused, numbers, tunnels, tunnels, st.sampled_from(Why)),
    st.builds(Carry, tunnels, tunnels, numbers, codes),
    st.builds(Carried, tunnels, tunnels, numbers),
)
steps = st.one_of(
    st.tuples(st.sampled_from(ADDRESSES[:3]), from_endpoint),
    st.tuples(st.sampled_from(["server"]), from_server),
    st.tuples(st.just("time"), st.floats(0.0, 100.0)),
    st.tuples(st.just("seen"), st.tuples(st.integers(10, 12), hosts, st.integers(1, 65535))),
)


def take(mesh: FakeMesh, server: Any, step: tuple[str, Any], now_s: float) -> list[Any]:
    kind, what = step
    if kind == "server":
        return list(server.from_server(list(mesh.servers)[1], what, now_s))
    if kind == "seen":
        number, host, port = what
        text = ".".join(map(str, host)) if len(host) == 4 else f"2001:db8::{port:x}"
        return list(server.book.observe(bytes([number]) * 32, text, port, now_s))
    if kind == "time":
        return list(server.tick(now_s))
    return list(server.from_endpoint(kind, what, now_s))


@given(st.lists(steps, max_size=40))
def test_a_server_answers_with_little_and_members_alone(said: list[tuple[str, Any]]) -> None:
    mesh = FakeMesh()
    own, other = mesh.server(1), mesh.server(2)
    mesh.endpoint(10, own)
    mesh.endpoint(11, own)
    mesh.endpoint(12, other)
    members = {*mesh.endpoints, *mesh.state.servers.values()}
    server, now_s = mesh.servers[own], 1000.0
    for step in said:
        if step[0] == "time":
            now_s += step[1]
        out = take(mesh, server, step, now_s)
        assert len(out) <= (8 if step[0] == "time" else 2)
        for one in out:
            assert one.host in members
            assert len(one.data) <= MAX_DATAGRAM_BYTES
        if step[0] in ADDRESSES:
            assert len(encode(step[1])) <= MAX_DATAGRAM_BYTES
