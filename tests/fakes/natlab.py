"""A lab whose endpoints sit behind routers of every kind, as at home, in a hotel, on a phone.

    servers s1, s2 …          198.18.0.11 …   2001:db8::b …       on the WAN, a bridge
    endpoint e<n>, open       198.18.0.10<n>                      on the WAN
    endpoint e<n>, else       192.168.<n>.2   2001:db8:0:<n>::2   behind the router r<n>, whose WAN
                                                                  address is 198.18.0.10<n>
    double NAT                r<n> has 100.64.<n>.2, behind the carrier's c<n> at 198.18.0.10<n>

What each kind of router does is nftables' own NAT; the routers drop what was not asked for, as
routers do. (Where one refuses instead, it takes the port for itself, and no hole can be punched.)
"""

from __future__ import annotations

import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from typing_extensions import override

from seipd.lab import net
from seipd.lab.mesh import Lab
from tests.fakes.labs import lab_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from seipd.lab.plan import Host, LabPlan

WAN = "198.18.0.0/24"
PUBLIC = "11.1.0"
"""The WAN addresses of routers that map ports: those refuse to where theirs is for benchmarks."""
JOINS_AT_ONCE = 6
SECOND_UPLINK_OFFSET = 50
LAST_CHOICE = 500
SECOND_ADDRESS_OFFSET = 40
"""The first server's second address, for what asks a STUN server from two sides."""


class Kind(StrEnum):
    """Where an endpoint sits."""

    OPEN = "open"
    FULL_CONE = "full cone"
    PORT_RESTRICTED = "port-restricted"
    SYMMETRIC = "symmetric"
    DOUBLE_NAT = "double NAT"
    IPV6_ONLY = "IPv6-only"
    DUAL_STACK = "symmetric with IPv6"
    MAPPING = "symmetric that maps ports"

    @property
    def has_ipv4(self) -> bool:
        """Whether it reaches IPv4 hosts."""
        return self is not Kind.IPV6_ONLY

    @property
    def has_ipv6(self) -> bool:
        """Whether it reaches IPv6 hosts."""
        return self in (Kind.IPV6_ONLY, Kind.DUAL_STACK)

    @property
    def is_symmetric(self) -> bool:
        """Whether each destination sees another port of it, by IPv4."""
        return self in (Kind.SYMMETRIC, Kind.DUAL_STACK, Kind.MAPPING)

    @property
    def is_choosy(self) -> bool:
        """Whether only who was sent to, at that very port, is let in, by IPv4."""
        return self.is_symmetric or self in (Kind.PORT_RESTRICTED, Kind.DOUBLE_NAT)


def permits_direct(one: Kind, other: Kind, *, asks_routers: bool = True) -> bool:
    """Say whether two endpoints can reach each other without a relay, by the books.

    Args:
        one: where one is.
        other: where the other is.
        asks_routers: whether they ask routers that map ports for one.
    """
    if one.has_ipv6 and other.has_ipv6:
        return True
    if not (one.has_ipv4 and other.has_ipv4):
        return False
    if asks_routers and Kind.MAPPING in (one, other):
        return True
    is_guessed = (one.is_symmetric and other.is_choosy) or (other.is_symmetric and one.is_choosy)
    return not is_guessed


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """One endpoint's place, in the numbers of the plan above."""

    number: int
    kind: Kind
    wan: str
    """The WAN address of its outermost machine."""

    @property
    def lan(self) -> str:
        """The network at home, without its last number."""
        return f"192.168.{self.number}"

    @property
    def address(self) -> str:
        """The endpoint's own address: IPv4 where it has that."""
        if self.kind is Kind.OPEN:
            return self.wan
        return f"{self.lan}.2" if self.kind.has_ipv4 else self.address6

    @property
    def lan6(self) -> str:
        """The IPv6 network at home, without what follows ``::``."""
        return f"2001:db8:0:{self.number:x}"

    @property
    def address6(self) -> str:
        """The endpoint's own IPv6 address."""
        return f"{self.lan6}::2"

    @property
    def wan6(self) -> str:
        """The router's IPv6 address on the WAN."""
        return f"2001:db8::1:{self.number:x}"


