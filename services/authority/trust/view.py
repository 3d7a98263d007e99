"""Trust: which servers were proved to have told two stories; what witnesses hold of the others.

    trust/<server id>      {epoch, reason, record, size, state}

Kind: ``trust.equivocation``, whose body is an ``EquivocationProof``. The proof carries its own
weight, so any server of the roster may bring it, about any other and about itself; the roster only
says that the accused has that feed. ``state`` is ``untrusted``, ``reason`` ``equivocation``;
``size`` is one at which the feed has two roots: what came before may be true on both branches. Once
is enough, and nothing takes it back: the way home is a new key, which the root enrols. Of
``trust.verdict`` see ``verdicts``, of ``attestation.enroll`` and ``.withdraw`` ``enrolled``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from services.authority.trust.enrolled import ENROLL_KIND, WITHDRAW_KIND, enroll, withdraw
from services.authority.trust.tiers import PROOF_VIEW
from services.authority.trust.verdicts import VERDICT_KIND, verdict
from services.base.ledger.equivocation import EQUIVOCATION_KIND, proof_from_body
from services.kernel.errors import RejectedError

if TYPE_CHECKING:
    from services.kernel.views import Appliers, FoldContext

VIEW = PROOF_VIEW
TRUSTED = "trusted"
UNTRUSTED = "untrusted"
REASON_EQUIVOCATION = "equivocation"


def _equivocation(context: FoldContext, body: dict[str, Any]) -> None:
    proof = proof_from_body(body)
    if context.roster.server_of_key(context.record.actor) is None:
        raise RejectedError("a server of the mesh brings proofs", code="rejected_unauthorised")
    accused = context.roster.server(proof.server_id)
    if proof.mesh_id != context.mesh_id or accused is None or accused.key != proof.key:
        raise RejectedError(f"{proof.server_id} is no server here", code="rejected_scope")
    # A number that the root never gave names no feed; an older one did.
    if proof.epoch > accused.epoch:
        raise RejectedError(f"{proof.server_id} has no such epoch", code="rejected_scope")
    if context.state.get(VIEW, proof.server_id) is not None:
        raise RejectedError(f"{proof.server_id} is untrusted already", code="already_untrusted")
    found = proof.verify()
    context.state.put(
        VIEW,
        found.server_id,
        {
            "state": UNTRUSTED,
            "reason": REASON_EQUIVOCATION,
            "epoch": found.epoch,
            "size": found.size,
            "record": context.record.id,
        },
    )


APPLIERS: Appliers = {
    EQUIVOCATION_KIND: _equivocation,
    VERDICT_KIND: verdict,
    ENROLL_KIND: enroll,
    WITHDRAW_KIND: withdraw,
}
