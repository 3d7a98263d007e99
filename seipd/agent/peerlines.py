"""How other endpoints and the paths to them are shown. Pure."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

SERVER: Final = "server"
COLUMNS: Final = (
    "name",
    "address",
    "path",
    "latency",
    "handshake",
    "in",
    "out",
    "trust",
    "why",
)
_NO_TRAFFIC: Final = "nothing was sent to it lately"
_SHOWN: Final = ("endpoint", "last_handshake_seconds", "rx_bytes", "tx_bytes")


def with_paths(
    listed: Iterable[Mapping[str, Any]], running: Mapping[str, Any] | None
) -> list[dict[str, Any]]:
    """Return peers with the paths to them as the running agent has them.

    ``why`` stays the reason of ``trust``; ``path_why`` is why the path is no better one.
    """
    paths = (running or {}).get("paths") or {}
    held = {one["address"]: one for one in paths.get("held", ())}
    return [_joined(dict(one), held.get(one["address"]), paths) for one in listed]


def known_peers(
    listed: Iterable[Mapping[str, Any]], running: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Return the peers with their paths, and those with a path that the server does not list."""
    shown = list(listed)
    told = {one["address"] for one in shown}
    beside = [
        {"node_id": one["node_id"], "name": one["name"], "address": one["address"]}
        for one in running["paths"]["held"]
        if one["address"] not in told
    ]
    return with_paths(
        [*shown, *({**one, "trust": "believed", "why": ""} for one in beside)], running
    )


def paths_facts(running: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return what holds for all paths; None where the agent does not run."""
    if running is None:
        return None
    paths = running["paths"]
    counts = Counter(one["path"] for one in paths["held"])
    return {
        "mode": paths["mode"],
        "why_none": paths["why_none"],
        "is_symmetric": paths["is_symmetric"],
        "direct": counts["direct"],
        "relay": counts["relay"],
    }


def paths_line(facts: Mapping[str, Any]) -> str:
    """Return the same for people."""
    if facts["why_none"]:
        return f"all over the server: {facts['why_none']}"
    router = ", behind a router that picks a port for each destination"
    return f"{facts['direct']} direct, {facts['relay']} by relays" + (
        router if facts["is_symmetric"] else ""
    )


def path_line(peer: Mapping[str, Any]) -> str:
    """Return the sentence that says how a peer is reached."""
    name, path = f"{peer['name']} is {peer['address']}, reached", peer["path"]
    took = "" if peer["latency_us"] is None else f", {_latency(peer)}"
    why = f": {peer['path_why']}" if peer["path_why"] else ""
    if path == "direct":
        return f"{name} directly at {peer['endpoint']}{took}"
    if path == "relay":
        return f"{name} over the relay at {peer['endpoint']}{took}{why}"
    return f"{name} through the server{took}{why}"


def peer_rows(listed: Iterable[Mapping[str, Any]]) -> list[tuple[object, ...]]:
    """Return the rows under ``COLUMNS``."""
    return [_row(one) for one in listed]


def _joined(
    peer: dict[str, Any], held: Mapping[str, Any] | None, paths: Mapping[str, Any]
) -> dict[str, Any]:
    if held is None:
        why = paths.get("why_none", "the agent does not run") or _NO_TRAFFIC
        nothing = dict.fromkeys(_SHOWN)
        phase = "" if paths.get("why_none", "?") else "idle"
        return {
            **peer,
            **nothing,
            "path": SERVER,
            "path_why": why,
            "phase": phase,
            "latency_ms": None,
            "latency_us": None,
        }
    latency_us = held["latency_us"]
    return {
        **peer,
        **{name: held[name] for name in _SHOWN},
        "path": held["path"],
        "path_why": held["why"],
        "phase": held["phase"],
        "latency_us": latency_us,
        "latency_ms": None if latency_us is None else -(-latency_us // 1000),
    }


def _row(peer: Mapping[str, Any]) -> tuple[object, ...]:
    age_s = peer["last_handshake_seconds"]
    return (
        peer["name"],
        peer["address"],
        peer["path"],
        _latency(peer),
        "-" if age_s is None else f"{age_s} s",
        _size(peer["rx_bytes"]),
        _size(peer["tx_bytes"]),
        peer["trust"],
        peer["path_why"] or peer["why"],
    )


def _latency(peer: Mapping[str, Any]) -> str:
    latency_us = peer["latency_us"]
    return "-" if latency_us is None else f"{latency_us / 1000:.1f} ms"


def _size(size_bytes: int | None) -> str:
    if size_bytes is None:
        return "-"
    size = float(size_bytes)
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"
