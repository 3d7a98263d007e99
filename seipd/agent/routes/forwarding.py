"""Lets this machine hand packets on: settings of the kernel, and what they were before.

forwarding.json   {boot, before: {setting: value}}: what was there before, so that it can be put
                  back, also after a crash; of another boot it says nothing any more
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from services.base.storage.files import read_private, write_atomic
from services.kernel import canonical
from services.kernel.errors import SeipdError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

MAX_BYTES: Final = 1 << 16
_NET: Final = Path("/proc/sys/net")
_BOOT: Final = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """What was turned on here alone."""

    ipv4: tuple[str, ...] = ()
    """The interfaces of which that holds."""
    ipv6: bool = False
    """Whether it holds of the whole machine: IPv6 knows no less."""


class Forwarding:
    """The settings of one machine."""

    def __init__(self, folder: Path, *, net: Path = _NET) -> None:
        self._path = folder / "forwarding.json"
        self._net = net

    def between(self, interfaces: Iterable[str], *, ipv6: bool) -> dict[str, str]:
        """Return the settings by which what comes in by these interfaces is handed on."""
        wanted: dict[str, str] = {}
        for one in sorted(interfaces):
            wanted[f"ipv4/conf/{one}/forwarding"] = "1"
            if ipv6:
                wanted |= self._of_ipv6(one)
        return wanted

    def opened(self, interfaces: Iterable[str]) -> Opened:
        """Return what hands packets on, or will, for no other reason than that it was said here.

        Who else turned it on, did so for all interfaces: that shows for IPv4 alone.
        """
        before = self._before()

        def was_off(setting: str) -> bool:
            return before.get(setting, self._read(setting)) == "0"

        ipv4 = tuple(one for one in sorted(interfaces) if was_off(f"ipv4/conf/{one}/forwarding"))
        is_off = self._read("ipv4/conf/all/forwarding") == "0"
        return Opened(ipv4=ipv4 if is_off else (), ipv6=was_off("ipv6/conf/all/forwarding"))

    def ensure(self, wanted: Mapping[str, str]) -> str:
        """Have exactly these settings, all others as before; return what can't be set."""
        before = self._before()
        for setting in before.keys() - wanted.keys():
            self._write(setting, before.pop(setting))
            self._note(before)
        for setting, value in wanted.items():
            there = self._read(setting)
            if there is None or there == value:
                continue
            if setting not in before:
                before[setting] = there
                self._note(before)
            if not self._write(setting, value):
                return f"net/{setting} can't be set to {value}"
        return ""

    def restore(self) -> None:
        """Put back what was there before."""
        # Of all first: that sets the value of each interface, too.
        for setting, value in sorted(self._before().items(), key=lambda one: "/all/" not in one[0]):
            if self._read(setting) is not None:
                self._write(setting, value)
        # A disk that takes nothing keeps the note: at worst it is put back once more.
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)

    def _of_ipv6(self, interface: str) -> dict[str, str]:
        own = f"ipv6/conf/{interface}"
        if self._read(f"{own}/forwarding") is None:
            return {}
        # A router does not listen to routers, unless told 2: its own address must stay.
        listens = {f"{own}/accept_ra": "2"} if self._read(f"{own}/accept_ra") == "1" else {}
        if self._read(f"{own}/force_forwarding") is not None:
            return {**listens, f"{own}/forwarding": "1", f"{own}/force_forwarding": "1"}
        return {**listens, **self._others_listen(), "ipv6/conf/all/forwarding": "1"}

    def _others_listen(self) -> dict[str, str]:
        if self._read("ipv6/conf/all/forwarding") == "1":
            return {}
        found = (f"ipv6/conf/{one.name}/accept_ra" for one in (self._net / "ipv6/conf").iterdir())
        return {setting: "2" for setting in found if self._read(setting) == "1"}

    def _before(self) -> dict[str, str]:
        try:
            value = canonical.decode_object(read_private(self._path, max_bytes=MAX_BYTES))
        except (SeipdError, OSError):
            return {}
        return dict(value["before"]) if value.get("boot") == _boot() else {}

    def _note(self, before: dict[str, str]) -> None:
        value: dict[str, Any] = {"boot": _boot(), "before": before}
        write_atomic(self._path, canonical.encode(value))

    def _read(self, setting: str) -> str | None:
        try:
            return (self._net / setting).read_text(encoding="ascii").strip()
        except OSError:
            return None

    def _write(self, setting: str, value: str) -> bool:
        with contextlib.suppress(OSError):
            (self._net / setting).write_text(value, encoding="ascii")
        return self._read(setting) == value


def _boot() -> str:
    return _BOOT.read_text(encoding="ascii").strip()
