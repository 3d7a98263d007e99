"""The roster change that ends a server, and what speaks against it. Pure."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

from services.authority.rootkeys.witnesses import choose_witnesses
from services.kernel.certificates import MAX_SLICES, ServerCertificate
from services.kernel.errors import ConflictError, InputError, NotFoundError

if TYPE_CHECKING:
    from services.authority.ports import Json
    from services.base.ledger.changes import Removal
    from services.base.ledger.roster import Charter
    from services.kernel.ids import ServerId


@dataclass(frozen=True, slots=True, kw_only=True)
class Revocation:
    """A removal as it will stand in the roster, and who takes the slices over."""

    removal: Removal
    is_new: bool
    heir: ServerCertificate | None
    slices: tuple[str, ...]

    def body(self, charter: Charter) -> Json:
        """Return the body of the ``roster.change``."""
        gone = self.removal.server_id
        return {
            "number": charter.number + 1,
            "prev": charter.head,
            "servers": [] if self.heir is None else [self.heir.value()],
            "removed": [self.removal.value()] if self.is_new else [],
            "witnesses": choose_witnesses(
                charter.witnesses_at(charter.number),
                [one for one in charter.servers() if one != gone],
            ),
        }


def require_revocable(charter: Charter, server_id: ServerId, *, root_holder: ServerId) -> None:
    """Refuse what can't be revoked whatever size of its feed shall count.

    Raises:
        NotFoundError: ``unknown_server``.
        ConflictError: ``last_server``, or ``holds_root``.
    """
    if not charter.was_server(server_id):
        raise NotFoundError(
            f"there is no server {server_id}",
            code="unknown_server",
            mend="seipd server ls lists them",
        )
    if charter.servers().keys() == {server_id}:
        raise ConflictError(
            f"{server_id} is the last server of the mesh",
            code="last_server",
            mend="let another server in before this one goes",
        )
    if server_id == root_holder:
        raise ConflictError(
            f"{server_id} holds the root key, and would cut itself off",
            code="holds_root",
            mend="revoke it from another server that holds the root key",
        )


def revocation(charter: Charter, removal: Removal, heir_id: ServerId | None) -> Revocation:
    """Return the revocation of a server, with what an heir takes over from it.

    An heir may be named later, too, and slices that an earlier heir holds stay there.

    Raises:
        ConflictError: ``already_revoked``, ``heir_full``, or ``nothing_to_inherit``.
        NotFoundError: ``unknown_server``: the heir is no server.
        InputError: ``bad_heir``: the server itself.
    """
    server_id = removal.server_id
    before = charter.removal(server_id)
    is_new = before is None or removal.size < before.size
    if before is not None and not is_new and (heir_id is None or removal.size > before.size):
        raise ConflictError(
            f"{server_id} was revoked: of its feed {before.size} entries count",
            code="already_revoked",
            mend="only a smaller --size or an --heir changes anything",
        )
    if heir_id is None:
        return Revocation(removal=removal, is_new=is_new, heir=None, slices=())
    certificate = charter.last_certificate(server_id)
    slices = tuple(
        text
        for text in (certificate.slices if certificate else ())
        if charter.slice_holder(text) == server_id
    )
    heir = _heir(charter, server_id, heir_id, slices)
    return Revocation(removal=removal, is_new=is_new, heir=heir, slices=slices)


def _heir(
    charter: Charter, server_id: ServerId, heir_id: ServerId, slices: tuple[str, ...]
) -> ServerCertificate:
    if heir_id == server_id:
        raise InputError("a server can't be its own heir", code="bad_heir")
    heir = charter.server(heir_id)
    if heir is None:
        raise NotFoundError(
            f"there is no server {heir_id} to be the heir",
            code="unknown_server",
            mend="seipd server ls lists them",
        )
    if not slices:
        raise ConflictError(
            f"the slices of {server_id} have an heir already", code="nothing_to_inherit"
        )
    if len(heir.slices) + len(slices) > MAX_SLICES:
        raise ConflictError(
            f"{heir_id} would hold more than {MAX_SLICES} slices",
            code="heir_full",
            mend="choose another heir",
        )
    return dataclasses.replace(heir, slices=(*heir.slices, *slices))
