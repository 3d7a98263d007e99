"""Namecheap's dynamic DNS: one GET over HTTPS, and a little XML back, read as text.

https://www.namecheap.com/support/knowledgebase/article.aspx/29/11/
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, Protocol
from urllib.parse import urlencode

from services.kernel.errors import (
    ForbiddenError,
    SeipdError,
    UnauthenticatedError,
    UnreachableError,
)

if TYPE_CHECKING:
    from services.edge.ddns.target import Target

URL: Final = "https://dynamicdns.park-your-domain.com/update"
MAX_ANSWER_BYTES: Final = 64 * 1024
_OK: Final = 200
_ERRORS: Final = re.compile(r"<ErrCount>\s*(\d{1,4})\s*</ErrCount>")
_FIRST: Final = re.compile(r"<Err1>([^<]{0,200})</Err1>")


class Answer(Protocol):
    """What came back."""

    @property
    def status(self) -> int:
        """The HTTP status."""

    @property
    def body(self) -> bytes:
        """The document."""


class Way(Protocol):
    """The way out over HTTPS."""

    async def get(self, url: str, *, max_bytes: int) -> Answer:
        """Fetch a document.

        Raises:
            SeipdError: it can't be; what it says has the address in it.
        """


async def call(way: Way, target: Target, address: str, password: str, *, url: str = URL) -> None:
    """Tell an address.

    Raises:
        UnauthenticatedError: ``ddns_key_refused``: the password.
        ForbiddenError: ``ddns_refused``: what else it does not like.
        UnreachableError: ``unreachable``: it does not answer, or with no such document.
    """
    if ":" in address:
        raise ForbiddenError("Namecheap's dynamic DNS takes IPv4 alone", code="ddns_refused")
    words = {"host": target.host, "domain": target.zone, "password": password, "ip": address}
    try:
        answer = await way.get(f"{url}?{urlencode(words)}", max_bytes=MAX_ANSWER_BYTES)
    except SeipdError as error:
        # Its words have the whole address in them, and with it the password.
        raise UnreachableError(f"{url} can't be asked ({error.code})") from None
    if answer.status != _OK:
        raise UnreachableError(f"{url} answers with status {answer.status}")
    judge(answer.body, password=password)


def judge(document: bytes, *, password: str) -> None:
    """Look whether the answer says that it was done.

    Raises:
        UnauthenticatedError: ``ddns_key_refused``.
        ForbiddenError: ``ddns_refused``.
        UnreachableError: it is not that document.
    """
    wide = document[:2] in (b"\xff\xfe", b"\xfe\xff")
    text = document.decode("utf-16" if wide else "utf-8", "replace")
    count = _ERRORS.search(text)
    if count is None:
        raise UnreachableError("what answers is not Namecheap's dynamic DNS")
    if count[1].strip("0") == "":
        return
    first = _FIRST.search(text)
    why = (first[1].strip() if first else "no reason given").replace(password, "…")
    if "password" in why.lower():
        raise UnauthenticatedError(
            f"Namecheap does not take the password: {why}",
            code="ddns_key_refused",
            mend="seipd secret set, with the password on the domain's page Advanced DNS",
        )
    raise ForbiddenError(
        f"Namecheap refuses the update: {why}",
        code="ddns_refused",
        mend="let the host have an A + Dynamic DNS record at Namecheap",
    )
