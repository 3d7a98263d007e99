"""The one family of errors that this program raises on purpose.

An error says what happened in its message, names it by a stable ``code`` and, where a person can
do something about it, says what in ``mend``. The command line and the HTTP servers translate the
category (the class) into an exit status and an HTTP status; nothing else here knows of either.
"""

from __future__ import annotations

from typing import ClassVar


class SeipdError(Exception):
    """Root of the family. ``code`` is stable snake_case; ``mend`` is what to do now."""

    default_code: ClassVar[str] = "internal"

    def __init__(self, what: str, *, code: str | None = None, mend: str = "") -> None:
        super().__init__(what)
        self.code = code or self.default_code
        self.mend = mend

    def diagnostics(self) -> str:
        """Return the sentence that tells a person what to do, or an empty string."""
        return self.mend


class WireError(SeipdError):
    """Bytes from outside do not follow the format."""

    default_code = "bad_message"


class InputError(SeipdError):
    """A caller's value is malformed or out of range."""

    default_code = "bad_field"


class ConfigError(SeipdError):
    """A flag, a variable or the configuration file is wrong."""

    default_code = "bad_config"


class UnauthenticatedError(SeipdError):
    """The caller did not prove who it is."""

    default_code = "unauthenticated"


class ForbiddenError(SeipdError):
    """The caller is known and may not do this."""

    default_code = "forbidden"


class NotFoundError(SeipdError):
    """There is no such thing, or the caller may not know of it."""

    default_code = "not_found"


class ConflictError(SeipdError):
    """The present state does not allow it."""

    default_code = "conflict"


class RejectedError(SeipdError):
    """A well-formed record that has no effect, by a rule of its view."""

    default_code = "rejected"


class UnavailableError(SeipdError):
    """Try again later: something that is needed is away, full or not ready."""

    default_code = "unavailable"


class RateLimitedError(UnavailableError):
    """Too many requests; ``retry_after_s`` says when to come back."""

    default_code = "rate_limited"

    def __init__(self, what: str, *, retry_after_s: int) -> None:
        super().__init__(what, mend=f"wait {retry_after_s} s")
        self.retry_after_s = retry_after_s


class TooLargeError(InputError):
    """A body, a record or a file is over its limit."""

    default_code = "too_large"


class UnreachableError(SeipdError):
    """The daemon or the server can't be reached."""

    default_code = "unreachable"


class StorageError(UnavailableError):
    """The disk refused; nothing was answered for."""

    default_code = "storage_unavailable"


class CorruptError(SeipdError):
    """A file of ours is damaged; ``path`` names it relative to the data root."""

    default_code = "corrupt"

    def __init__(self, what: str, *, path: str, code: str | None = None, mend: str = "") -> None:
        super().__init__(what, code=code, mend=mend)
        self.path = path


class StartError(SeipdError):
    """A service can't start; ``service`` names it."""

    default_code = "start_failed"

    def __init__(self, what: str, *, service: str, code: str | None = None, mend: str = "") -> None:
        super().__init__(what, code=code, mend=mend)
        self.service = service
