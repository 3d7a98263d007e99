"""The parameters that only a vote changes: what each may be, and what it is now. Pure.

    param/<name>   {proposal, value}: set by a proposal that passed, whose record it names

While nothing was voted, a parameter is what the genesis says, and where that is silent (or says
what can't be) its default. A value is whole: shares are percent or per mille, times are days.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from services.kernel.errors import RejectedError

if TYPE_CHECKING:
    from services.kernel.views import StateReader

VIEW: Final = "param"
ROTATION: Final = "root_rotation_interval_days"
SHARE_QUORUM: Final = "share_quorum_percent"
TIER1_UPTIME: Final = "tier1_uptime_permille"
PUBLIC_RATE: Final = "public_requests_per_minute"
CALLER_RATE: Final = "caller_requests_per_minute"
ENROLLMENT: Final = "enrollment_policy"
ENROLLMENT_QUORUM: Final = "enrollment_quorum_percent"
OPEN: Final = "open"
QUORUM: Final = "quorum"

Value = int | str


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """What a parameter may be: a whole number from ``low`` to ``high``, or one of ``choices``."""

    name: str
    default: Value
    meaning: str
    low: int = 0
    high: int = 0
    choices: tuple[str, ...] = ()

    def allows(self, value: object) -> bool:
        """Say whether a value is one that this parameter may have."""
        if self.choices:
            return type(value) is str and value in self.choices
        return type(value) is int and self.low <= value <= self.high

    @property
    def range(self) -> str:
        """What it may be, for people."""
        return "|".join(self.choices) if self.choices else f"{self.low}-{self.high}"


PARAMETERS: Final = {
    one.name: one
    for one in (
        Parameter(
            name=ROTATION,
            default=7,
            low=1,
            high=90,
            meaning="days after which the root key is followed by a new one",
        ),
        Parameter(
            name=SHARE_QUORUM,
            default=75,
            low=51,
            high=100,
            meaning="percent of the holders whose shares bring back a lost root",
        ),
        Parameter(
            name=TIER1_UPTIME,
            default=900,
            low=500,
            high=999,
            meaning="of a thousand checks, how many a server of tier 1 answers",
        ),
        Parameter(
            name=PUBLIC_RATE,
            default=60,
            low=10,
            high=6_000,
            meaning="requests a minute of one address that did not say who it is",
        ),
        Parameter(
            name=CALLER_RATE,
            default=300,
            low=60,
            high=60_000,
            meaning="requests a minute of one authenticated caller",
        ),
        Parameter(
            name=ENROLLMENT,
            default=OPEN,
            choices=(OPEN, QUORUM),
            meaning="whether an invitation is enough for a new server, or tier 1 votes on it",
        ),
        Parameter(
            name=ENROLLMENT_QUORUM,
            default=51,
            low=1,
            high=100,
            meaning="percent of tier 1 that have to approve a new server",
        ),
    )
}


def parameter(name: object) -> Parameter:
    """Return a parameter by its name.

    Raises:
        RejectedError: ``unknown_parameter``.
    """
    found = PARAMETERS.get(name) if isinstance(name, str) else None
    if found is None:
        raise RejectedError(
            "there is no such parameter",
            code="unknown_parameter",
            mend="seipd governance params lists them",
        )
    return found


def require_allowed(name: object, value: object) -> Parameter:
    """Return the parameter, if it may have this value.

    Raises:
        RejectedError: ``unknown_parameter`` or ``out_of_range``.
    """
    found = parameter(name)
    if not found.allows(value):
        raise RejectedError(f"{found.name} is {found.range}", code="out_of_range")
    return found


def value(state: StateReader, name: str) -> Value:
    """Return what a parameter is now.

    Raises:
        RejectedError: ``unknown_parameter``.
    """
    known = parameter(name)
    held = state.get(VIEW, name)
    if held is not None:
        found: Value = held["value"]
        return found
    genesis = state.get("mesh", "genesis")
    said = (genesis or {}).get("body", {}).get("parameters", {}).get(name)
    return said if known.allows(said) else known.default


def number(state: StateReader, name: str) -> int:
    """Return what a parameter is that is a whole number.

    Raises:
        RejectedError: ``unknown_parameter``.
        TypeError: its values are words.
    """
    found = value(state, name)
    if not isinstance(found, int):
        raise TypeError(f"{name} is no number")
    return found


def set_by(state: StateReader, name: str) -> str:
    """Return the proposal that set a parameter; empty while none did."""
    held = state.get(VIEW, name)
    return held["proposal"] if held is not None else ""
