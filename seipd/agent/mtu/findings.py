"""What ``seip doctor`` says of a way that carries small packets and loses large ones. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from seipd.agent.diagnosis import NOTE, Finding
from seipd.agent.mtu.deciding import CHOSEN, PATH
from seipd.agent.mtu.searching import Outcome

if TYPE_CHECKING:
    from seipd.agent.mtu.searching import Search

_STAND_STILL = "names are found and connections begin, but then stand still"


def size_findings(mtu: dict[str, Any], found: Search) -> list[Finding]:
    """Return what is wrong with the size of packets.

    Args:
        mtu: what the running agent says of it.
        found: what came of trying it now.
    """
    match found.outcome:
        case Outcome.SMALLER:
            by_itself = (
                "the agent lowers it within ten minutes; seip down, then seip up, does at once"
            )
            chosen = f"seip down, then seip up without --mtu, or with --mtu {found.fits_bytes}"
            return [
                Finding(
                    code="mtu_too_large",
                    what=f"packets of more than {found.fits_bytes} bytes vanish on the way to the"
                    f" server, and the tunnel's MTU is {found.mtu}: {_STAND_STILL}",
                    mend=chosen if mtu["by"] == CHOSEN else by_itself,
                )
            ]
        case Outcome.NONE:
            return [
                Finding(
                    code="mtu_too_small",
                    what="large packets vanish on the way to the server, also such of"
                    f" {found.smallest} bytes, which IPv6 needs: {_STAND_STILL}",
                    mend="let routers and firewalls on the way say by ICMP that a packet is too"
                    " large, or use another network",
                )
            ]
        case _:
            return _lowered(mtu)


def _lowered(mtu: dict[str, Any]) -> list[Finding]:
    if mtu["by"] != PATH:
        return []
    return [
        Finding(
            code="mtu_lowered",
            level=NOTE,
            what=f"larger packets vanish on the way to the server without a word, so the tunnel's"
            f" MTU is {mtu['bytes']}",
            mend="nothing has to be done; whoever lets ICMP through on the way may have larger"
            " ones after seip down and seip up",
        )
    ]
