"""A router whose way out takes smaller packets than the others', and may keep that to itself."""

from __future__ import annotations

from seipd.lab import net

_SILENCE = """
    add table inet silence
    delete table inet silence
"""
_KEPT = """
    table inet silence {
      chain out {
        type filter hook output priority 0; policy accept;
        icmp type destination-unreachable icmp code frag-needed drop
        icmpv6 type packet-too-big drop
      }
    }
"""


def narrow(router: str, mtu: int, *, tells: bool) -> None:
    """Have a router's ``wan0`` take packets of that many bytes.

    Args:
        router: its namespace.
        mtu: what the link takes.
        tells: whether who sends larger ones is told by ICMP.
    """
    net.run("ip", "-n", router, "link", "set", "wan0", "mtu", str(mtu))
    rules = _SILENCE + ("" if tells else _KEPT)
    net.run("ip", "netns", "exec", router, "nft", "-f", "-", stdin=rules)
