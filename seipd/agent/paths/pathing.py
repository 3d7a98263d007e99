"""The path to one peer, from inputs and the time to effects. Pure.

    IDLE -> SEARCHING -> SHAKING -> CARRYING -> IDLE

IDLE, all goes over the server. SEARCHING pings the candidates of a meeting. SHAKING has the other
as a WireGuard peer that no packets go to yet. CARRYING gives it the two tunnel addresses, at both
ends within a moment; between direct and relay only the address of the WireGuard peer changes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from seipd.agent.paths import limits
from seipd.agent.paths.candidates import CandidateBook
from seipd.agent.paths.effects import Ask, Drop, Effect, Send, SetPeer, Tell
from seipd.agent.paths.phase import Phase
from seipd.agent.paths.probes import Probe, ProbeKind, probe_to
from seipd.agent.paths.wishes import IDLE_S, Meetings, RelayWish
from services.base.crypto.session import ReplayWindow
from services.edge.punch.messages import SignalCode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from services.edge.punch.messages import RelayOffer
    from services.edge.wireguard.model import Endpoint, PeerStatus

_NEVER: Final = float("-inf")


class PeerPath:
    """The path to one peer."""

    def __init__(self, *, start_ms: int, leads: bool) -> None:
        """Begin with nothing.

        Args:
            start_ms: as for the candidates.
            leads: this end begins the handshakes; two that cross come to nothing.
        """
        self._out: list[Effect] = []
        self._book = CandidateBook(start_ms)
        self._replays = ReplayWindow(limits.REPLAY_MS)
        self._meetings = Meetings()
        self._relay = RelayWish()
        self._met_s = self._since_s = self._moved_s = _NEVER
        self._alive_due_s = self._compare_due_s = self._again_s = self._repoint_s = _NEVER
        self._leads = leads
        self._up_s = self._other_up_s = self._received_s = _NEVER
        self._is_up, self._received_bytes = False, 0
        self.phase = Phase.IDLE
        self.endpoint: Endpoint | None = None
        self.why = "nothing was sent to it lately"

    @property
    def path(self) -> str:
        """By which path packets go: ``direct``, ``relay`` or ``server``."""
        if self.phase is not Phase.CARRYING:
            return "server"
        return "relay" if self._is_relayed else "direct"

    @property
    def latency_ms(self) -> float | None:
        """The round trip of the direct way that is taken."""
        at = self.endpoint if self.phase is Phase.CARRYING else None
        return self._book.latency_ms(at) if at is not None else None

    @property
    def is_busy(self) -> bool:
        """Whether time matters just now."""
        return self.phase in (Phase.SEARCHING, Phase.SHAKING) or self._book.is_pinging

    def is_wanted(self, now_s: float) -> bool:
        """Say whether packets went there lately."""
        return self._meetings.is_wanted(now_s)

    def is_over(self, now_s: float) -> bool:
        """Say whether nothing of it needs to be kept."""
        was_met = now_s - self._met_s < IDLE_S
        return self.phase is Phase.IDLE and not (was_met or self.is_wanted(now_s))

    def want(self, now_s: float) -> list[Effect]:
        """Note that packets go to the peer."""
        self._meetings.want(now_s)
        return self.tick(now_s)

    def meet(
        self,
        addresses: Sequence[Endpoint],
        offers: tuple[RelayOffer, ...],
        now_s: float,
        *,
        hopeless: bool,
    ) -> list[Effect]:
        """Take where the other is; it is told of us in the same moment.

        Args:
            addresses: its candidates that may be sent to.
            offers: relays that would carry.
            now_s: the time.
            hopeless: the routers on both ways let nothing through, so a relay is not waited for.
        """
        self._replays = ReplayWindow(limits.REPLAY_MS)
        self._meetings.want(now_s)
        if self._book.replace(addresses, now_s):
            self._meetings.restart()
        self._met_s = now_s
        self._relay.offered(offers, now_s)
        self._meetings.met(now_s)
        self._book.burst(now_s)
        if self.phase is Phase.IDLE:
            self._enter(Phase.SEARCHING, now_s, "looking for a way")
        if hopeless and self.phase is Phase.SEARCHING:
            self._out += self._relay.seek(now_s)
        return self.tick(now_s)

    def refused(self, why: str, now_s: float) -> list[Effect]:
        """Take that there is no meeting."""
        self._meetings.later(now_s)
        if self.phase is Phase.IDLE:
            self.why = why
        return self._flush()

    def heard(self, probe: Probe, source: Endpoint, now_s: float) -> list[Effect]:
        """Take a probe of the other that came from somewhere."""
        if self.phase is Phase.IDLE and now_s - self._met_s > IDLE_S:
            return []
        if probe.kind is ProbeKind.PONG:
            if not self._book.answered(source, probe.counter, now_s):
                return []
        elif not self._replays.accept(probe.counter):
            return []
        else:
            self._send(ProbeKind.PONG, source, probe.counter)
            if self.phase is not Phase.IDLE:
                self._book.add(source, now_s)
            if self.phase is Phase.SEARCHING and not self._leads:
                # To be there for the handshake: the other begins it with the first pong.
                self._shake(source, now_s)
        if probe.is_up:
            self._other_up_s = now_s
        return self.tick(now_s)

    def signalled(self, code: SignalCode, now_s: float) -> list[Effect]:
        """Take a word of the other that came over the servers."""
        if code is SignalCode.UP:
            self._other_up_s = now_s
            return self.tick(now_s)
        if code is SignalCode.RESTARTED:
            self._fall("the other started anew", now_s, tells=False)
            self._meetings.soon(now_s)
        elif self.phase in (Phase.SHAKING, Phase.CARRYING):
            self._fall("the other went back to the server", now_s, tells=False)
        return self._flush()

    def device(self, peer: PeerStatus | None, now_s: float) -> list[Effect]:
        """Take what WireGuard says of the peer."""
        if peer is None or self.phase not in (Phase.SHAKING, Phase.CARRYING):
            return []
        if peer.last_handshake_s and not self._is_up:
            self._is_up, self._up_s = True, now_s
        if peer.rx_bytes > self._received_bytes + limits.BUSY_BYTES:
            self._meetings.want(now_s)
        if peer.rx_bytes != self._received_bytes:
            self._received_bytes, self._received_s = peer.rx_bytes, now_s
        self._keep_pointed(peer.endpoint, now_s)
        return self.tick(now_s)

    def relay_bound(self, address: Endpoint, now_s: float) -> list[Effect]:
        """Take that a relay carries for the two, when sent to at this address."""
        self._relay.address = address
        if self.phase in (Phase.IDLE, Phase.SEARCHING):
            self._shake(address, now_s)
        elif self._is_relayed or self._is_silent(now_s):
            self._point(address, now_s)
        return self.tick(now_s)

    def relay_lost(self, why: str, now_s: float) -> list[Effect]:
        """Take that the relay carries no more."""
        was_relayed = self._is_relayed
        self._relay.lost()
        if was_relayed:
            self._fall(why, now_s, tells=True)
            self._meetings.soon(now_s)
        return self.tick(now_s)

    def network_changed(self, now_s: float, *, is_lost: bool = True) -> list[Effect]:
        """Take that this machine has other addresses; not ``is_lost``: only more than before."""
        self._meetings.soon(now_s)
        if is_lost:
            self._moved_s = now_s
            self._book.burst(now_s)
            if self._is_relayed:
                self._fall("the network changed", now_s, tells=True)
        return self.tick(now_s)

    def end(self, why: str, now_s: float) -> list[Effect]:
        """Go back to the server, and look for nothing better until packets go there again."""
        self._meetings.forget()
        self._fall(why, now_s, tells=True)
        return self._flush()

    def tick(self, now_s: float) -> list[Effect]:
        """Do what is due."""
        if self.phase is not Phase.IDLE and not self._meetings.is_wanted(now_s):
            self._fall("nothing was sent to it lately", now_s, tells=True)
        if self._asks(now_s):
            self._meetings.asked(now_s)
            self._out.append(Ask())
        match self.phase:
            case Phase.SEARCHING:
                self._search(now_s)
            case Phase.SHAKING:
                self._go_on_shaking(now_s)
            case Phase.CARRYING:
                self._go_on_carrying(now_s)
            case Phase.IDLE:
                pass
        for address, counter in self._book.take_due(now_s):
            self._send(ProbeKind.PING, address, counter)
        return self._flush()

    def _asks(self, now_s: float) -> bool:
        """Say whether it is time for a meeting: nothing better than the server, or soon so."""
        is_worse = self.phase is Phase.CARRYING and (self._is_relayed or self._is_silent(now_s))
        return (is_worse or self.phase is Phase.IDLE) and self._meetings.is_due(now_s)

    def _search(self, now_s: float) -> None:
        best = self._book.best(now_s, None)
        sought_s = now_s - self._since_s
        if best is not None:
            self._shake(best, now_s)
        elif sought_s > (limits.RELAY_SEARCH_S if self._relay.is_sought else limits.SEARCH_S):
            self._out += self._relay.leave()
            self._enter(Phase.IDLE, now_s, "no ping came through, and no relay carries")
        elif sought_s > limits.RELAY_AFTER_S:
            self._out += self._relay.seek(now_s)

    def _shake(self, address: Endpoint, now_s: float) -> None:
        """Have the other as a peer that nothing is sent to: the handshake comes first."""
        self._enter(Phase.SHAKING, now_s, "a way is open, the tunnel comes up")
        self._is_up, self._other_up_s, self._received_bytes = False, _NEVER, 0
        self._again_s = now_s + self._book.patience_s(address, limits.SHAKE_AGAIN_S)
        self._alive_due_s = self._received_s = now_s
        self._set_peer(address, carries=False, is_fresh=True)

    def _go_on_shaking(self, now_s: float) -> None:
        self._choose(now_s)
        is_alone_long = self._is_relayed and now_s - self._up_s > limits.ALONE_S
        if self._is_up and (self._other_up_s > _NEVER or is_alone_long):
            self._carry(now_s)
            return
        if now_s - self._since_s > limits.SHAKE_S:
            self._fall("no handshake came through", now_s, tells=True)
            return
        if not self._is_up and now_s - self._since_s > limits.RELAY_AFTER_S:
            self._out += self._relay.seek(now_s)
        # Up, and the other is not: it may have started anew since it answered.
        again_s = self._up_s + limits.SHAKE_LATER_S if self._is_up else self._again_s
        if self._leads and now_s >= again_s and self.endpoint is not None:
            self._is_up = False
            self._again_s = now_s + self._book.patience_s(self.endpoint, limits.SHAKE_LATER_S)
            self._set_peer(self.endpoint, carries=False, is_fresh=True)
        if now_s >= self._alive_due_s:
            self._alive_due_s = now_s + limits.SHAKE_EACH_S
            self._say_up(now_s)

    def _say_up(self, now_s: float) -> None:
        """Let the other know how far this side is, by the way that there is."""
        if not self._is_relayed and self.endpoint is not None:
            self._book.ping(self.endpoint, now_s)
        elif self._is_up:
            self._alive_due_s = now_s + limits.ALONE_S
            self._out.append(Tell(SignalCode.UP))

    def _carry(self, now_s: float) -> None:
        self._enter(Phase.CARRYING, now_s, "")
        if self._is_relayed:
            self._meetings.later(now_s, on_relay=True)
        self._compare_due_s = now_s + 1.0
        if self.endpoint is not None:
            self._set_peer(self.endpoint, carries=True)
        self._say_up(now_s)
        self._alive_due_s = now_s + limits.ALIVE_EACH_S

    def _go_on_carrying(self, now_s: float) -> None:
        self._choose(now_s)
        self.why = "no ping came through" if self._is_relayed else ""
        if self._is_relayed:
            if now_s - self._received_s > limits.RELAY_DEAD_S:
                self._fall("nothing came through the relay", now_s, tells=True)
            return
        if now_s - self._since_s > limits.LEAVE_RELAY_S and not self._is_silent(now_s):
            self._out += self._relay.leave()
        if why := self._why_dead(now_s):
            self._fall(why, now_s, tells=True)
            return
        at = self.endpoint
        if at is not None and now_s >= min(self._alive_due_s, self._book.again_s(at, now_s)):
            self._alive_due_s = now_s + limits.ALIVE_EACH_S
            self._book.ping(at, now_s)
            if self._is_silent(now_s):
                self._book.ping_known(now_s)
                self._out += self._relay.seek(now_s)
        if now_s >= self._compare_due_s:
            self._compare_due_s = now_s + limits.COMPARE_EACH_S
            self._book.ping_known(now_s)
            self._meetings.steady(now_s - self._since_s)

    def _why_dead(self, now_s: float) -> str:
        if self.endpoint is None:
            return "there is no way"
        silent_s = self._book.silent_s(self.endpoint, now_s)
        if self._book.is_dead(self.endpoint, now_s):
            return "the direct way fell silent"
        if now_s - self._received_s > limits.TUNNEL_DEAD_S:
            return "nothing came through the tunnel"
        if limits.MOVED_DEAD_S < now_s - self._moved_s < min(limits.QUIET_S, silent_s):
            return "the network changed"
        if silent_s < 1.0 and now_s - max(self._other_up_s, self._since_s) > limits.QUIET_S:
            return "the other has no tunnel to this machine"
        return ""

    def _choose(self, now_s: float) -> None:
        """Take the best way that answers: any direct one before a relay.

        Of two that work the one who leads takes one: else each might hold to another.
        """
        current = None if self._is_relayed else self.endpoint
        if current is not None and not self._leads and not self._is_silent(now_s):
            return
        best = self._book.best(now_s, current)
        if best is not None and best != self.endpoint:
            self._since_s = now_s if self._is_relayed else self._since_s
            self._point(best, now_s)

    def _keep_pointed(self, endpoint: Endpoint | None, now_s: float) -> None:
        """WireGuard goes where it last heard the other from: go, too, or have it come back."""
        if endpoint is None or self.endpoint in (None, endpoint) or now_s < self._repoint_s:
            return
        is_worse = self._is_relayed or self._is_silent(now_s)
        is_known = not self._leads and self._book.latency_ms(endpoint) is not None
        if self._book.silent_s(endpoint, now_s) < limits.QUIET_S if is_worse else is_known:
            self.endpoint = endpoint
            self._book.ping(endpoint, now_s)
            return
        if endpoint != self._relay.address:
            self._book.add(endpoint, now_s)
        # Another relay than that which both have settled on is let go soon.
        if self.endpoint is not None and (self._is_relayed or not self._is_silent(now_s)):
            self._point(self.endpoint, now_s)

    def _point(self, address: Endpoint, now_s: float) -> None:
        self._repoint_s = now_s + limits.REPOINT_EACH_S
        self._received_s = self._received_s if address == self.endpoint else now_s
        self._set_peer(address, carries=self.phase is Phase.CARRYING)

    def _fall(self, why: str, now_s: float, *, tells: bool) -> None:
        """Let packets go over the server again."""
        if self.phase in (Phase.SHAKING, Phase.CARRYING):
            self._out.append(Drop())
            if tells:
                self._out.append(Tell(SignalCode.FALL_BACK))
            self._meetings.restart()
        self._out += self._relay.leave()
        self.endpoint, self._is_up = None, False
        self._enter(Phase.IDLE, now_s, why)
        self._meetings.later(now_s)

    @property
    def _is_relayed(self) -> bool:
        return self.endpoint is not None and self.endpoint == self._relay.address

    def _is_silent(self, now_s: float) -> bool:
        return self.endpoint is None or self._book.is_silent(self.endpoint, now_s)

    def _enter(self, phase: Phase, now_s: float, why: str) -> None:
        self.phase, self._since_s, self.why = phase, now_s, why

    def _set_peer(self, endpoint: Endpoint, *, carries: bool, is_fresh: bool = False) -> None:
        self.endpoint = endpoint
        self._out.append(
            SetPeer(
                endpoint=endpoint,
                carries=carries,
                is_fresh=is_fresh,
                is_relayed=self._is_relayed,
                initiates=carries or self._leads,
            )
        )

    def _send(self, kind: ProbeKind, address: Endpoint, counter: int) -> None:
        is_carrying = self.phase is Phase.CARRYING
        probe = probe_to(address, kind, counter, is_up=self._is_up, is_carrying=is_carrying)
        self._out.append(Send(address, probe))

    def _flush(self) -> list[Effect]:
        out, self._out = self._out, []
        return out
