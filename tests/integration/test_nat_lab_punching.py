"""The routers of the NAT laboratory themselves: plain datagrams, and no program of ours."""

from __future__ import annotations

import itertools
import select
import time
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.fakes.namespaces import udp_in
from tests.fakes.natlab import Kind, nat_lab_of, permits_direct, server_address6

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

    from tests.fakes.natlab import NatLab

pytestmark = pytest.mark.integration

KINDS = (*Kind, *Kind)
ANSWER_S = 5.0
ROUNDS = 8
ROUND_S = 0.05
MIRROR_PORT = 3478


@pytest.fixture(scope="module")
def lab() -> Iterator[NatLab]:
    with nat_lab_of(KINDS) as built:
        built.prepare()
        yield built


class Hole(NamedTuple):
    """A socket behind a router, and what two mirrors on the WAN see of it."""

    sock: socket.socket
    seen: tuple[tuple[str, int], ...]


@pytest.fixture(scope="module")
def mirrors(lab: NatLab) -> Iterator[dict[str, socket.socket]]:
    server = lab.plan.servers[0]
    addresses = (server.address, lab.second_address(), server_address6(server))
    opened = {host: udp_in(server.namespace, host, MIRROR_PORT) for host in addresses}
    yield opened
    for sock in opened.values():
        sock.close()


def hole(lab: NatLab, mirrors: dict[str, socket.socket], name: str, *, is_ipv6: bool) -> Hole:
    anywhere = "::" if is_ipv6 else "0.0.0.0"  # noqa: S104 (in a namespace)
    sock = udp_in(lab.plan.host(name).namespace, anywhere)
    seen = []
    for address, mirror in mirrors.items():
        if (":" in address) != is_ipv6:
            continue
        sock.sendto(b"who am I", (address, MIRROR_PORT))
        mirror.settimeout(ANSWER_S)
        data, source = mirror.recvfrom(100)
        mirror.sendto(data, source)
        sock.settimeout(ANSWER_S)
        assert sock.recv(100) == data
        seen.append(source[:2])
    return Hole(sock, tuple(seen))


def meet(lab: NatLab, mirrors: dict[str, socket.socket], one: str, other: str) -> bool:
    """Say whether two endpoints hear each other, each way, when both begin."""
    kinds = lab.sites[one].kind, lab.sites[other].kind
    families = [all(kind.has_ipv6 for kind in kinds)] * all(kind.has_ipv6 for kind in kinds)
    families += [False] * all(kind.has_ipv4 for kind in kinds)
    return any(_meet(lab, mirrors, one, other, is_ipv6=family) for family in families)


def _meet(
    lab: NatLab, mirrors: dict[str, socket.socket], one: str, other: str, *, is_ipv6: bool
) -> bool:
    holes = [hole(lab, mirrors, name, is_ipv6=is_ipv6) for name in (one, other)]
    targets = {holes[0].sock: {holes[1].seen[0]}, holes[1].sock: {holes[0].seen[0]}}
    heard = set()
    for _ in range(ROUNDS):
        for sock, addresses in targets.items():
            for address in addresses:
                sock.sendto(b"punch", address)
        until_s = time.monotonic() + ROUND_S
        while ready := select.select(list(targets), [], [], max(until_s - time.monotonic(), 0))[0]:
            for sock in ready:
                _, source = sock.recvfrom(100)
                targets[sock].add(source[:2])
                heard.add(sock)
        if len(heard) == 2:
            break
    for one_hole in holes:
        one_hole.sock.close()
    return len(heard) == 2


@pytest.mark.parametrize("kind", list(Kind))
def test_two_destinations_see_one_port_but_of_a_symmetric_nat(lab, mirrors, kind: Kind) -> None:
    name = next(name for name, site in lab.sites.items() if site.kind is kind)
    found = hole(lab, mirrors, name, is_ipv6=not kind.has_ipv4)
    found.sock.close()
    site = lab.sites[name]
    assert {host for host, _ in found.seen} == {site.wan if kind.has_ipv4 else site.address6}
    assert (len(set(found.seen)) > 1) == kind.is_symmetric


def test_a_stranger_s_datagram_passes_open_and_full_cone_alone(lab, mirrors) -> None:
    passing = set()
    for name, site in list(lab.sites.items())[: len(Kind)]:
        found = hole(lab, mirrors, name, is_ipv6=not site.kind.has_ipv4)
        server = lab.plan.servers[0]
        own = server.address if site.kind.has_ipv4 else server_address6(server)
        stranger = udp_in(server.namespace, own)
        stranger.sendto(b"you don't know me", found.seen[0])
        found.sock.settimeout(0.2)
        try:
            found.sock.recv(100)
        except TimeoutError:
            continue
        else:
            passing.add(site.kind)
        finally:
            stranger.close()
            found.sock.close()
    assert passing == {Kind.OPEN, Kind.FULL_CONE}


def test_every_pair_meets_or_does_not_as_the_books_say(lab: NatLab, mirrors) -> None:
    first = dict(zip(Kind, list(lab.sites)[: len(Kind)], strict=True))
    second = dict(zip(Kind, list(lab.sites)[len(Kind) :], strict=True))
    rows = []
    for one, other in itertools.combinations_with_replacement(Kind, 2):
        names = first[one], second[other]
        expected = permits_direct(one, other, asks_routers=False)
        rows.append((one, other, expected, meet(lab, mirrors, *names)))
    lines = [f"{one:30}{other:30}{expected!s:8}{met!s}" for one, other, expected, met in rows]
    print("\n".join(("", *lines)))  # noqa: T201 (the table, with pytest -s)
    assert [row for row in rows if row[2] != row[3]] == []
    assert sum(not row[2] for row in rows) > 5, "and some can't be punched at all"
