"""What this endpoint wants to carry for others, and what it wants of theirs; kept in its folder.

routing.json   {accepts, advertise, exit_node, mode, offers_exit}

``seip up`` writes it, also while the agent runs, which looks at it every second.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Final, Literal

import msgspec

from services.authority.tree.prefixes import MAX_PREFIXES, parse_prefix
from services.base.storage.files import read_private, write_atomic
from services.kernel import canonical
from services.kernel.addr import parse_address
from services.kernel.errors import CorruptError, InputError, SeipdError
from services.kernel.ids import parse_hostname

if TYPE_CHECKING:
    from pathlib import Path

    from seipd.agent.state import AgentState

Mode = Literal["mesh", "hub"]
MODES: Final = ("mesh", "hub")
NONE: Final = "none"
MAX_BYTES: Final = 1 << 16


class RoutingWishes(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All that is wanted of routing."""

    advertise: Annotated[list[str], msgspec.Meta(max_length=MAX_PREFIXES)] = []
    """Subnets behind this endpoint, sorted."""
    offers_exit: bool = False
    exit_node: str = ""
    """The name or the tunnel address of the endpoint that everything goes through."""
    accepts: bool = True
    """Whether other endpoints' subnets are reached."""
    mode: Mode = "mesh"


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What was said on the command line; None where nothing was, and it stays as it is."""

    advertise: str | None = None
    offers_exit: bool | None = None
    exit_node: str | None = None
    accepts: bool | None = None
    mode: str | None = None


def with_said(wishes: RoutingWishes, said: Said) -> RoutingWishes:
    """Return the wishes as they are once something was said.

    Raises:
        InputError: ``bad_cidr``: no prefixes; ``bad_name``: no endpoint's name; ``needs_mesh``.
    """
    changes: dict[str, object] = {}
    if said.advertise is not None:
        changes["advertise"] = prefixes_of(said.advertise)
    if said.exit_node is not None:
        changes["exit_node"] = _endpoint(said.exit_node)
    for name in ("offers_exit", "accepts", "mode"):
        if getattr(said, name) is not None:
            changes[name] = getattr(said, name)
    wished = msgspec.structs.replace(wishes, **changes)
    if wished.exit_node and wished.mode == "hub":
        raise InputError(
            "an exit node is reached from end to end alone, never through the server",
            code="needs_mesh",
            mend="say --mode mesh, or --exit-node none",
        )
    return wished


def prefixes_of(text: str) -> list[str]:
    """Return the prefixes of a list with commas; none for ``none`` and for nothing.

    Raises:
        InputError: ``bad_cidr``, or there are too many.
    """
    words = [word.strip() for word in text.split(",")] if text not in ("", NONE) else []
    found = sorted({str(parse_prefix(word)) for word in words})
    if len(found) > MAX_PREFIXES:
        raise InputError(f"an endpoint carries at most {MAX_PREFIXES} subnets")
    return found


def _endpoint(text: str) -> str:
    if text in ("", NONE):
        return ""
    try:
        return str(parse_address(text))
    except InputError:
        return parse_hostname(text)


def load_wishes(state: AgentState) -> RoutingWishes:
    """Return what is wanted; nothing special where nothing was said.

    Raises:
        CorruptError: the file is damaged: nobody knows whether everything was to be closed.
    """
    path = _path(state)
    if not path.exists():
        return RoutingWishes()
    try:
        value = canonical.decode_object(read_private(path, max_bytes=MAX_BYTES))
        wishes = msgspec.convert(value, RoutingWishes)
        said = Said(advertise=",".join(wishes.advertise), exit_node=wishes.exit_node)
        return with_said(wishes, said)
    except (SeipdError, msgspec.ValidationError) as error:
        raise CorruptError(
            f"{path.name}: {error}", path=path.name, mend=f"remove {path} and say it anew"
        ) from error


def save_wishes(state: AgentState, wishes: RoutingWishes) -> None:
    """Write down what is wanted."""
    write_atomic(_path(state), canonical.encode(msgspec.to_builtins(wishes)))


def remember(state: AgentState, said: Said) -> RoutingWishes:
    """Take up what was said; return what is wanted from now on.

    Raises:
        InputError: it is not good.
        CorruptError: see ``load_wishes``.
    """
    before = load_wishes(state)
    wishes = with_said(before, said)
    if wishes != before:
        save_wishes(state, wishes)
    return wishes


def _path(state: AgentState) -> Path:
    return state.folder / "routing.json"
