"""A signer's audit in this process: the real log, asked as over the socket, and told of that."""

from __future__ import annotations

from typing import TYPE_CHECKING

from seipd.signerd.auditing import Asked, entry_of
from seipd.signerd.auditlog import AuditLog
from services.base.crypto.signatures import SigningKey
from services.base.signing import keys_wire as wire
from services.kernel import canonical

if TYPE_CHECKING:
    from pathlib import Path

    from services.kernel.errors import SeipdError

NOVEMBER_MS = 1_795_305_600_000
MONTH_MS = 31 * 86_400_000


class AuditedSigner:
    """Satisfies AuditSource; ``sign`` adds an entry."""

    def __init__(self, folder: Path, *, key: bytes = bytes(32)) -> None:
        self.log = AuditLog(folder, SigningKey(key))
        self.log.open()
        self.now_ms = NOVEMBER_MS
        self.page = wire.MAX_ENTRIES

    def write(
        self, call: str, key_id: str = "root-1", *, refusal: SeipdError | None = None
    ) -> None:
        self.now_ms += 1000
        asked = Asked(call=call, caller="unix", scope="platform", key_id=key_id)
        entry = entry_of(asked, at_ms=self.now_ms, refusal=refusal)
        self.log.append([entry], at_ms=self.now_ms)

    async def audit(self, *, month: str = "", first: int = 0, count: int = 100) -> wire.AuditReply:
        page = self.log.read(month, first, min(count, self.page))
        reply = wire.AuditReply(
            months=self.log.months(),
            month=page.month,
            vkey=page.vkey,
            checkpoint=page.checkpoint.decode(),
            size=page.size,
            entries=[canonical.decode_object(entry) for entry in page.entries],
        )
        self.write("audit", "")
        return reply
