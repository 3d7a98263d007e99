"""The agent's units as text: what `systemd/seip*.service` are, for any state and options. Pure.

It may do what keeping tunnels takes (interfaces, routes, filters, packets from WireGuard's own
port), and next to nothing else.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Final

from services.kernel.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

NAME: Final = "seip.service"
EARLY_NAME: Final = "seip-closed.service"
DEFAULT_STATE: Final = PurePosixPath("/var/lib/seip")
_STATES: Final = PurePosixPath("/var/lib")
_HIDDEN: Final = tuple(map(PurePosixPath, ("/home", "/root", "/run/user", "/tmp", "/var/tmp")))  # noqa: S108 (named, not used)
_PLAIN: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./:,=@+")

_CONFINED: Final = """\
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
ProtectClock=yes
ProtectHostname=yes
ProtectProc=invisible
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_NETLINK
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources"""

_TEXT: Final = """\
[Unit]
Description=seip, the endpoint agent of a seipd mesh
Documentation=man:seip(1)
After=network-online.target
Wants=network-online.target
ConditionPathExists={state}/mesh.json

[Service]
ExecStart={command}
{keeps}
# Every wireguard-go of the machine has its control socket there: it stays when we go.
RuntimeDirectory=wireguard
RuntimeDirectoryMode=0700
RuntimeDirectoryPreserve=yes
Restart=on-failure
RestartSec=2
UMask=0077

# Raw sockets send from WireGuard's own port: what looks for a way to a peer has to come from there.
CapabilityBoundingSet=CAP_NET_ADMIN CAP_NET_RAW
NoNewPrivileges=yes
DevicePolicy=closed
DeviceAllow=/dev/net/tun rw
ProtectSystem=strict
# Its resolver is pointed at the gateway there, where systemd-resolved does not do that.
ReadWritePaths=-/etc/resolv.conf
ProtectHome=yes
PrivateTmp=yes
{confined}
# Refused, not killed: wireguard-go tries to raise its limit of open files and does without.
SystemCallErrorNumber=EPERM
KeyringMode=private

[Install]
WantedBy=multi-user.target
Also=seip-closed.service
"""

_EARLY_TEXT: Final = """\
[Unit]
Description=Nothing goes out before seip has its exit, where one is wished
Documentation=man:seip(1)
DefaultDependencies=no
After=systemd-sysctl.service
Before=network-pre.target shutdown.target
Wants=network-pre.target
Conflicts=shutdown.target
RequiresMountsFor={state}
ConditionPathExists={state}/mesh.json
ConditionPathExists={state}/routing.json

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart={command}
UMask=0077

CapabilityBoundingSet=CAP_NET_ADMIN
NoNewPrivileges=yes
PrivateDevices=yes
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
ProtectKernelTunables=yes
{confined}
SystemCallErrorNumber=EPERM
KeyringMode=private

[Install]
WantedBy=sysinit.target
"""


def unit_text(*, program: Sequence[str], words: Sequence[str], state: PurePosixPath) -> str:
    """Return the unit's file.

    Args:
        program: how ``seip`` is called, by its full path.
        words: what follows.
        state: the folder of the endpoint.

    Raises:
        InputError: the unit would not see the program or the state, or a word has no place in it.
    """
    _check_visible(program, state)
    return _TEXT.format(
        command=_command(program, words),
        state=_specified(str(state)),
        keeps=_keeps(state),
        confined=_CONFINED,
    )


def early_text(*, program: Sequence[str], words: Sequence[str], state: PurePosixPath) -> str:
    """Return the file of the unit that closes the way out at boot; see ``unit_text``.

    Raises:
        InputError: as there.
    """
    _check_visible(program, state)
    return _EARLY_TEXT.format(
        command=_command(program, words), state=_specified(str(state)), confined=_CONFINED
    )


def _check_visible(program: Sequence[str], state: PurePosixPath) -> None:
    for path in (PurePosixPath(program[0]), state):
        if any(path.is_relative_to(hidden) for hidden in _HIDDEN):
            raise InputError(
                f"a service of the system does not see {path}",
                mend="install by scripts/up --programs, and keep the state in /var/lib/seip",
            )


def _command(program: Sequence[str], words: Sequence[str]) -> str:
    return " ".join(_argument(word) for word in (*program, *words))


def _keeps(state: PurePosixPath) -> str:
    if state.parent == _STATES:
        return f"StateDirectory={_quoted(state.name)}\nStateDirectoryMode=0700"
    return f"ReadWritePaths={_quoted(str(state))}"


def _argument(word: str) -> str:
    """Return a word of a command (systemd.service(5), COMMAND LINES)."""
    return _quoted(word).replace("$", "$$")


def _quoted(word: str) -> str:
    """Return a word of a list (systemd.syntax(7), QUOTING)."""
    escaped = _specified(word)
    if word and set(word) <= _PLAIN:
        return escaped
    escaped = escaped.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _specified(text: str) -> str:
    """Return text that stands alone on its line."""
    if not text.isprintable():
        raise InputError("a service takes no such word")
    return text.replace("%", "%%")
