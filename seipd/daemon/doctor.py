"""What is wrong, in words, and how to mend it: pure, from the documents that status shows."""

from __future__ import annotations

from typing import Any

STALE_HANDSHAKE_S = 180


def examine(
    status: dict[str, Any], servers: list[dict[str, Any]], peers: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Return the findings, worst first; each has ``level``, ``what`` and ``mend``."""
    findings = [
        _finding("error" if one["state"] == "failed" else "warning", _sentence(one), "see its log")
        for one in status["services"]
        if one["state"] in ("failed", "degraded")
    ]
    findings += [
        _finding("warning", f"{name} is on, for trials only", f"run without {_flag(name)}")
        for name in status.get("insecure", [])
    ]
    findings += [
        _finding(
            "error",
            f"{one['server_id']} signed two histories and is untrusted",
            f"keep the proof (seipd trust peer {one['server_id']} --proof FILE), then revoke it",
        )
        for one in servers
        if one["state"] == "untrusted"
    ]
    findings += [
        _finding(
            "warning",
            f"{one['server_id']} has not been heard",
            "check that it runs and that its gossip port (udp) is open to this server",
        )
        for one in servers
        if one["state"] == "dead"
    ]
    findings += [
        _finding(
            "warning",
            f"{one['server_id']} lags {one['lag_records']} records behind",
            "it catches up by itself once it can be reached",
        )
        for one in servers
        if one["state"] == "alive" and (one["lag_records"] or 0) > 0
    ]
    named = {one["server_id"] for one in servers}
    findings += [
        _finding(
            "warning",
            f"no WireGuard handshake with {one['name']} for three minutes",
            "check that its WireGuard port (udp) is open to this server",
        )
        for one in peers
        if one["name"] in named and _is_out_of_reach(one)
    ]
    return sorted(findings, key=lambda one: one["level"])


def _is_out_of_reach(peer: dict[str, Any]) -> bool:
    is_stale = (peer["last_handshake_seconds"] or 10**9) > STALE_HANDSHAKE_S
    return is_stale and peer.get("through") is None


def _finding(level: str, what: str, mend: str) -> dict[str, Any]:
    return {"level": level, "what": what, "mend": mend}


def _flag(setting: str) -> str:
    return f"--{setting.replace('_', '-')}"


def _sentence(service: dict[str, Any]) -> str:
    return f"service {service['name']} is {service['state']}: {service['detail']}"
