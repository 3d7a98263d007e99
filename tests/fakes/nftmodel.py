"""A small model of nftables: judges a packet by the text of a table, as far as ours goes."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import TYPE_CHECKING, Any

from services.runtime.nft import NftError

if TYPE_CHECKING:
    from collections.abc import Callable

NUMBERS = {"tcp": 6, "udp": 17}
PORTS = {"th sport": "sport", "th dport": "dport", "ct original proto-dst": "asked_port"}


@dataclass
class Packet:
    """What a rule may look at."""

    saddr: str
    daddr: str
    l4proto: int
    sport: int = 40_000
    dport: int = 0
    is_middle: bool = False
    state: str = "new"
    direction: str = "original"
    asked_port: int | None = None
    """The port that was asked for, where it leads to another place than that."""
    iifname: str = "seip0"
    oifname: str = "seip0"
    registers: dict[str, int] = field(default_factory=lambda: {"mark": 0, "priority": 0})

    @property
    def family(self) -> str:
        """How rules name its addresses."""
        return "ip6" if ":" in self.saddr else "ip"


class Decided(Exception):  # noqa: N818 (it is no error)
    """A rule that ends it."""


class Model:
    """One table with the elements that it begins with."""

    def __init__(self, text: str) -> None:
        self.chains: dict[str, list[str]] = {}
        self.elements: dict[str, dict[str, str]] = {}
        for kind, name, body in re.findall(
            r"^(chain|map|set) (\w+) \{\n(.*?)^\}", text, re.M | re.S
        ):
            if kind == "chain":
                self.chains[name] = [line for line in body.splitlines() if line]
            else:
                self.elements[name] = {}
                found = re.search(r"elements = \{ (.*) \}", body)
                self._add(name, found[1] if found else "")

    def run(self, commands: str) -> None:
        """Follow ``add element``, ``delete element``, ``flush chain`` and ``add rule``."""
        for line in commands.splitlines():
            if found := re.match(r"flush chain inet \S+ (\w+)", line):
                self.chains[found[1]] = []
            elif found := re.match(r"add rule inet \S+ (\w+) (.*)", line):
                self.chains[found[1]].append(found[2])
            elif found := re.match(r"add element inet \S+ (\w+) \{ (.*) \}", line):
                self._add(found[1], found[2])
            elif found := re.match(r"delete element inet \S+ (\w+) \{ (.*) \}", line):
                for key in found[2].split(", "):
                    del self.elements[found[1]][key]
            else:
                raise AssertionError(line)

    def _add(self, name: str, listed: str) -> None:
        for one in listed.split(", ") if listed else ():
            key, _, value = one.partition(" : ")
            assert key not in self.elements[name]
            self.elements[name][key] = value

    def passes(self, packet: Packet, hook: str = "forward_hook") -> bool:
        """Say whether a packet gets through."""
        try:
            self._chain(hook, packet)
        except Decided as decided:
            return str(decided) == "accept"
        return True

    def _chain(self, name: str, packet: Packet) -> None:
        for rule in self.chains[name]:
            if rule.startswith("type filter"):
                continue
            verdict = self._rule(rule, packet)
            if verdict in ("accept", "drop", "reject"):
                raise Decided(verdict)
            if verdict == "return":
                return
            word, _, where = (verdict or "").partition(" ")
            if word == "jump":
                self._chain(where, packet)
            elif word == "goto":
                self._chain(where, packet)
                return

    def _rule(self, rule: str, packet: Packet) -> str | None:
        """Follow a rule's statements until one does not match; return its verdict."""
        for step, words in _read(rule):
            outcome = step(self, packet, *words)
            if outcome is False:
                return None
            if isinstance(outcome, str):
                return outcome
        return None

    def _interface(self, packet: Packet, end: str, name: str) -> bool:
        return getattr(packet, end) == name

    def _ct_state(self, packet: Packet, state: str) -> bool:
        return packet.state in state.split(",")

    def _ct_status(self, packet: Packet) -> bool:
        return packet.asked_port is not None

    def _ct_direction(self, packet: Packet, direction: str) -> bool:
        return packet.direction == direction

    def _outside(self, packet: Packet, family: str, end: str, network: str) -> bool:
        inside = ip_network(network)
        return packet.family == family and ip_address(getattr(packet, end)) not in inside

    def _low(self, packet: Packet, family: str, end: str, mask: str, limit: str) -> bool:
        kind: Any = IPv4Address if family == "ip" else IPv6Address
        if packet.family != family:
            return False
        return int(kind(getattr(packet, end))) & int(kind(mask)) < int(kind(limit))

    def _set_by_address(
        self, packet: Packet, register: str, family: str, end: str, name: str
    ) -> bool:
        value = self.elements[name].get(getattr(packet, end))
        return packet.family == family and self._set(packet, register, value)

    def _set_by_itself(self, packet: Packet, register: str, name: str) -> bool:
        return self._set(packet, register, self.elements[name].get(self._text(packet, register)))

    def _set(self, packet: Packet, register: str, value: str | None) -> bool:
        if value is None:
            return False
        major, _, minor = value.rpartition(":")
        packet.registers[register] = int(major, 16) << 16 | int(minor, 16) if major else int(value)
        return True

    def _text(self, packet: Packet, register: str) -> str:
        value = packet.registers[register]
        return f"{value >> 16:x}:{value & 0xFFFF:x}" if register == "priority" else str(value)

    def _mark_in(self, packet: Packet, name: str) -> bool:
        return self._text(packet, "mark") in self.elements[name]

    def _within(self, packet: Packet, name: str) -> bool:
        key = f"{self._text(packet, 'priority')} . {self._text(packet, 'mark')}"
        return key in self.elements[name]

    def _protocols(self, packet: Packet, negated: str, listed: str) -> bool:
        among = packet.l4proto in [NUMBERS[one] for one in listed.split(", ")]
        return among is not bool(negated)

    def _look_up(self, packet: Packet, registers: str, port: str | None, name: str) -> str | bool:
        ends = [self._text(packet, one) for one in re.findall(r"meta (mark|priority)", registers)]
        values = [packet.l4proto, *([getattr(packet, PORTS[port])] if port else [])]
        for key, verdict in self.elements[name].items():
            parts = key.split(" . ")
            if parts[: len(ends)] != ends:
                continue
            ranges = [tuple(map(int, part.split("-"))) for part in parts[len(ends) :]]
            if all(low <= value <= high for (low, high), value in zip(ranges, values, strict=True)):
                return verdict
        return False

    def _clamp(self, packet: Packet) -> bool:
        return False

    def _middle(self, packet: Packet) -> bool:
        return packet.l4proto == NUMBERS["tcp"] and packet.is_middle

    _STEPS = (
        (r"(iifname|oifname) \"([^\"]+)\"", _interface),
        (r"tcp flags syn tcp option maxseg size set rt mtu", _clamp),
        (r"ct state (\S+)", _ct_state),
        (r"ct direction (\w+)", _ct_direction),
        (r"ct status dnat", _ct_status),
        (r"(ip6?) ([sd]addr) != (\S+)", _outside),
        (r"(ip6?) ([sd]addr) & (\S+) < (\S+)", _low),
        (r"meta (mark|priority) set (ip6?) ([sd]addr) map @(\w+)", _set_by_address),
        (r"meta (mark|priority) set meta \w+ map @(\w+)", _set_by_itself),
        (r"meta (mark|priority) set (\S+)", _set),
        (r"meta mark 0(?= )", lambda _, packet: packet.registers["mark"] == 0),
        (r"meta priority 0:0(?= )", lambda _, packet: packet.registers["priority"] == 0),
        (r"meta mark @(\w+)", _mark_in),
        (r"meta priority \. meta mark @(\w+)", _within),
        (r"meta l4proto (!= )?\{ ([^}]*) \}", _protocols),
        (
            r"((?:meta (?:mark|priority) \. )+)meta l4proto(?: \. (th \w+|ct [^@]+))? vmap @(\w+)",
            _look_up,
        ),
        (r"tcp flags & \(syn \| ack\) != syn", _middle),
        (r"counter", lambda *_: True),
        (r"reject with icmpx admin-prohibited", lambda *_: "reject"),
        (r"(accept|drop|return|(?:jump|goto) \w+)", lambda _, __, verdict: verdict),
    )


