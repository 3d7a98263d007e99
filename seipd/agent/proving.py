"""Nobody's word alone: asks for proofs, judges what the server says by them, tells of lies.

Something is *proven* by a map proof under a root that enough servers signed within the last minute;
*believed*, where that was so before (or, of the own server, by the root's certificate) and no newer
proof is to be had; *waiting* where there never was one; *refused* where what was shown is false.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from seipd.agent.believed import load_believed, save_believed, seen_root
from seipd.agent.trustlines import BELIEVED, PROVEN, REFUSED, WAITING
from services.kernel.errors import CorruptError, SeipdError
from services.kernel.ids import MeshId, ServerId, b64u_encode, parse_key
from services.mesh.proofs.claims import check_endpoint, check_server
from services.mesh.proofs.errors import RefusedError
from services.mesh.proofs.record import check_own_record, named_certificate
from services.mesh.proofs.roots import AgreedRoot, Anchor, agreed_root
from services.mesh.proofs.shapes import ShownProofs, proofs_from_value

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from seipd.agent.state import AgentKeys, AgentState
    from services.kernel.certificates import ServerCertificate
    from services.kernel.clock import Clock

NODES_AT_ONCE: Final = 24


class Api(Protocol):
    """The part of the private API that is asked."""

    async def call(self, method: str, path: str, body: Any = None) -> Any:  # noqa: ANN401 (JSON)
        """Make one authenticated request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What is held of one thing that a server said."""

    state: str
    code: str = ""
    why: str = ""
    mend: str = ""

    def value(self) -> dict[str, str]:
        """Return it as JSON."""
        return {"state": self.state, "code": self.code, "why": self.why, "mend": self.mend}


def certified_server(mesh: dict[str, Any]) -> ServerCertificate:
    """Check the server's keys of ``mesh.json`` against the certificate that the root signed.

    Raises:
        RefusedError: they are others.
        CorruptError: there is no certificate.
    """
    if "certificate" not in mesh:
        raise CorruptError(
            "mesh.json holds no certificate", path="mesh.json", mend="seip leave, then join again"
        )
    server = mesh["server"]
    certificate = named_certificate(
        mesh["certificate"],
        mesh_id=MeshId(mesh["mesh_id"]),
        server_id=server["server_id"],
        chain=mesh.get("chain"),
    )
    shown = (server["key"], server["wireguard_key"])
    if shown != (b64u_encode(certificate.key), b64u_encode(certificate.wireguard_key)):
        raise RefusedError(
            f"the keys of {certificate.server_id} are not those that the root signed",
            code="key_differs",
        )
    return certificate


def check_joined(mesh: dict[str, Any], keys: AgentKeys) -> None:
    """Check what a join answered: the server's keys, and the record of this endpoint's own.

    Raises:
        RefusedError: something of it is false.
    """
    mesh_id = MeshId(mesh["mesh_id"])
    certified_server(mesh)
    record = mesh["record"]
    author = named_certificate(
        record["certificate"],
        mesh_id=mesh_id,
        server_id=record["server_id"],
        # The root may have been rotated between the two answers of a join.
        chain=record.get("chain") or mesh.get("chain"),
        seen=seen_root(mesh),
    )
    check_own_record(
        record["proof"].encode("utf-8"),
        mesh_id=mesh_id,
        server=author,
        key=keys.identity.public_key,
        wireguard_key=keys.wireguard_public,
    )


class Prover:
    """Judges by proofs; remembers what was believed."""

    def __init__(
        self,
        *,
        state: AgentState,
        keys: AgentKeys,
        signer_count: int,
        clock: Clock,
        on_lie: Callable[[str, Verdict], None],
    ) -> None:
        self._state = state
        self._keys = keys
        self._mesh = state.mesh()
        self._signer_count = signer_count
        self._clock = clock
        self._on_lie = on_lie
        self._believed = load_believed(state)

    async def own(self, api: Api) -> dict[str, Any]:
        """Judge the own server's keys and this endpoint's own entry; return it for the status."""
        mesh, server = self._mesh, self._mesh["server"]
        node_id, server_id = mesh["node_id"], ServerId(server["server_id"])
        doubt, agreed, shown = await self._proofs(api, [server_id], [node_id])
        if agreed is None or shown is None:
            self._tell(server_id, doubt)
            held = doubt if doubt.state == REFUSED else _instead(doubt, BELIEVED)
            return {**self._signed(None), "server": held.value(), "own": held.value()}
        own = {"key": b64u_encode(self._keys.identity.public_key)}
        own["wireguard_key"] = b64u_encode(self._keys.wireguard_public)

        def check() -> None:
            check_server(
                agreed,
                shown.proof("roster", server_id),
                server_id=server_id,
                key=parse_key(server["key"]),
                wireguard_key=parse_key(server["wireguard_key"]),
            )

        judged = {
            "server": self._judged(server_id, check, otherwise=BELIEVED),
            "own": self._judged(
                node_id, _endpoint_check(agreed, shown, node_id, own), otherwise=WAITING
            ),
        }
        return {**self._signed(agreed), **{name: one.value() for name, one in judged.items()}}

    async def peers(self, api: Api, listed: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return the peers that a server lists, each with what is held of it."""
        judged: list[dict[str, Any]] = []
        for start in range(0, len(listed), NODES_AT_ONCE):
            part = listed[start : start + NODES_AT_ONCE]
            doubt, agreed, shown = await self._proofs(api, [], [one["node_id"] for one in part])
            if agreed is None or shown is None:
                self._tell(self._mesh["server"]["server_id"], doubt)
            judged += [{**one, **_shown_as(self._peer(one, doubt, agreed, shown))} for one in part]
        save_believed(self._state, self._believed)
        return judged

    async def shown_so(
        self, api: Api, listed: Mapping[str, Mapping[str, Any]]
    ) -> dict[str, Verdict]:
        """Return what is held of facts that a server shows of endpoints, by their nodes."""
        judged: dict[str, Verdict] = {}
        for start in range(0, len(listed), NODES_AT_ONCE):
            part = dict(list(listed.items())[start : start + NODES_AT_ONCE])
            doubt, agreed, shown = await self._proofs(api, [], list(part))
            for node_id, facts in part.items():
                judged[node_id] = (
                    doubt
                    if agreed is None or shown is None
                    else self._judged(
                        node_id, _endpoint_check(agreed, shown, node_id, facts), otherwise=WAITING
                    )
                )
        return judged

    def _peer(
        self,
        peer: dict[str, Any],
        doubt: Verdict,
        agreed: AgreedRoot | None,
        shown: ShownProofs | None,
    ) -> Verdict:
        held = self._believed.holds(peer)
        if agreed is None or shown is None:
            return _instead(doubt, BELIEVED) if held else doubt
        facts = {name: peer[name] for name in ("name", "address", "wireguard_key")}
        node_id = peer["node_id"]
        verdict = self._judged(
            node_id,
            _endpoint_check(agreed, shown, node_id, facts),
            otherwise=BELIEVED if held else WAITING,
        )
        if verdict.state == PROVEN:
            self._believed.add(peer)
        return verdict

    async def _proofs(
        self, api: Api, servers: list[str], nodes: list[str]
    ) -> tuple[Verdict, AgreedRoot | None, ShownProofs | None]:
        """Return the root to believe and what is shown under it, or why there is none."""
        body = {"servers": servers, "nodes": nodes}
        try:
            shown = proofs_from_value(await api.call("POST", "/api/mesh/proofs", body))
            agreed = agreed_root(
                shown.records,
                shown.envelopes,
                anchor=Anchor(
                    mesh_id=MeshId(self._mesh["mesh_id"]),
                    roster_number=self._believed.roster_number,
                    chain=shown.chain,
                    seen=self._believed.root,
                ),
                signer_count=self._signer_count,
                now_ms=self._clock.now_ms(),
            )
        except SeipdError as error:
            return _verdict_of(error, WAITING), None, None
        newest = (agreed.roster_number, agreed.seen)
        if newest != (self._believed.roster_number, self._believed.root):
            self._believed.roster_number, self._believed.root = newest
            save_believed(self._state, self._believed)
        return Verdict(state=PROVEN), agreed, shown

    def _judged(self, subject: str, check: Callable[[], None], *, otherwise: str) -> Verdict:
        try:
            check()
        except SeipdError as error:
            verdict = _verdict_of(error, otherwise)
            self._tell(subject, verdict)
            return verdict
        return Verdict(state=PROVEN)

    def _tell(self, subject: str, verdict: Verdict) -> None:
        if verdict.state == REFUSED:
            self._on_lie(subject, verdict)

    def _signed(self, agreed: AgreedRoot | None) -> dict[str, Any]:
        return {
            "signers": list(agreed.signers) if agreed else [],
            "needed": agreed.needed_count if agreed else self._signer_count or None,
            "agreed_ms": agreed.time_ms if agreed else None,
            "state_hash": agreed.root.hex() if agreed else None,
        }


def _endpoint_check(
    agreed: AgreedRoot, shown: ShownProofs, node_id: str, facts: Mapping[str, Any]
) -> Callable[[], None]:
    return lambda: check_endpoint(
        agreed, shown.proof("tree", node_id), node_id=node_id, shown=facts
    )


def _verdict_of(error: SeipdError, otherwise: str) -> Verdict:
    state = REFUSED if isinstance(error, RefusedError) else otherwise
    return Verdict(state=state, code=error.code, why=str(error), mend=error.mend)


def _instead(doubt: Verdict, state: str) -> Verdict:
    return Verdict(state=state, code=doubt.code, why=doubt.why, mend=doubt.mend)


def _shown_as(verdict: Verdict) -> dict[str, str]:
    return {"trust": verdict.state, "why": verdict.why}
