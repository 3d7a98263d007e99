"""What speaks against a change of the roster, given those before it. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from services.kernel.addr import BACKBONE_RESERVED, parse_address, parse_network
from services.kernel.errors import RejectedError

if TYPE_CHECKING:
    from collections.abc import Mapping, Set

    from services.base.ledger.changes import Change, EpochEnd, Genesis
    from services.kernel.certificates import ServerCertificate
    from services.kernel.ids import ServerId


class Before(Protocol):
    """The roster as the change before left it."""

    genesis: Genesis

    def server(self, server_id: ServerId) -> ServerCertificate | None:
        """Return the newest certificate of a server."""

    def servers(self) -> dict[ServerId, ServerCertificate]:
        """Return every server."""

    def was_server(self, server_id: ServerId) -> bool:
        """Say whether the roster ever named a server."""

    def removed(self) -> Set[ServerId]:
        """Return every server that was removed."""

    def ends(self, server_id: ServerId) -> dict[int, EpochEnd]:
        """Return where the epochs of a feed ended."""


def require_allowed(
    before: Before,
    change: Change,
    *,
    backbones: Mapping[str, ServerId],
    slices: Mapping[str, ServerId],
) -> None:
    """Refuse a change that breaks a rule of the roster.

    Args:
        before: as the change before it left it.
        change: the one that follows.
        backbones: who has had which backbone address.
        slices: who has had which slice.

    Raises:
        RejectedError: ``rejected_conflict``, ``revoked``, ``rejected_scope``,
            ``rejected_overlap``, ``rejected_unauthorised`` or ``rejected_stale``.
    """
    ranges = before.genesis.ranges
    removed = {one.server_id for one in change.removed}
    gone = before.removed() | removed
    addresses = {at: holder for at, holder in backbones.items() if holder not in gone}
    held = {at: holder for at, holder in slices.items() if holder not in gone}
    named = [one.server_id for one in change.servers] + [one.server_id for one in change.removed]
    if len(set(named)) != len(named):
        raise RejectedError("a change names a server once", code="rejected_conflict")
    for certificate in change.servers:
        server_id = certificate.server_id
        if server_id in gone:
            raise RejectedError(f"{server_id} was removed", code="revoked")
        offset = int(parse_address(certificate.backbone)) - int(ranges.backbone[0])
        if not BACKBONE_RESERVED <= offset < ranges.backbone.num_addresses - 1:
            raise RejectedError("backbone address out of range", code="rejected_scope")
        if addresses.setdefault(certificate.backbone, server_id) != server_id:
            raise RejectedError("backbone address is taken", code="rejected_overlap")
        for text in certificate.slices:
            ranges.slice_number(parse_network(text))
            if held.setdefault(text, server_id) != server_id:
                raise RejectedError(f"slice {text} is taken", code="rejected_overlap")
    _require_epochs(before, change)
    known = before.servers().keys() | {one.server_id for one in change.servers}
    if not all(before.was_server(one) for one in removed):
        raise RejectedError("only a server can be removed", code="rejected_unauthorised")
    if not set(change.witnesses) <= known - gone:
        raise RejectedError("a witness must be a server", code="rejected_unauthorised")


def _require_epochs(before: Before, change: Change) -> None:
    ended = {one.server_id: one for one in change.ended}
    begun = set()
    for certificate in change.servers:
        name = certificate.server_id
        known = before.server(name)
        if known is None or certificate.epoch == known.epoch:
            continue
        if certificate.epoch != known.epoch + 1 or name not in ended:
            raise RejectedError(
                "the next epoch begins where the last one ends", code="rejected_stale"
            )
        last = before.ends(name).get(known.epoch - 1)
        if last is not None and ended[name].size < last.size:
            raise RejectedError("an epoch can't end before it began", code="rejected_stale")
        begun.add(name)
    if len(ended) != len(change.ended) or ended.keys() != begun:
        raise RejectedError("only an epoch that is followed by one ends", code="rejected_stale")
