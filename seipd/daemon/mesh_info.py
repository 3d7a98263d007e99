"""What this server knows of itself, in the shapes that ``status``, ``peers``, ``servers`` print."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from seipd.daemon.doctor import examine
from seipd.daemon.latencies import told_in
from services.authority.trust import view as trust_view
from services.kernel.addr import own_tunnel_address
from services.kernel.ids import b64u_encode
from services.kernel.places import place_text
from services.kernel.service import HealthState
from services.kernel.versions import known_version, version_in_force
from services.mesh.facts.hosts6 import hosts6_in
from services.mesh.facts.kinds import ADDRESS6, LATENCY, LOAD
from services.mesh.facts.payloads import LoadPayload, decode_payload
from services.mesh.membership.states import State

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from seipd.config.model import Settings
    from seipd.daemon.outside import Outside
    from services.authority.names.service import NamesService
    from services.authority.trust.service import TrustService
    from services.base.ledger.service import LedgerService
    from services.base.ledger.ticks import StateWord
    from services.edge.wireguard.service import WireGuardService
    from services.kernel.clock import Clock
    from services.kernel.ids import ServerId
    from services.kernel.service import Service
    from services.mesh.facts.envelope import Fact
    from services.mesh.facts.statewords import WordKeeper
    from services.mesh.gossip.addresses import AddressFact
    from services.mesh.gossip.peerstate import PeerState
    from services.mesh.gossip.service import GossipService


OF_SERVERS = ("region", "state", "why", "through", "lag_records", "latency_ms")
"""What ``seipd peers`` tells of those peers that are servers."""


class HttpPorts(Protocol):
    """The ports that the HTTP servers really have."""

    @property
    def public_port(self) -> int:
        """The public one."""

    @property
    def private_port(self) -> int:
        """The private one."""


class DaemonInfo:
    """Gathers from the services; satisfies the API's MeshInfo."""

    def __init__(
        self,
        *,
        settings: Settings,
        public_address: str,
        public_address6: str = "",
        version: str,
        ledger: LedgerService,
        gossip: GossipService,
        wireguard: WireGuardService,
        names: NamesService,
        trust: TrustService,
        release_of: Callable[[ServerId], dict[str, Any] | None],
        words: WordKeeper,
        through: Callable[[], Mapping[ServerId, ServerId]],
        clock: Clock,
        dns_port: Callable[[], int] = lambda: 0,
        stun_port: Callable[[], int] = lambda: 0,
        relay_port: Callable[[], int] = lambda: 0,
        hole_punch_port: Callable[[], int] = lambda: 0,
        outside: Outside | None = None,
    ) -> None:
        self._settings = settings
        self._public_address = public_address
        self._public_address6 = public_address6
        self._version = version
        self._ledger = ledger
        self._gossip = gossip
        self._wireguard = wireguard
        self._name_slots = names
        self._trust = trust
        self._release_of = release_of
        self._words = words
        self._through = through
        self._dns_port = dns_port
        self._stun_port = stun_port
        self._relay_port = relay_port
        self._hole_punch_port = hole_punch_port
        self._outside = outside
        self._clock = clock
        self.services: Sequence[Service] = ()
        self.http: HttpPorts | None = None

    def status(self) -> dict[str, Any]:
        """Return the document of ``seipd status``."""
        ledger = self._ledger
        charter = ledger.charter
        own = charter.server(ledger.server_id)
        device = self._wireguard.status()
        services = [self._service(one) for one in self.services]
        bad = {HealthState.FAILED.value, HealthState.STARTING.value, HealthState.STOPPED.value}
        return {
            "mesh_id": ledger.mesh_id,
            "domain": charter.genesis.domain,
            "region": own.region if own else None,
            "server_id": ledger.server_id,
            "public_key": b64u_encode(own.key) if own else None,
            "version": self._version,
            "protocol": {"in_force": version_in_force(ledger.state), "known": known_version()},
            "healthy": all(one["state"] not in bad for one in services),
            "services": services,
            "tunnel_address": str(own_tunnel_address(own.slices)) if own else None,
            "backbone_address": own.backbone if own else None,
            "slices": list(own.slices) if own else [],
            "wireguard": {
                "interface": device.interface,
                "backend": device.backend,
                "public_key": b64u_encode(device.public_key),
                "port": device.listen_port,
                "peers": device.peer_count,
                "mtu": device.mtu,
            },
            "ports": self._ports(),
            "records": sum(head.size for head in ledger.feeds().values()),
            "agreed_state": self._agreed_state(),
            "state_hash": ledger.state.root().hex(),
            "feeds": [
                {
                    "server_id": name,
                    "epoch": head.epoch,
                    "size": head.size,
                    "root_hash": ledger.log(name).root_hex,
                }
                for name, head in sorted(ledger.feeds().items())
            ],
            "ns": self._name_slots.slots().get(ledger.server_id),
            "insecure": self._settings.insecure,
            "tier": self._trust.tier(ledger.server_id).value,
            "root": {
                "generation": charter.chain.newest.generation,
                "fingerprint": charter.chain.newest.fingerprint,
            },
        }

    def servers(self) -> list[dict[str, Any]]:
        """Return the document of ``seipd servers``."""
        known = {one.server_id: one for one in self._gossip.peers()}
        facts, hosts6 = self._gossip.addresses(), self._hosts6()
        slots, through = self._name_slots.slots(), self._through()
        loads, latencies = self._gossip.facts(LOAD), self._gossip.facts(LATENCY)
        listed = []
        for server_id, certificate in sorted(self._ledger.charter.servers().items()):
            peer = known.get(server_id)
            fact = facts.get(server_id)
            state = self._server_state(server_id, peer)
            listed.append(
                {
                    "server_id": server_id,
                    "region": certificate.region,
                    "state": state,
                    "why": _why(state, peer),
                    "address": place_text(fact.host, fact.http_port) if fact else None,
                    "address6": place_text(hosts6[server_id], fact.http_port)
                    if fact and server_id in hosts6
                    else None,
                    "backbone_address": certificate.backbone,
                    "through": through.get(server_id),
                    "lag_records": peer.lag_records if peer else 0,
                    "latency_ms": round(peer.latency_ms)
                    if peer and peer.latency_ms is not None
                    else None,
                    "latencies_ms": told_in(latencies[server_id]) if server_id in latencies else {},
                    "uptime_percent": int(100 * peer.uptime)
                    if peer and peer.uptime is not None
                    else None,
                    "checks": peer.checks if peer else 0,
                    "load": _load(loads[server_id]) if server_id in loads else None,
                    "ns": slots.get(server_id),
                    "tier": self._trust.tier(server_id).value,
                    "release": self._release_of(server_id),
                }
            )
        return listed

    def counters(self) -> Mapping[str, int]:
        """Return what gossip and membership count, under names that are fixed."""
        return {**self._gossip.counters(), "words_refused": self._words.refused_count}

    async def peers(self) -> list[dict[str, Any]]:
        """Return the document of ``seipd peers``."""
        names, servers = self._names_by_key(), {one["server_id"]: one for one in self.servers()}
        now_s = self._clock.now_ms() // 1000
        listed = []
        for key, peer in (await self._wireguard.peers()).items():
            text = b64u_encode(key)
            seen = peer.last_handshake_s
            server = servers.get(names.get(text, ""), {})
            listed.append(
                {
                    "public_key": text,
                    "name": names.get(text) or self._node_name(text),
                    "endpoint": f"{peer.endpoint[0]}:{peer.endpoint[1]}" if peer.endpoint else None,
                    "allowed_ips": list(peer.allowed_ips),
                    "last_handshake_seconds": now_s - seen if seen else None,
                    "rx_bytes": peer.rx_bytes,
                    "tx_bytes": peer.tx_bytes,
                    **{name: server.get(name) for name in OF_SERVERS},
                }
            )
        return listed

    def addresses(self) -> tuple[str, ...]:
        """Return ``host:port`` of public HTTPS servers, this one first, nine at most."""
        port, hosts6 = self._ports()["http"], self._hosts6()
        own = [
            place_text(host, port) for host in (self._public_address, self._public_address6) if host
        ]
        others = (
            place_text(host, fact.http_port)
            for name, fact in sorted(self._gossip.addresses().items())
            for host in ("" if self._is_hidden(fact) else fact.host, hosts6.get(name, ""))
            if host and name != self._ledger.server_id
        )
        return tuple(dict.fromkeys((*own, *others)))[:9]

    def _hosts6(self) -> dict[str, str]:
        ledger, facts = self._ledger, self._gossip.facts(ADDRESS6)
        return hosts6_in(facts, mesh_id=ledger.mesh_id, ranges=ledger.charter.genesis.ranges)

    def _is_hidden(self, fact: AddressFact) -> bool:
        """Say whether a server is reached over the backbone alone."""
        return fact.host in self._ledger.charter.backbones()

    def _agreed_state(self) -> dict[str, Any] | None:
        agreed = self.agreed_state()
        return agreed and {"time_ms": agreed[0].time_ms, "root": agreed[0].root.hex()}

    def agreed_state(self) -> tuple[StateWord, list[bytes]] | None:
        """Return the newest word on the state that the witnesses agree on, and who says so."""
        return self._words.agreed()

    def address_facts(self) -> list[bytes]:
        """Return the signed address facts of the servers known, this one's among them."""
        return self._gossip.address_facts()

    def learn_address(self, fact: bytes) -> None:
        """Take a server's signed address fact."""
        self._gossip.learn(fact)

    def moved(self, public_address: str) -> None:
        """Take that others reach this server elsewhere now."""
        self._public_address = public_address

    def wireguard_endpoint(self) -> str:
        """Return ``host:port`` of this server's WireGuard."""
        return place_text(self._public_address, self._wireguard.status().listen_port)

    def wireguard_endpoint6(self) -> str | None:
        """Return the same over IPv6, if this server has such an address for everybody."""
        host, port = self._public_address6, self._wireguard.status().listen_port
        return place_text(host, port) if host else None

    async def doctor(self) -> list[dict[str, Any]]:
        """Return the findings of ``seipd doctor``."""
        return examine(self.status(), self.servers(), await self.peers())

    async def nat(self) -> dict[str, Any] | None:
        """Return how this server is seen from outside, if there is somebody to ask."""
        return await self._outside.shown() if self._outside is not None else None

    def _service(self, service: Service) -> dict[str, Any]:
        health = service.health()
        return {
            "name": service.name,
            "state": health.state.value,
            "since": None,
            "detail": health.detail,
        }

    def _server_state(self, server_id: str, peer: PeerState | None) -> str:
        # Who was proved to lie is worth no other word, whether it answers or not.
        if self._ledger.state.get(trust_view.VIEW, server_id) is not None:
            return trust_view.UNTRUSTED
        if peer is None:
            return State.ALIVE.value
        # Who was never heard of yet may be on its way.
        return str((State.SUSPECT if peer.state is State.UNKNOWN else peer.state).value)

    def _ports(self) -> dict[str, int]:
        http = self.http
        return {
            "http": http.public_port if http else self._settings.http_port,
            "private_http": http.private_port if http else self._settings.private_http_port,
            "gossip": self._gossip.port,
            "wireguard": self._wireguard.status().listen_port,
            "dns": self._dns_port(),
            "stun": self._stun_port(),
            "relay": self._relay_port(),
            "hole_punch": self._hole_punch_port(),
        }

    def _names_by_key(self) -> dict[str, str]:
        servers = self._ledger.charter.servers()
        return {b64u_encode(one.wireguard_key): str(name) for name, one in servers.items()}

    def _node_name(self, wireguard_key: str) -> str | None:
        node_id = self._ledger.state.get("wg", wireguard_key)
        node = self._ledger.state.get("tree", node_id) if node_id else None
        return str(node["name"]) if node else None


def _why(state: str, peer: PeerState | None) -> str:
    if state == trust_view.UNTRUSTED:
        return "it signed two histories"
    return peer.why if peer else "this server"


def _load(fact: Fact) -> dict[str, Any]:
    said = decode_payload(fact.payload, LoadPayload)
    return {
        "cpu_percent": round(said.cpu_permille / 10),
        "endpoints": said.endpoints_count,
        "version": said.version,
        "protocol": said.protocol,
    }
