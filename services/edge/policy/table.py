"""A table of ours in the kernel's firewall: put there, changed, taken away; nobody else's touched.

A table that bears our name and not our marker is another's: it is left as it is, and told of. Calls
block: callers hand them to a thread.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from services.edge.policy.compiling import FAMILY, MARKER
from services.kernel.errors import ConflictError, UnavailableError
from services.runtime.nft import Nft
from services.runtime.nftothers import dropped_by

if TYPE_CHECKING:
    from collections.abc import Callable

    from services.runtime.nftrules import Rules


class KernelTable:
    """One table, by its name."""

    def __init__(self, name: str, *, nft: Callable[[], Nft] = Nft) -> None:
        self.name = name
        self._make_nft = nft
        self._nft: Nft | None = None
        self._rules: Rules | None = None

    def replace(self, transaction: str) -> None:
        """Put the table in the place of one of before, in one transaction.

        Raises:
            ConflictError: ``foreign_table``: another's bears the name.
            NftError: refused; nothing has changed.
            UnavailableError: there is no nftables.
        """
        if self._holds_foreign():
            raise ConflictError(
                f"the nftables table {FAMILY} {self.name} is not ours",
                code="foreign_table",
                mend=f"see whose it is; nft delete table {FAMILY} {self.name} removes it",
            )
        self._open().run(transaction)
        self._rules = self._open().rules_of(self.name)

    def run(self, commands: str) -> None:
        """Change it by one transaction.

        Raises:
            NftError: refused; nothing has changed.
        """
        self._open().run(commands)
        if "add rule" in commands:
            self._rules = self._open().rules_of(self.name)

    def is_intact(self) -> bool:
        """Say whether our table is there with the rules that it was put with.

        Raises:
            NftError: the kernel does not tell.
            UnavailableError: there is no nftables.
        """
        return self.is_there() and self._open().rules_of(self.name) == self._rules

    def is_there(self) -> bool:
        """Say whether our table is there: another's firewall may flush everything.

        Raises:
            NftError: the kernel does not tell.
        """
        # Asked for one table or family alone, nftables 1.0.6 reads every element first.
        ours = {"family": FAMILY, "table": self.name, "name": MARKER}
        listed = _bodies(self._open().read("list chains"), "chain")
        return any(ours.items() <= one.items() for one in listed)

    def dropped_by(self, interface: str) -> str:
        """Return which other firewall drops what an interface hands on, or nothing.

        Raises:
            NftError: the kernel does not tell.
            UnavailableError: there is no nftables.
        """
        return dropped_by(self._open(), interface)

    def remove(self) -> bool:
        """Remove our table; say whether it was there.

        Raises:
            NftError: refused.
            UnavailableError: there is no nftables.
        """
        if not self.is_there():
            return False
        self._open().run(f"delete table {FAMILY} {self.name}\n")
        return True

    def close(self) -> None:
        """Let go of nftables; the table stays."""
        if self._nft is not None:
            self._nft.close()
            self._nft = None

    def _holds_foreign(self) -> bool:
        named = {"family": FAMILY, "name": self.name}
        listed = _bodies(self._open().read("list tables"), "table")
        return any(named.items() <= one.items() for one in listed) and not self.is_there()

    def _open(self) -> Nft:
        if self._nft is None:
            self._nft = self._make_nft()
        return self._nft


def remove_table(name: str) -> bool:
    """Remove a table of ours that an earlier run left; say whether there was one.

    Raises:
        NftError: refused.
    """
    table = KernelTable(name)
    try:
        return table.remove()
    except UnavailableError:
        # Without nftables there was none to leave.
        return False
    finally:
        table.close()


def _bodies(objects: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [one[kind] for one in objects if kind in one]
