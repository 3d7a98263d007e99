"""From a problem document back to an error of ours."""

from __future__ import annotations

from typing import Any, Protocol

from services.kernel.errors import (
    ConflictError,
    ForbiddenError,
    InputError,
    NotFoundError,
    RejectedError,
    SeipdError,
    TooLargeError,
    UnauthenticatedError,
    UnavailableError,
    WireError,
)

_BY_STATUS: dict[int, type[SeipdError]] = {
    400: InputError,
    401: UnauthenticatedError,
    403: ForbiddenError,
    404: NotFoundError,
    409: ConflictError,
    413: TooLargeError,
    422: RejectedError,
    429: UnavailableError,
    503: UnavailableError,
}


class Answer(Protocol):
    """What came back over HTTP, by whatever client."""

    @property
    def status(self) -> int:
        """The status of HTTP."""
        ...

    def json(self) -> Any:  # noqa: ANN401 (JSON)
        """Return the body as strictly parsed JSON, or raise a WireError."""
        ...


def error_of(answer: Answer) -> SeipdError:
    """Return the error that an answer with status 400 or above stands for."""
    kind = _BY_STATUS.get(answer.status, SeipdError)
    try:
        value = answer.json()
    except WireError:
        value = None
    if not isinstance(value, dict):
        return kind(f"status {answer.status}")
    detail, code, mend = (value.get(name) for name in ("detail", "code", "mend"))
    return kind(
        str(detail or f"status {answer.status}"),
        code=code if isinstance(code, str) else None,
        mend=mend if isinstance(mend, str) else "",
    )
