"""What a CA refuses with, as errors of ours with stable codes, and how long to wait. Pure."""

from __future__ import annotations

import email.utils
from datetime import UTC
from typing import Final

from services.kernel.errors import RejectedError, UnavailableError

MIN_WAIT_S: Final = 1.0
MAX_WAIT_S: Final = 7 * 86_400.0
DEFAULT_WAIT_S: Final = 3_600.0
PERSON_WAIT_S: Final = 6 * 3_600.0
MAX_DETAIL_CHARS: Final = 300


class OrderInvalidError(RejectedError):
    """The CA will not issue by this order; the message says why. Another order may do."""

    default_code = "order_invalid"


class AccountGoneError(RejectedError):
    """The CA does not know the account any more, or ended it."""

    default_code = "account_gone"


class NeedsPersonError(RejectedError):
    """The CA wants something that only a person can do; asked for again, but seldom."""

    default_code = "acme_user_action"


class CaAnswerError(UnavailableError):
    """The CA answers with what is no answer."""

    default_code = "ca_bad_answer"


# Codes of RFC 8555, 6.7: what only a person can mend is asked for seldom.
_BY_PERSON: Final = {
    "externalAccountRequired": ("acme_eab_required", "set acme_eab_kid and acme_eab_key_file"),
    "userActionRequired": ("acme_user_action", "read what the CA asks for, and agree there"),
    "rejectedIdentifier": ("acme_rejected_identifier", "the CA's policy forbids this name"),
    "unsupportedIdentifier": ("acme_rejected_identifier", "the CA's policy forbids this name"),
    "invalidContact": ("acme_bad_contact", "mend acme_email"),
    "unsupportedContact": ("acme_bad_contact", "mend acme_email"),
    "invalidEmail": ("acme_bad_contact", "mend acme_email"),
}
_CAA_HINT: Final = "; dig DOMAIN CAA shows which CAs may, seipd dns set @ CAA says so"
_OF_ORDER: Final = frozenset(
    {"caa", "connection", "dns", "dnssec", "incorrectResponse", "tls", "unknownHost", "compound"}
)


def retry_after_s(text: str | None, *, now_ms: int, default_s: float = DEFAULT_WAIT_S) -> float:
    """Return how long a ``Retry-After`` header says to wait: seconds, or an HTTP date."""
    if text is None:
        return default_s
    text = text.strip()
    if text.isascii() and text.isdigit() and len(text) < 12:
        wait_s = float(text)
    else:
        try:
            when = email.utils.parsedate_to_datetime(text)
        except (TypeError, ValueError, IndexError, OverflowError):
            return default_s
        # A date in "-0000" has no zone, and means UTC all the same (RFC 9110, 5.6.7).
        when = when if when.tzinfo is not None else when.replace(tzinfo=UTC)
        wait_s = when.timestamp() - now_ms / 1000
    return min(max(wait_s, MIN_WAIT_S), MAX_WAIT_S)


def error_of_problem(kind: str, detail: str) -> RejectedError | CaAnswerError:
    """Return our error for a CA's problem document; rate limits and nonces aside."""
    code = kind.rsplit(":", maxsplit=1)[-1]
    said = _plain(detail) or code
    if code in _BY_PERSON:
        ours, mend = _BY_PERSON[code]
        return NeedsPersonError(f"the CA refuses: {said}", code=ours, mend=mend)
    if code in ("accountDoesNotExist", "unauthorized"):
        return AccountGoneError(f"the CA refuses: {said}")
    if code in _OF_ORDER:
        hint = _CAA_HINT if code == "caa" else ""
        return OrderInvalidError(f"the CA refuses ({code}): {said}{hint}")
    if code == "serverInternal":
        return CaAnswerError(f"the CA fails: {said}", code="ca_failed")
    return RejectedError(f"the CA refuses ({_plain(code)}): {said}", code="ca_refused")


def _plain(text: str) -> str:
    return "".join(char if char.isprintable() else " " for char in text[:MAX_DETAIL_CHARS])
