"""The protocol version in force.

    mesh/protocol  {version}

Kind: ``root.protocol`` {version}, signed by the root: activates the version after the one in force.
Of ``audit.anchor`` see ``anchors``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from services.authority.rootkeys.anchors import ANCHOR_KIND, anchor
from services.kernel.errors import RejectedError
from services.kernel.versions import version_in_force

if TYPE_CHECKING:
    from services.kernel.views import Appliers, FoldContext

PROTOCOL_KIND = "root.protocol"


def _protocol(context: FoldContext, body: dict[str, Any]) -> None:
    if context.record.actor not in context.root_keys:
        raise RejectedError("the root activates versions", code="rejected_unauthorised")
    version = body.get("version")
    wanted = version_in_force(context.state) + 1
    if set(body) != {"version"} or type(version) is not int or version != wanted:
        raise RejectedError(f"the next version is {wanted}", code="bad_version")
    context.state.put("mesh", "protocol", {"version": version})


APPLIERS: Appliers = {PROTOCOL_KIND: _protocol, ANCHOR_KIND: anchor}
