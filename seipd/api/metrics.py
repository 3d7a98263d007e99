"""Metrics in the Prometheus text format; names start ``seipd_``, labels are bounded."""

from __future__ import annotations

import collections
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

from services.authority.trust import view as trust_view
from services.edge.dns.service import DnsService
from services.edge.punch.service import PunchService
from services.edge.relay.service import RelayService
from services.edge.resolver.service import ResolverService
from services.edge.stun.service import StunService
from services.kernel.service import HealthState
from services.mesh.membership.states import State
from services.runtime.looplag import LoopLagService

if TYPE_CHECKING:
    from seipd.api.services import ApiServices

RELAY_STATES = ("usable", "suspended", "down", "full")


def render_metrics(services: ApiServices) -> bytes:
    """Return the metrics of this moment."""
    registry = CollectorRegistry()
    status = services.mesh.status()
    up = Gauge("seipd_service_up", "1 where a service is well", ["service"], registry=registry)
    for service in services.all_services:
        up.labels(service.name).set(service.health().state is HealthState.OK)
    Gauge("seipd_records", "Records held, all feeds", registry=registry).set(status["records"])
    servers = services.ledger.charter.servers()
    Gauge("seipd_servers", "Servers of the roster", registry=registry).set(len(servers))
    lied = [one for one in servers if services.ledger.state.get(trust_view.VIEW, one) is not None]
    Gauge("seipd_servers_untrusted", "Servers proved to lie", registry=registry).set(len(lied))
    Gauge("seipd_state_objects", "Objects of the state", registry=registry).set(
        services.ledger.state.count
    )
    Gauge("seipd_addresses_free", "Tunnel addresses left here", registry=registry).set(
        services.ipam.describe()["free"]
    )
    for service in services.all_services:
        if isinstance(service, LoopLagService):
            what = "The longest that all work stood still in the last minute"
            Gauge("seipd_loop_lag_seconds", what, registry=registry).set(service.worst_s())
        elif isinstance(service, DnsService):
            _dns(service, registry)
        elif isinstance(service, ResolverService):
            _resolver(service, registry)
        elif isinstance(service, StunService):
            _stun(service, registry)
        elif isinstance(service, PunchService):
            _punch(service, registry)
        elif isinstance(service, RelayService):
            _relay(service, registry)
    Counter(
        "seipd_endpoint_reports",
        "False things that endpoints say they were shown",
        registry=registry,
    ).inc(services.reports.count)
    _relays(services, registry)
    _gossip(services, registry)
    return generate_latest(registry)


def _dns(service: DnsService, registry: CollectorRegistry) -> None:
    for name, value in service.counters().items():
        Counter(f"seipd_dns_{name}", f"DNS: {name.replace('_', ' ')}", registry=registry).inc(value)
    answers = Counter("seipd_dns_answers", "DNS: answers by code", ["rcode"], registry=registry)
    for rcode, count in service.answered().items():
        answers.labels(rcode).inc(count)
    streams = Gauge("seipd_dns_streams", "DNS: connections over TCP now", registry=registry)
    streams.set(service.stream_count)


def _resolver(service: ResolverService, registry: CollectorRegistry) -> None:
    for name, value in service.counters().items():
        what = f"Names looked up for endpoints: {name.replace('_', ' ')}"
        Counter(f"seipd_resolver_{name}", what, registry=registry).inc(value)
    flight = Gauge("seipd_resolver_in_flight", "Questions not answered yet", registry=registry)
    flight.set(service.flight_count)
    cached = Gauge("seipd_resolver_cached", "Answers kept", registry=registry)
    cached.set(service.cached_count)


def _relay(service: RelayService, registry: CollectorRegistry) -> None:
    status = service.status()
    sessions = Gauge("seipd_relay_sessions", "Sessions at this relay now", registry=registry)
    sessions.set(status.sessions)
    what = "What this relay carried for endpoints"
    Counter("seipd_relay_carried_bytes", what, registry=registry).inc(status.carried_bytes)
    asked = Counter(
        "seipd_relay_asked", "Wishes for a session by what became", ["came"], registry=registry
    )
    for name, count in status.asked.items():
        asked.labels(name).inc(count)
    in_kernel = Gauge("seipd_relay_kernel", "1 where the kernel carries", registry=registry)
    in_kernel.set(status.path == "kernel")


def _relays(services: ApiServices, registry: CollectorRegistry) -> None:
    known = Gauge("seipd_relays", "Relays known here", ["state"], registry=registry)
    states = collections.Counter(one.why_not or "usable" for one in services.relays.all())
    for state in RELAY_STATES:
        known.labels(state).set(states[state])
    reports = services.relays.reports
    told = Counter("seipd_relay_reports", "Reports on relays", ["came"], registry=registry)
    told.labels("taken").inc(reports.taken_count)
    told.labels("refused").inc(reports.refused_count)


def _punch(service: PunchService, registry: CollectorRegistry) -> None:
    here = Gauge("seipd_punch_endpoints", "Endpoints that say they are here", registry=registry)
    here.set(service.here_count)
    what = "Rendezvous: what endpoints and servers asked for, and what became of it"
    asked = Counter("seipd_punch_meetings", what, ["outcome"], registry=registry)
    for outcome, count in service.counters().items():
        asked.labels(outcome).inc(count)


def _stun(service: StunService, registry: CollectorRegistry) -> None:
    what = "STUN: datagrams, and what became of them"
    datagrams = Counter("seipd_stun_datagrams", what, ["outcome"], registry=registry)
    for outcome, count in service.counters().items():
        datagrams.labels(outcome).inc(count)


def _gossip(services: ApiServices, registry: CollectorRegistry) -> None:
    for name, value in services.mesh.counters().items():
        what = f"Gossip: {name.replace('_', ' ')}"
        Counter(f"seipd_gossip_{name}", what, registry=registry).inc(value)
    members = Gauge(
        "seipd_members", "Servers by what they are held to be", ["state"], registry=registry
    )
    held = collections.Counter(one["state"] for one in services.mesh.servers())
    for state in (*(state.value for state in State), trust_view.UNTRUSTED):
        members.labels(state).set(held[state])
