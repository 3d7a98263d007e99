"""Why something is not believed: it is false, or not enough is there to say. Pure."""

from __future__ import annotations

from services.kernel.errors import UnauthenticatedError, UnavailableError


class RefusedError(UnauthenticatedError):
    """What was shown is false: malformed, not well signed, or other than what the servers signed.

    An honest server never shows such a thing, so it is worth a report.
    """

    default_code = "proof_false"


class UnprovenError(UnavailableError):
    """Nothing shown is false, but it does not prove what was asked: wait."""

    default_code = "unproven"
