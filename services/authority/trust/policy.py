"""What speaks for a server and what against it, and when that changes its tier. Pure; no clock.

Several *checks* are made of a server again and again. Each is good, failed, waiting (nothing is
known yet, which is never held against anybody) or lost (it was good once and is no more). A failed
one warns; three in a row demote; a lost one demotes at once. ``warned`` is a failure that is
counted where it was seen, as a quote's is: quotes are asked for more seldom than one looks. Who was
demoted comes back by three good ones. What cuts a server off, a revocation or a proof, is no matter
of these checks: it stands in the roster or in the state.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from services.authority.trust.tiers import TrustRules

IN_A_ROW: Final = 3


class Outcome(StrEnum):
    """How one check went."""

    GOOD = "good"
    WAITING = "waiting"
    WARNED = "warned"
    FAILED = "failed"
    LOST = "lost"


@dataclass(frozen=True, slots=True, kw_only=True)
class Attested:
    """What is known of a server's hardware; ``outcome`` waits until it was asked for an hour."""

    outcome: Outcome = Outcome.WAITING
    platform: str | None = None
    code: str = "not_attested"


@dataclass(frozen=True, slots=True, kw_only=True)
class Released:
    """What is known of what a server runs."""

    outcome: Outcome = Outcome.WAITING
    version: str | None = None
    code: str = "release_not_told"
    is_known: bool = False
    """Whether there are manifests here by which to judge."""
    why: str = ""
    """Why it is not approved, for people."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What one server knows of another that is in the roster, or of itself."""

    checks: int
    uptime_permille: int | None
    attested: Attested = field(default_factory=Attested)
    released: Released = field(default_factory=Released)
    is_own: bool = False

    def value(self) -> dict[str, int | str | None]:
        """Return what a verdict tells of it."""
        return {
            "checks": self.checks,
            "uptime_permille": self.uptime_permille,
            "platform": self.attested.platform,
            "release": self.released.version,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """The outcome of one check; ``code`` is a stable word."""

    check: str
    outcome: Outcome
    code: str
    what: str

    def value(self) -> dict[str, str]:
        """Return it for people and programs."""
        return {
            "check": self.check,
            "outcome": self.outcome.value,
            "code": self.code,
            "what": self.what,
        }


def examine(evidence: Evidence, rules: TrustRules, *, least_permille: int) -> list[Finding]:
    """Return what each check says of a server that has a certificate.

    Args:
        evidence: what is known of it.
        rules: what the genesis demands.
        least_permille: the uptime that tier 1 has to be over.
    """
    return [
        Finding(
            check="certificate",
            outcome=Outcome.GOOD,
            code="certified",
            what="the root signed for it, and nothing took that back",
        ),
        _attestation(evidence.attested, rules, is_own=evidence.is_own),
        _release(evidence.released, rules),
        _uptime(evidence, rules, least_permille),
    ]


def _attestation(attested: Attested, rules: TrustRules, *, is_own: bool) -> Finding:
    if not rules.attestation:
        return _finding("attestation", Outcome.GOOD, "not_demanded", "this mesh demands none")
    if is_own:
        return _finding("attestation", Outcome.GOOD, "not_judged", "nobody attests itself")
    wanted = ", ".join(rules.attestation)
    if attested.outcome is Outcome.GOOD and attested.platform not in rules.attestation:
        what = f"{attested.platform} vouches for it, this mesh demands {wanted}"
        return _finding("attestation", Outcome.FAILED, "attestation_other_platform", what)
    what = {
        Outcome.GOOD: f"{attested.platform} vouches for it",
        Outcome.WAITING: f"no quote was seen yet; this mesh demands {wanted}",
        Outcome.WARNED: "its newest quote is not believed",
        Outcome.FAILED: "its newest quote is not believed",
        Outcome.LOST: "no good quote for an hour, or three in a row that were not",
    }[attested.outcome]
    code = "attested" if attested.outcome is Outcome.GOOD else attested.code
    return _finding("attestation", attested.outcome, code, what)


def _release(released: Released, rules: TrustRules) -> Finding:
    if not released.is_known and not rules.attestation:
        return _finding("release", Outcome.GOOD, "not_demanded", "nothing to judge it by is here")
    what = {
        Outcome.GOOD: f"it runs {released.version}, which is approved",
        Outcome.WAITING: "it did not tell what it runs",
        Outcome.WARNED: "what it runs is not approved",
        Outcome.FAILED: "what it runs is not approved",
        Outcome.LOST: "what it runs is approved no more",
    }[released.outcome]
    if released.why:
        what = f"{what}: {released.why}"
    code = "approved" if released.outcome is Outcome.GOOD else released.code
    return _finding("release", released.outcome, code, what)


def _uptime(evidence: Evidence, rules: TrustRules, least_permille: int) -> Finding:
    if evidence.is_own:
        return _finding("uptime", Outcome.GOOD, "not_judged", "nobody judges its own uptime")
    permille = evidence.uptime_permille
    if permille is None or evidence.checks < rules.checks:
        what = f"{evidence.checks} checks of it were made, {rules.checks} are needed"
        return _finding("uptime", Outcome.WAITING, "too_few_checks", what)
    answered = f"{permille / 10:.1f} % of {evidence.checks} checks"
    if permille > least_permille:
        return _finding("uptime", Outcome.GOOD, "up", f"it answered {answered}")
    what = f"it answered {answered}, and has to be over {least_permille / 10:.1f} %"
    return _finding("uptime", Outcome.FAILED, "low_uptime", what)


def _finding(check: str, outcome: Outcome, code: str, what: str) -> Finding:
    return Finding(check=check, outcome=outcome, code=code, what=what)


def worst(findings: list[Finding]) -> Outcome:
    """Return the outcome of the checks together."""
    found = {one.outcome for one in findings}
    order = (Outcome.LOST, Outcome.FAILED, Outcome.WARNED, Outcome.WAITING)
    return next((one for one in order if one in found), Outcome.GOOD)


@dataclass(frozen=True, slots=True, kw_only=True)
class Streak:
    """How many looks at a server in a row were good, or bad."""

    good_count: int = 0
    bad_count: int = 0
    is_warned: bool = False

    def after(self, outcome: Outcome) -> Streak:
        """Return the streak with one look more; waiting is no word against anybody."""
        if outcome is Outcome.GOOD:
            return Streak(good_count=self.good_count + 1)
        if outcome is Outcome.FAILED:
            return Streak(bad_count=self.bad_count + 1)
        if outcome is Outcome.LOST:
            return Streak(bad_count=max(self.bad_count + 1, IN_A_ROW))
        return Streak(bad_count=self.bad_count, is_warned=outcome is Outcome.WARNED)

    @property
    def is_warning(self) -> bool:
        """Whether the newest look was bad, and demotes nobody yet."""
        return self.is_warned or 0 < self.bad_count < IN_A_ROW


def verdict_due(streak: Streak, *, given: int | None, tier: int) -> int | None:
    """Return the verdict that a witness has to give now; None where there is nothing to say.

    Args:
        streak: the looks at the server so far.
        given: the witness's newest verdict on it, if it gave one.
        tier: the server's tier, 1 or 2.
    """
    if streak.bad_count >= IN_A_ROW:
        wanted = 2
    elif streak.good_count >= (IN_A_ROW if given == 2 else 1):
        wanted = 1
    else:
        return None
    return None if wanted == (tier if given is None else given) else wanted