class NatLab(Lab):
    """A lab with an endpoint at each of these places."""

    def __init__(self, plan: LabPlan, kinds: Sequence[Kind]) -> None:
        super().__init__(plan)
        self.sites = {
            host.name: Site(number=number, kind=kind, wan=wan_address(host, number, kind))
            for number, (host, kind) in enumerate(zip(plan.endpoints, kinds, strict=True), start=1)
        }

    def router(self, name: str) -> str:
        """Return the namespace of an endpoint's home router."""
        return f"{self.plan.prefix}-r{self.sites[name].number}"

    def second_address(self) -> str:
        """Return the first server's second address."""
        network, _, last = self.plan.servers[0].address.rpartition(".")
        return f"{network}.{int(last) + SECOND_ADDRESS_OFFSET}"

    @override
    def address_flags(self, host: Host) -> list[str]:
        """Return the options that tell a server where others reach it: by both versions of IP."""
        return [*super().address_flags(host), "--public-address6", server_address6(host)]

    @override
    def build_network(self) -> None:
        """Make the WAN, the servers on it, and a home for each endpoint."""
        net.build(self.plan, self.plan.servers)
        for number, server in enumerate(self.plan.servers):
            _ip(
                server.namespace,
                f"addr add {server_address6(server)}/64 dev eth0 nodad",
                f"route add {PUBLIC}.0/24 dev eth0",
            )
            if number == 0:
                _ip(server.namespace, f"addr add {self.second_address()}/24 dev eth0")
        for host in self.plan.endpoints:
            self._settle(host, self.sites[host.name])
            net.give_resolver(self.plan, host)
        self._tell_ipv6_routes()

    def add_uplink(self, name: str, kind: Kind) -> Site:
        """Give an endpoint another way out, by ``eth1`` and a router of its own.

        It is taken once ``eth0`` is down. Returns where it leads.
        """
        host, number = self.plan.host(name), self.sites[name].number
        network, _, last = host.address.rpartition(".")
        wan = f"{network}.{int(last) + SECOND_UPLINK_OFFSET}"
        site = Site(number=number + SECOND_UPLINK_OFFSET, kind=kind, wan=wan)
        router = self._router(f"r{site.number}")
        self._to_wan(router, site, "wan0")
        nftables(router, nat_rules(kind, site) + FIREWALL)
        at_home(router, "lan0", host.namespace, "eth1", site, metric=LAST_CHOICE)
        return site

    def lay_uplink(self, namespace: str, device: str, port: str) -> None:
        """Lay what leads from a home to the WAN."""
        _cable(self.plan.switch, port, namespace, device)

    def bring_up(self, told: Callable[[str], None] = lambda _: None) -> None:
        """Build the network, start the servers, and let all endpoints join side by side."""
        self.prepare()
        self.start_servers(told)
        endpoints = self.plan.endpoints
        uses = ("--uses", str(len(endpoints)))
        tokens = [self.invite(server, "endpoint", *uses) for server in self.plan.servers]

        def join(number: int) -> None:
            host = endpoints[number]
            self.seip(host, "join", tokens[number % len(tokens)], "--name", host.name)
            self.seip(host, "up", "--wireguard-interface", host.interface)

        with ThreadPoolExecutor(max_workers=JOINS_AT_ONCE) as pool:
            list(pool.map(join, range(len(endpoints))))

    def _settle(self, host: Host, site: Site) -> None:
        net.run("ip", "netns", "add", host.namespace)
        _ip(host.namespace, "link set lo up")
        if site.kind is Kind.OPEN:
            self._to_wan(host.namespace, site, "eth0")
            return
        router = self._router(f"r{site.number}")
        outermost = router
        if site.kind is Kind.DOUBLE_NAT:
            outermost = self._router(f"c{site.number}")
            _cable(outermost, "lan0", router, "wan0")
            _ip(outermost, f"addr add 100.64.{site.number}.1/24 dev lan0")
            _ip(
                router,
                f"addr add 100.64.{site.number}.2/24 dev wan0",
                f"route add default via 100.64.{site.number}.1",
            )
            nftables(outermost, nat_rules(Kind.PORT_RESTRICTED, site) + FIREWALL)
        self._to_wan(outermost, site, "wan0")
        nftables(router, nat_rules(site.kind, site) + FIREWALL)
        at_home(router, "lan0", host.namespace, "eth0", site)
        if site.kind is Kind.MAPPING:
            self._start_mapping(router, site)

    def _start_mapping(self, router: str, site: Site) -> None:
        """Have Debian's miniupnpd on a router; it ends with the lab's namespaces."""
        folder = self.plan.folder / f"r{site.number}"
        folder.mkdir()
        nftables(router, MINIUPNPD_TABLE)
        (folder / "miniupnpd.conf").write_text(MINIUPNPD_CONF.format(lan=site.lan))
        program = ["miniupnpd", "-d", "-f", folder / "miniupnpd.conf", "-P", folder / "pid"]
        with (folder / "log").open("wb") as log:
            subprocess.Popen(
                ["ip", "netns", "exec", router, *program],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _router(self, name: str) -> str:
        namespace = f"{self.plan.prefix}-{name}"
        net.run("ip", "netns", "add", namespace)
        _ip(namespace, "link set lo up")
        forwarding = ("net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
        net.run("ip", "netns", "exec", namespace, "sysctl", "-qw", *forwarding)
        return namespace

    def _to_wan(self, namespace: str, site: Site, device: str) -> None:
        port = f"v-{namespace.removeprefix(f'{self.plan.prefix}-')}"
        self.lay_uplink(namespace, device, port)
        _ip(self.plan.switch, f"link set {port} master br0")
        if site.kind.has_ipv4:
            away = WAN if site.kind is Kind.MAPPING else f"{PUBLIC}.0/24"
            _ip(
                namespace,
                f"addr add {site.wan}/24 dev {device}",
                f"route add {away} dev {device}",
            )
        if site.kind.has_ipv6:
            _ip(namespace, f"addr add {site.wan6}/64 dev {device} nodad")

    def _tell_ipv6_routes(self) -> None:
        """Let all that is on the WAN know behind which router each IPv6 network is."""
        homes = [(name, site) for name, site in self.sites.items() if site.kind.has_ipv6]
        ways = {site: f"route add {site.lan6}::/64 via {site.wan6}" for _, site in homes}
        for server in self.plan.servers:
            _ip(server.namespace, *ways.values())
        for name, own in homes:
            _ip(self.router(name), *(way for site, way in ways.items() if site != own))


def wan_address(host: Host, number: int, kind: Kind) -> str:
    """Return the WAN address of an endpoint's outermost machine."""
    return f"{PUBLIC}.{number}" if kind is Kind.MAPPING else host.address


def server_address6(server: Host) -> str:
    """Return a server's IPv6 address on the WAN."""
    return f"2001:db8::{int(server.address.rpartition('.')[2]):x}"


def at_home(
    router: str, port: str, namespace: str, device: str, site: Site, *, metric: int = 100
) -> None:
    """Put an endpoint into the network behind a router."""
    _cable(router, port, namespace, device)
    if site.kind.has_ipv4:
        _ip(router, f"addr add {site.lan}.1/24 dev {port}")
        _ip(
            namespace,
            f"addr add {site.lan}.2/24 dev {device}",
            f"route add default via {site.lan}.1 metric {metric}",
        )
    if site.kind.has_ipv6:
        _ip(router, f"addr add {site.lan6}::1/64 dev {port} nodad")
        _ip(
            namespace,
            f"addr add {site.address6}/64 dev {device} nodad",
            f"route add default via {site.lan6}::1 metric {metric}",
        )


def nat_rules(kind: Kind, site: Site) -> str:
    """Return what a router translates."""
    if not kind.has_ipv4:
        return ""
    source, back = "masquerade", ""
    if kind.is_symmetric:
        source = "masquerade fully-random"
    elif kind is Kind.FULL_CONE:
        source = f"snat to {site.wan}"
        back = f'iifname "wan0" udp dport 1024-65535 dnat to {site.lan}.2'
    return f"""
        table ip home_nat {{
          chain post {{ type nat hook postrouting priority srcnat; oifname "wan0" {source}; }}
          chain pre {{ type nat hook prerouting priority dstnat; {back}; }}
        }}
    """


MINIUPNPD_CONF = """
ext_ifname=wan0
listening_ip=lan0
enable_natpmp=yes
enable_upnp=yes
secure_mode=yes
upnp_table_name=miniupnpd
upnp_nat_table_name=miniupnpd
upnp_forward_chain=forward
upnp_nat_chain=prerouting
upnp_nat_postrouting_chain=postrouting
uuid=11111111-2222-3333-4444-555555555555
allow 1024-65535 {lan}.0/24 1024-65535
deny 0-65535 0.0.0.0/0 0-65535
"""

MINIUPNPD_TABLE = """
    table inet miniupnpd {
      chain forward { }
      chain prerouting { type nat hook prerouting priority dstnat - 5; policy accept; }
      chain postrouting { type nat hook postrouting priority srcnat - 5; policy accept; }
    }
"""

FIREWALL = """
    table inet home_filter {
      chain input {
        type filter hook input priority 0; policy drop;
        iifname { "lo", "lan0" } accept
        ct state established,related accept
        meta l4proto { icmp, ipv6-icmp } accept
      }
      chain forward {
        type filter hook forward priority 0; policy drop;
        iifname "lan0" accept
        ct state established,related accept
        ct status dnat accept
      }
    }
"""


def nftables(namespace: str, rules: str) -> None:
    """Load rules in a namespace."""
    net.run("ip", "netns", "exec", namespace, "nft", "-f", "-", stdin=rules)


def _cable(one: str, port: str, other: str, device: str) -> None:
    _ip(one, f"link add {port} type veth peer name {device} netns {other}", f"link set {port} up")
    _ip(other, f"link set {device} up")


def _ip(namespace: str, *lines: str) -> None:
    if lines:
        net.run("ip", "-n", namespace, "-batch", "-", stdin="\n".join(lines) + "\n")


@contextmanager
def nat_lab_of(kinds: Sequence[Kind], *, servers: int = 1) -> Iterator[NatLab]:
    """Give a lab that is yet to be built; nothing of it is left in the end."""
    with lab_of(servers, len(kinds), kind=lambda plan: NatLab(plan, kinds)) as built:
        assert isinstance(built, NatLab)
        yield built
