"""What a witness comes to hold of a server; nothing is held against silence."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.authority.trust.attested import AttestationBook
from services.authority.trust.policy import (
    Attested,
    Evidence,
    Outcome,
    Released,
    Streak,
    examine,
    verdict_due,
    worst,
)
from services.authority.trust.tiers import RIGHTS, Right, Tier, TrustRules
from services.base.attestation.conversation import Believed, Disbelieved, Unanswered, Withdrawn
from services.base.attestation.verified import Platform, VerifiedQuote

NO_TEE = TrustRules(newcomers=Tier.CERTIFIED)
TPM = TrustRules(attestation=("tpm2",), newcomers=Tier.CERTIFIED)
QUOTED = Attested(outcome=Outcome.GOOD, platform="tpm2")
APPROVED = Released(outcome=Outcome.GOOD, version="1.2.0", is_known=True)


def outcome(evidence: Evidence, rules: TrustRules = NO_TEE, least: int = 900) -> Outcome:
    return worst(examine(evidence, rules, least_permille=least))


def code(evidence: Evidence, check: str, rules: TrustRules = NO_TEE) -> str:
    found = examine(evidence, rules, least_permille=900)
    return next(one.code for one in found if one.check == check)


@pytest.mark.parametrize(
    ("checks", "permille", "expected"),
    [
        (128, 1000, Outcome.GOOD),
        (100, 901, Outcome.GOOD),
        (100, 900, Outcome.FAILED),
        (128, 0, Outcome.FAILED),
        (99, 1000, Outcome.WAITING),
        (99, 0, Outcome.WAITING),
        (0, None, Outcome.WAITING),
    ],
)
def test_uptime_is_over_ninety_percent_in_a_hundred_checks(checks, permille, expected) -> None:
    assert outcome(Evidence(checks=checks, uptime_permille=permille)) is expected


def test_a_vote_on_the_least_uptime_is_gone_by() -> None:
    assert outcome(Evidence(checks=128, uptime_permille=920), least=950) is Outcome.FAILED
    assert outcome(Evidence(checks=128, uptime_permille=520), least=500) is Outcome.GOOD


def test_nobody_judges_its_own_uptime() -> None:
    assert outcome(Evidence(checks=0, uptime_permille=None, is_own=True)) is Outcome.GOOD


def up(**changes) -> Evidence:
    return Evidence(checks=128, uptime_permille=1000, **changes)


@pytest.mark.parametrize(
    ("attested", "expected", "why"),
    [
        (Attested(), Outcome.WAITING, "not_attested"),
        (QUOTED, Outcome.GOOD, "attested"),
        (
            Attested(outcome=Outcome.FAILED, code="quote_registers"),
            Outcome.FAILED,
            "quote_registers",
        ),
        (Attested(outcome=Outcome.LOST, code="quote_stale"), Outcome.LOST, "quote_stale"),
        (
            Attested(outcome=Outcome.GOOD, platform="sev-snp"),
            Outcome.FAILED,
            "attestation_other_platform",
        ),
    ],
)
def test_hardware_vouches_where_the_genesis_demands_it(attested, expected, why) -> None:
    evidence = up(attested=attested, released=APPROVED)
    assert (outcome(evidence, TPM), code(evidence, "attestation", TPM)) == (expected, why)
    assert outcome(evidence, NO_TEE) is Outcome.GOOD


def test_gos_27_no_quote_that_was_seen_makes_up_for_a_release_that_is_not_approved() -> None:
    other = Released(outcome=Outcome.FAILED, code="release_unknown", is_known=True)
    assert outcome(up(attested=QUOTED, released=other), TPM) is Outcome.FAILED
    assert outcome(up(attested=QUOTED), TPM) is Outcome.WAITING


def test_a_release_is_approved_where_there_are_manifests() -> None:
    refused = Released(outcome=Outcome.FAILED, code="release_below_minimum", is_known=True)
    assert code(up(released=refused), "release") == "release_below_minimum"
    assert outcome(up(released=refused)) is Outcome.FAILED
    assert outcome(up(released=APPROVED)) is Outcome.GOOD
    assert outcome(up()) is Outcome.GOOD


def play(outcomes: list[Outcome], *, given: int | None = None, tier: int = 2) -> list[int]:
    """Return the verdicts that one witness, the only one, gives over these looks."""
    streak, said = Streak(), []
    for one in outcomes:
        streak = streak.after(one)
        if (due := verdict_due(streak, given=given, tier=tier)) is not None:
            given = tier = due
            said.append(due)
    return said


GOOD, FAILED, WAITING, LOST = Outcome.GOOD, Outcome.FAILED, Outcome.WAITING, Outcome.LOST
WARNED = Outcome.WARNED


@pytest.mark.parametrize(
    ("looks", "said"),
    [
        ([WAITING] * 9, []),
        ([FAILED] * 9, []),
        ([GOOD], [1]),
        ([GOOD] * 9, [1]),
        ([GOOD, FAILED, FAILED, GOOD, FAILED, FAILED], [1]),
        ([GOOD, FAILED, FAILED, FAILED], [1, 2]),
        ([GOOD, FAILED, WAITING, FAILED, WAITING, FAILED], [1, 2]),
        ([GOOD] + [WARNED] * 9, [1]),
        ([GOOD, LOST], [1, 2]),
        ([GOOD, LOST, GOOD, GOOD], [1, 2]),
        ([GOOD, LOST, GOOD, GOOD, GOOD], [1, 2, 1]),
        ([GOOD, LOST, GOOD, GOOD, FAILED, GOOD, GOOD], [1, 2]),
    ],
)
def test_one_warns_three_in_a_row_demote_and_three_good_ones_bring_back(looks, said) -> None:
    assert play(looks) == said


def test_att_02_who_is_not_reached_has_not_failed() -> None:
    assert play([WAITING] * 99, given=1, tier=1) == []


def test_a_witness_that_found_itself_alone_takes_its_word_back() -> None:
    streak = Streak()
    for _ in range(3):
        streak = streak.after(GOOD)
    assert verdict_due(streak, given=2, tier=1) == 1


def test_a_witness_says_nothing_that_is_so_already() -> None:
    assert verdict_due(Streak(good_count=5), given=None, tier=1) is None
    assert verdict_due(Streak(bad_count=5), given=None, tier=2) is None
    assert verdict_due(Streak(bad_count=5), given=None, tier=1) == 2


def test_a_warning_is_one_or_two_bad_looks() -> None:
    streak, told = Streak(), []
    for one in (GOOD, FAILED, FAILED, FAILED):
        streak = streak.after(one)
        told.append(streak.is_warning)
    assert told == [False, True, True, False]


HOUR_MS = 3_600_000
KEY = b"k" * 32


def believed(until_ms: int) -> Believed:
    quote = VerifiedQuote(
        platform=Platform.TPM2, bound=b"", hardware="", registers={}, tcb_status="UpToDate"
    )
    return Believed(server_key=KEY, quote=quote, until_ms=until_ms)


def refused(in_a_row: int) -> Disbelieved:
    return Disbelieved(server_key=KEY, code="quote_registers", what="", in_a_row=in_a_row)


def book(*news) -> AttestationBook:
    found = AttestationBook()
    found.watch([KEY], now_ms=0)
    for one in news:
        found.hear(one)
    return found


@pytest.mark.parametrize(
    ("news", "at_ms", "expected", "why"),
    [
        ([], 0, WAITING, "not_attested"),
        ([Unanswered(server_key=KEY)] * 9, HOUR_MS - 1, WAITING, "not_attested"),
        ([], HOUR_MS, LOST, "not_attested"),
        ([believed(2 * HOUR_MS)], 2 * HOUR_MS - 1, GOOD, "not_attested"),
        ([believed(2 * HOUR_MS), Unanswered(server_key=KEY)], 2 * HOUR_MS, LOST, "quote_stale"),
        ([believed(2 * HOUR_MS), refused(1)], HOUR_MS, WARNED, "quote_registers"),
        ([believed(2 * HOUR_MS), refused(2)], HOUR_MS, WARNED, "quote_registers"),
        ([believed(2 * HOUR_MS), refused(3)], HOUR_MS, LOST, "quote_registers"),
        ([refused(3), believed(2 * HOUR_MS)], HOUR_MS, GOOD, "not_attested"),
        ([believed(2 * HOUR_MS), refused(1)], 2 * HOUR_MS, LOST, "quote_registers"),
        ([believed(2 * HOUR_MS), Withdrawn(server_key=KEY)], 1, LOST, "quote_not_enrolled"),
        ([Withdrawn(server_key=KEY), believed(2 * HOUR_MS)], 1, GOOD, "not_attested"),
    ],
)
def test_att_02_quotes_that_are_refused_count_and_those_that_do_not_come_lapse(
    news, at_ms, expected, why
) -> None:
    found = book(*news).of(KEY, now_ms=at_ms)
    assert (found.outcome, found.code) == (expected, why)


def test_nobody_is_held_to_quotes_of_a_server_that_is_gone() -> None:
    found = book(believed(2 * HOUR_MS))
    found.watch([], now_ms=HOUR_MS)
    found.hear(refused(3))
    assert found.of(KEY, now_ms=HOUR_MS) == Attested()


def test_nobody_attests_itself() -> None:
    own = Evidence(checks=0, uptime_permille=None, released=APPROVED, is_own=True)
    assert outcome(own, TPM) is GOOD


def test_the_docs_tell_what_each_tier_may() -> None:
    text = (Path(__file__).resolve().parents[3] / "docs/trust.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()]
    told = {row[0]: row[1:] for row in rows if len(row) == 4 and row[1] in ("yes", "no")}
    tiers = (Tier.UNTRUSTED, Tier.CERTIFIED, Tier.ATTESTED)
    assert told == {
        right.value: ["yes" if right in RIGHTS[tier] else "no" for tier in tiers] for right in Right
    }


def test_a_higher_tier_may_all_that_a_lower_may() -> None:
    assert RIGHTS[Tier.UNTRUSTED] < RIGHTS[Tier.CERTIFIED] < RIGHTS[Tier.ATTESTED]
    assert RIGHTS[Tier.ATTESTED] == frozenset(Right)