@functools.cache
def _read(rule: str) -> tuple[tuple[Callable[..., Any], tuple[Any, ...]], ...]:
    """Return the statements of a rule: what follows each, and with which words."""
    steps = []
    while rule:
        for pattern, step in Model._STEPS:
            if found := re.match(pattern, rule):
                rule = rule[found.end() :].lstrip()
                steps.append((step, found.groups()))
                break
        else:
            raise AssertionError(f"the model does not know: {rule}")
    return tuple(steps)


class WrittenTable:
    """Stands for KernelTable; its kernel is the model."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.model: Model | None = None
        self.refuses = ""
        self.others = ""
        self.transactions = 0

    def replace(self, transaction: str) -> None:
        """Have a table of this text."""
        self._check()
        self.model = Model(transaction)

    def run(self, commands: str) -> None:
        """Change it."""
        self._check()
        if self.model is None:
            raise NftError("there is no such table", code="nft_missing")
        self.model.run(commands)

    def is_intact(self) -> bool:
        """Say whether there is a table."""
        return self.model is not None

    def dropped_by(self, interface: str) -> str:
        """Say which other firewall is in the way."""
        return self.others

    def remove(self) -> bool:
        """Have none."""
        was_there, self.model = self.model is not None, None
        return was_there

    def close(self) -> None:
        """Nothing to let go of."""

    def _check(self) -> None:
        if self.refuses:
            raise NftError(self.refuses)
        self.transactions += 1
