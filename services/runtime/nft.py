"""nftables by its own library, without a process for each change.

One call is one transaction: all of its commands take effect, or none. The context keeps the network
namespace of the thread that made it. Calls block for some 0.1 ms (1,000 elements: 12 ms), so what
runs on the event loop hands larger ones to a thread; threads that share a context take turns.

Commands are text for the kernel's firewall: what comes from outside is parsed into numbers and
addresses before it gets here.
"""

from __future__ import annotations

import ctypes
import threading
from pathlib import Path
from typing import Any

import msgspec

from services.kernel.errors import SeipdError, UnavailableError
from services.runtime.nftrules import RuleReader, Rules

LIBRARY = "libnftables.so.1"
MAX_ERROR_CHARACTERS = 400

_OUTPUT_JSON = 1 << 4
_CAP_NET_ADMIN = 12

_CODES = (
    ("Operation not permitted", "nft_not_permitted"),
    ("No such file or directory", "nft_missing"),
    ("File exists", "nft_exists"),
)


class NftError(SeipdError):
    """The kernel, or nftables' own parser, refused a transaction; nothing of it has happened.

    ``nft_missing`` and ``nft_exists`` tell that something named was not or already there.
    """

    default_code = "nft_refused"


class Nft:
    """A context of libnftables.

    Raises:
        UnavailableError: ``nft_unavailable``: the library is not installed.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._library = _library()
        self._context: int | None = self._library.nft_ctx_new(0)
        if self._context is None:
            raise UnavailableError("nftables gives no context", code="nft_unavailable")
        self._library.nft_ctx_buffer_output(self._context)
        self._library.nft_ctx_buffer_error(self._context)
        self._rules = RuleReader()

    def run(self, commands: str) -> str:
        """Run commands as one transaction; return what they print.

        Raises:
            NftError: they were refused, and nothing has changed.
            UnavailableError: ``nft_unavailable``: closed.
        """
        return self._run(commands, flags=0)

    def read(self, command: str) -> list[dict[str, Any]]:
        """Run a ``list`` command; return the objects that it lists, by nftables' JSON schema.

        Raises:
            NftError: it was refused.
            UnavailableError: ``nft_unavailable``: closed.
        """
        listed = msgspec.json.decode(self._run(command, flags=_OUTPUT_JSON))
        objects: list[dict[str, Any]] = listed["nftables"]
        return objects

    def rules_of(self, table: str) -> Rules:
        """Return which rules a table of the family inet has, without a look at its elements.

        Raises:
            UnavailableError: ``nft_unavailable``: closed, or the kernel does not tell.
        """
        with self._lock:
            return self._rules.rules(table)

    def close(self) -> None:
        """Release the context; may be called twice."""
        with self._lock:
            self._rules.close()
            context, self._context = self._context, None
            if context is not None:
                self._library.nft_ctx_free(context)

    def _run(self, commands: str, *, flags: int) -> str:
        with self._lock:
            if self._context is None:
                raise UnavailableError("nftables' context is closed", code="nft_unavailable")
            library, context = self._library, self._context
            library.nft_ctx_output_set_flags(context, flags)
            failed = library.nft_run_cmd_from_buffer(context, commands.encode())
            output: bytes = library.nft_ctx_get_output_buffer(context)
            errors: bytes = library.nft_ctx_get_error_buffer(context)
        if failed:
            raise _error_of(errors.decode(errors="replace"))
        return output.decode()


def is_available() -> bool:
    """Say whether this process may change the firewall of its network namespace, and can."""
    if not _may_administer():  # libnftables would complain on our stderr
        return False
    try:
        nft = Nft()
    except UnavailableError:
        return False
    try:
        # Of all that can be asked this reads least: asked for tables, 1.0.6 reads every element.
        nft.run("list chains")
    except NftError:
        return False
    finally:
        nft.close()
    return True


def _may_administer() -> bool:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    effective = next(line for line in lines if line.startswith("CapEff:"))
    return bool(int(effective.split()[1], 16) >> _CAP_NET_ADMIN & 1)


def _library() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL(LIBRARY)
    except OSError as error:
        raise UnavailableError(
            f"{LIBRARY} can't be loaded: {error}",
            code="nft_unavailable",
            mend="install the package nftables",
        ) from error
    library.nft_ctx_new.restype = ctypes.c_void_p
    library.nft_ctx_new.argtypes = [ctypes.c_uint32]
    library.nft_ctx_output_set_flags.argtypes = [ctypes.c_void_p, ctypes.c_uint]
    library.nft_run_cmd_from_buffer.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
    for name in ("nft_ctx_buffer_output", "nft_ctx_buffer_error", "nft_ctx_free"):
        getattr(library, name).argtypes = [ctypes.c_void_p]
    for name in ("nft_ctx_get_output_buffer", "nft_ctx_get_error_buffer"):
        getattr(library, name).argtypes = [ctypes.c_void_p]
        getattr(library, name).restype = ctypes.c_char_p
    return library


def _error_of(text: str) -> NftError:
    code = next((code for words, code in _CODES if words in text), None)
    mend = "run it as root, or with CAP_NET_ADMIN" if code == "nft_not_permitted" else ""
    told = " ".join(text.split())[:MAX_ERROR_CHARACTERS] or "no reason given"
    return NftError(f"nftables: {told}", code=code, mend=mend)
