"""Exit statuses: one table from the category of an error to what the shell sees."""

from __future__ import annotations

from services.kernel.errors import (
    ConfigError,
    ConflictError,
    CorruptError,
    ForbiddenError,
    InputError,
    NotFoundError,
    RejectedError,
    SeipdError,
    StartError,
    UnauthenticatedError,
    UnavailableError,
    UnreachableError,
)

DONE = 0
NO = 1
USAGE = 2
UNREACHABLE = 3
FORBIDDEN = 4
NOT_FOUND = 5
CONFLICT = 6
UNAVAILABLE = 7

_BY_CODE = {
    "locked": CONFLICT,
    "key_permissions": USAGE,
    "key_unwrap_failed": USAGE,
    "needs_cap_net_admin": FORBIDDEN,
    "port_in_use": CONFLICT,
    "interface_in_use": CONFLICT,
    "token_invalid": FORBIDDEN,
    "rejected_unauthorised": FORBIDDEN,
    "rejected_orphan": NOT_FOUND,
    "no_mesh": NOT_FOUND,
    "out_of_range": USAGE,
    "unknown_parameter": NOT_FOUND,
    "rejected_not_eligible": FORBIDDEN,
}
_BY_CATEGORY: tuple[tuple[type[SeipdError], int], ...] = (
    (ConfigError, USAGE),
    (InputError, USAGE),
    (UnreachableError, UNREACHABLE),
    (UnauthenticatedError, FORBIDDEN),
    (ForbiddenError, FORBIDDEN),
    (NotFoundError, NOT_FOUND),
    (ConflictError, CONFLICT),
    (UnavailableError, UNAVAILABLE),
    (RejectedError, CONFLICT),
    (CorruptError, NO),
    (StartError, NO),
)


def exit_status_of(error: SeipdError) -> int:
    """Return the exit status of an error."""
    if error.code in _BY_CODE:
        return _BY_CODE[error.code]
    return next((status for kind, status in _BY_CATEGORY if isinstance(error, kind)), NO)
