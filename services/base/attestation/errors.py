"""Why a quote is not believed: two kinds of error, each refusal with a code that stays.

A quote whose bytes break the format is a ``QuoteFormatError``; one that can be read and is not good
enough is a ``QuoteRefusedError``. The codes are the same words in logs, answers and the audit.
"""

from __future__ import annotations

from enum import StrEnum

from services.kernel.errors import ForbiddenError, WireError


class Refusal(StrEnum):
    """The codes of a quote that is not believed."""

    TRUNCATED = "quote_truncated"
    TRAILING = "quote_trailing"
    MALFORMED = "quote_malformed"
    OTHER_PLATFORM = "quote_other_platform"
    BAD_SIGNATURE = "quote_bad_signature"
    CHAIN_BROKEN = "quote_chain_broken"
    CHAIN_EXPIRED = "quote_chain_expired"
    CHAIN_REVOKED = "quote_chain_revoked"
    COLLATERAL_BAD = "quote_collateral_bad"
    COLLATERAL_STALE = "quote_collateral_stale"
    OTHER_HARDWARE = "quote_other_hardware"
    KEY_NOT_CERTIFIED = "quote_key_not_certified"
    DEBUG = "quote_debug"
    POLICY = "quote_policy"
    TCB_OUT_OF_DATE = "quote_tcb_out_of_date"
    NOT_BOUND = "quote_not_bound"
    WRONG_NONCE = "quote_wrong_nonce"
    OTHER_KEY = "quote_other_key"
    STALE = "quote_stale"
    NOT_ASKED = "quote_not_asked"
    REGISTERS = "quote_registers"
    NOT_ENROLLED = "quote_not_enrolled"


class QuoteFormatError(WireError):
    """The bytes are no quote, or not all of one, or more than one."""

    default_code = Refusal.MALFORMED.value


class QuoteRefusedError(ForbiddenError):
    """The quote can be read and is not believed."""

    default_code = Refusal.POLICY.value


def malformed(what: str) -> QuoteFormatError:
    """Return the error of bytes that break a format."""
    return QuoteFormatError(what, code=Refusal.MALFORMED.value)


def refused(why: Refusal, what: str) -> QuoteRefusedError:
    """Return the error of a quote that is not believed."""
    return QuoteRefusedError(what, code=why.value)
