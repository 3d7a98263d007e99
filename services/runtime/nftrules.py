"""Which rules a table of the firewall has, straight from the kernel: whether somebody changed them.

nftables' own library reads every element of a table before it lists a rule; of a mesh's table that
is a hundred thousand. A rule keeps its handle for life, so one that was taken out, changed or added
shows in the handles (nf_tables_api.c, ``NFT_MSG_GETRULE`` as a dump).

    message   nlmsghdr: u32 length, u16 type, u16 flags, u32 sequence, u32 port   in host order
              nfgenmsg: u8 family, u8 version, u16 resource
              attributes: u16 length, u16 type, the value, up to the next four bytes
"""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING, Final

from services.kernel.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator

Rules = frozenset[tuple[str, int]]
"""The chain and the handle of each rule."""

_NETFILTER: Final = 12
_GET_RULE: Final = 10 << 8 | 7
_NEW_RULE: Final = 10 << 8 | 6
_ERROR: Final = 2
_DONE: Final = 3
_REQUEST_DUMP: Final = 0x301
_INTERRUPTED: Final = 0x10
_INET: Final = 1
_TABLE: Final = 1
_CHAIN: Final = 2
_HANDLE: Final = 3
_TYPE_MASK: Final = 0x3FFF
_HEADER: Final = struct.Struct("=IHHII")
_GENERIC: Final = struct.Struct("=BBH")
_ATTRIBUTE: Final = struct.Struct("=HH")
_BUFFER_BYTES: Final = 1 << 16
_LIMIT_S: Final = 5.0
_TRIES: Final = 5


class RuleReader:
    """A socket to the kernel's firewall, of the network namespace of the thread that made it."""

    def __init__(self) -> None:
        try:
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETFILTER)
        except OSError as error:
            raise _unavailable(error) from error
        self._socket.settimeout(_LIMIT_S)
        self._sequence = 0

    def rules(self, table: str) -> Rules:
        """Return the rules of a table of the family inet; none where there is no such table.

        Raises:
            UnavailableError: ``nft_unavailable``: the kernel does not tell.
        """
        try:
            for _ in range(_TRIES):
                found = self._ask(table)
                if found is not None:
                    return found
        except (OSError, struct.error) as error:
            raise _unavailable(error) from error
        raise UnavailableError("the firewall changes all the time", code="nft_unavailable")

    def close(self) -> None:
        """Release the socket; may be called twice."""
        self._socket.close()

    def _ask(self, table: str) -> Rules | None:
        """Return the rules, or nothing where they changed meanwhile."""
        self._sequence += 1
        name = table.encode() + b"\0"
        body = _GENERIC.pack(_INET, 0, 0) + _ATTRIBUTE.pack(4 + len(name), _TABLE) + name
        body += b"\0" * (-len(body) % 4)
        size = _HEADER.size + len(body)
        head = _HEADER.pack(size, _GET_RULE, _REQUEST_DUMP, self._sequence, 0)
        self._socket.send(head + body)
        found: set[tuple[str, int]] = set()
        is_whole = True
        while True:
            for kind, flags, sequence, payload in _messages(self._socket.recv(_BUFFER_BYTES)):
                if sequence != self._sequence:
                    continue
                is_whole = is_whole and not flags & _INTERRUPTED
                if kind == _ERROR:
                    raise OSError(-struct.unpack_from("=i", payload)[0], "refused")
                if kind == _DONE:
                    return frozenset(found) if is_whole else None
                if kind == _NEW_RULE:
                    held = dict(_attributes(payload[_GENERIC.size :]))
                    chain = held[_CHAIN].rstrip(b"\0").decode(errors="replace")
                    found.add((chain, int.from_bytes(held[_HANDLE], "big")))


def _messages(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    while len(data) >= _HEADER.size:
        size, kind, flags, sequence, _ = _HEADER.unpack_from(data)
        yield kind, flags, sequence, data[_HEADER.size : size]
        data = data[max(size + -size % 4, _HEADER.size) :]


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= _ATTRIBUTE.size:
        size, kind = _ATTRIBUTE.unpack_from(data)
        yield kind & _TYPE_MASK, data[_ATTRIBUTE.size : size]
        data = data[max(size + -size % 4, _ATTRIBUTE.size) :]


def _unavailable(error: Exception) -> UnavailableError:
    return UnavailableError(f"the firewall's rules can't be read: {error}", code="nft_unavailable")
