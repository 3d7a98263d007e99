"""Which prefixes an endpoint may carry for others, and who carries which. Pure.

    route/<prefix>     the node that carries it
    routed/<prefix>    how many prefixes are carried somewhere below it

The second is kept for every prefix that holds a carried one, so that no overlap needs a search.
"""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import TYPE_CHECKING, Final

from services.authority.tree.permissions import ancestors
from services.kernel.addr import Ranges, ranges_from_value, ula_prefix
from services.kernel.errors import InputError, RejectedError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from services.kernel.ids import MeshId
    from services.kernel.views import FoldContext, StateReader, StateWriter

Network = IPv4Network | IPv6Network

MAX_PREFIXES: Final = 32
EXIT: Final = "exit"
SHORTEST: Final = {4: 8, 6: 16}
"""A shorter one is a default route in pieces, which takes the permission to be an exit."""

_NOBODYS: Final = tuple(
    ip_network(text)
    for text in (
        "0.0.0.0/8",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "224.0.0.0/4",
        "240.0.0.0/4",
        "::/16",
        "fe80::/10",
        "ff00::/8",
    )
)


def parse_prefix(text: object) -> Network:
    """Parse a prefix in its one spelling that is long enough to be a subnet.

    Raises:
        InputError: ``bad_cidr``.
    """
    try:
        network = ip_network(text) if isinstance(text, str) and "%" not in text else None
    except ValueError as error:
        raise InputError(f"not a prefix: {str(text)[:60]!r}", code="bad_cidr") from error
    if network is None or str(network) != text:
        raise InputError(f"not a prefix: {str(text)[:60]!r}", code="bad_cidr")
    shortest = SHORTEST[network.version]
    if network.prefixlen < shortest:
        raise InputError(
            f"{network} is too much for a subnet: /{shortest} or longer",
            code="bad_cidr",
            mend="be an exit node to carry everything",
        )
    return network


def why_not(network: Network, *, ranges: Ranges, mesh_id: MeshId) -> str:
    """Return why nobody may carry a prefix in this mesh; nothing where one may."""
    own: list[Network] = [ranges.tunnel, ranges.backbone, ula_prefix(mesh_id)]
    if any(_overlap(network, one) for one in own):
        return "it overlaps the mesh's own addresses"
    held = next((one for one in _NOBODYS if _overlap(network, one)), None)
    return f"{held} is nobody's subnet" if held is not None else ""


def require_free(context: FoldContext, node_id: str, network: Network) -> None:
    """Check that a node may be given a prefix to carry.

    Raises:
        RejectedError: ``rejected_scope``, or ``rejected_overlap`` with what others carry.
    """
    state = context.state
    ranges = ranges_from_value(state.get("mesh", "genesis")["body"]["ranges"])
    if why := why_not(network, ranges=ranges, mesh_id=context.mesh_id):
        raise RejectedError(f"{network}: {why}", code="rejected_scope")
    for pool in (ranges.private, ranges.shared):
        if _overlap(network, pool) and not _is_own_block(state, node_id, network):
            raise RejectedError(
                f"{network} is in no block of its customer",
                code="rejected_scope",
                mend="seipd ipam allocate gives a customer a block",
            )
    taken = next((one for one in _upwards(network) if state.get("route", str(one))), None)
    if taken is not None or state.get("routed", str(network)):
        raise RejectedError(
            f"{network} overlaps {taken or 'a prefix'} that an endpoint carries already",
            code="rejected_overlap",
            mend="seipd tree route ls shows who carries what",
        )


def hold(state: StateWriter, node_id: str, network: Network) -> None:
    """Note that a node carries a prefix."""
    state.put("route", str(network), node_id)
    _count(state, network, 1)


def let_go(state: StateWriter, prefix: str) -> None:
    """Note that a prefix is carried no more."""
    state.delete("route", prefix)
    _count(state, ip_network(prefix), -1)


def who_carries(state: StateReader, text: str) -> tuple[str, str] | None:
    """Return the carried prefix that holds an address or a prefix, and the node that carries it."""
    try:
        network = ip_network(text)
    except ValueError:
        return None
    for above in _upwards(network):
        node_id: str | None = state.get("route", str(above))
        if node_id is not None:
            return str(above), node_id
    return None


def _count(state: StateWriter, network: Network, step: int) -> None:
    for above in _upwards(network):
        place = str(above)
        count = (state.get("routed", place) or 0) + step
        if count:
            state.put("routed", place, count)
        else:
            state.delete("routed", place)


def _upwards(network: Network) -> Iterator[Network]:
    """Yield a prefix and those that hold it, as far as prefixes may be carried."""
    for length in range(network.prefixlen, SHORTEST[network.version] - 1, -1):
        yield network.supernet(new_prefix=length)


def _is_own_block(state: StateReader, node_id: str, network: Network) -> bool:
    path = ancestors(state, node_id)
    blocks = (state.get("block", str(one)) for one in _upwards(network))
    return any(block is not None and block["customer"] in path for block in blocks)


def _overlap(one: Network, other: Network) -> bool:
    return one.version == other.version and one.overlaps(other)
