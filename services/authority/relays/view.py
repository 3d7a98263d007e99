"""Community relays: machines that are no servers and carry what two endpoints say to each other.

    relay/<relay>      {box, host, host6, key, made_ms, port, region, owner, owner_made, record}
    relays/<owner>     {count, made}: how many a customer has; made is the record that made its node

Kinds: ``relay.register`` {relay, owner, introduction} puts a relay into the directory, or says
anew where it is; ``relay.retire`` {relay} takes it out. The owner is a customer, or the root for a
relay of the mesh's own. Both need ``operate`` at the owner. The relay's own key may tell of a new
address and retire it too, once it is registered. The introduction is signed by the relay, so that
nobody registers a machine that is not theirs, and of a relay's words the latest counts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec

from services.authority.relays.introductions import check_place, introduction_of, is_signed
from services.authority.tree.permissions import Capability, require
from services.kernel.addr import ranges_from_value
from services.kernel.errors import InputError, RejectedError
from services.kernel.ids import b64u_encode, parse_uuid
from services.kernel.targets import inner_networks

if TYPE_CHECKING:
    from collections.abc import Callable

    from services.kernel.views import Appliers, FoldContext, StateReader, StateWriter

    Verify = Callable[[bytes, bytes, bytes], bool]

VIEW: Final = "relay"
COUNT_VIEW: Final = "relays"
REGISTER_KIND: Final = "relay.register"
RETIRE_KIND: Final = "relay.retire"
MAX_RELAYS: Final = 64
"""How many one owner has; the mesh's own are the root's."""

_Id = Annotated[str, msgspec.Meta(max_length=36)]


class _RegisterWire(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    relay: _Id
    owner: _Id
    introduction: dict[str, Any]


class _RetireWire(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    relay: _Id


def relay_in(state: StateReader, relay_id: str) -> dict[str, Any] | None:
    """Return a relay; None where there is none, or its owner is gone."""
    held: dict[str, Any] | None = state.get(VIEW, relay_id)
    return held if held is not None and _is_owned(state, held) else None


def _is_owned(state: StateReader, held: dict[str, Any]) -> bool:
    # What was said of a node is not said of another that was made with its id.
    node = state.get("tree", held["owner"])
    return node is not None and node["record"] == held["owner_made"]


def _register(context: FoldContext, body: dict[str, Any], verify: Verify) -> None:
    wire = _converted(body, _RegisterWire, REGISTER_KIND)
    state = context.state
    found = introduction_of(wire.introduction)
    ranges = ranges_from_value(state.get("mesh", "genesis")["body"]["ranges"])
    check_place(found, inner_networks(context.mesh_id, ranges))
    if found.relay_id != parse_uuid(wire.relay):
        raise InputError("that is another relay's introduction", code="bad_key")
    owner = state.get("tree", wire.owner)
    if owner is None or owner["kind"] == "endpoint":
        raise RejectedError("there is no such customer", code="rejected_orphan")
    held = relay_in(state, wire.relay)
    is_own_word = held is not None and _is_relay(context, held) and held["owner"] == wire.owner
    if not is_own_word:
        require(context, wire.owner, Capability.OPERATE)
    if not is_signed(found, context.mesh_id, verify):
        raise RejectedError("the relay did not sign that", code="bad_signature")
    if held is not None and held["owner"] != wire.owner:
        raise RejectedError("it is another's relay", code="rejected_scope", mend="retire it first")
    if held is not None and found.made_ms <= held["made_ms"]:
        raise RejectedError("the relay said something else since", code="stale")
    if held is None:
        _count(state, wire.owner, owner["record"], 1)
    said = {name: wire.introduction[name] for name in wire.introduction if name != "signature"}
    owned = {"owner": wire.owner, "owner_made": owner["record"], "record": context.record.id}
    state.put(VIEW, wire.relay, {**said, **owned})


def _retire(context: FoldContext, body: dict[str, Any]) -> None:
    wire = _converted(body, _RetireWire, RETIRE_KIND)
    state = context.state
    held = relay_in(state, wire.relay)
    if held is None:
        raise RejectedError("there is no such relay", code="rejected_orphan")
    if not _is_relay(context, held):
        require(context, held["owner"], Capability.OPERATE)
    state.delete(VIEW, wire.relay)
    _count(state, held["owner"], held["owner_made"], -1)


def _is_relay(context: FoldContext, held: dict[str, Any]) -> bool:
    return bool(held["key"] == b64u_encode(context.record.actor))


def _count(state: StateWriter, owner: str, made: str, step: int) -> None:
    counted = state.get(COUNT_VIEW, owner)
    before = counted["count"] if counted is not None and counted["made"] == made else 0
    if before + step > MAX_RELAYS:
        raise RejectedError(f"one owner has {MAX_RELAYS} relays", code="too_many")
    if before + step:
        state.put(COUNT_VIEW, owner, {"count": before + step, "made": made})
    else:
        state.delete(COUNT_VIEW, owner)


def _converted(body: dict[str, Any], kind: Any, name: str) -> Any:  # noqa: ANN401 (msgspec's)
    try:
        return msgspec.convert(body, kind)
    except msgspec.ValidationError as error:
        raise InputError(f"{name}: {error}") from error


def appliers(verify: Verify) -> Appliers:
    """Return the kinds of this view.

    Args:
        verify: checks an Ed25519 signature: key, message, signature.
    """
    return {
        REGISTER_KIND: lambda context, body: _register(context, body, verify),
        RETIRE_KIND: _retire,
    }
