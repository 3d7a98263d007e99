"""What a server tells that it runs, and what a witness makes of it and of silence."""

from __future__ import annotations

import dataclasses

import pytest

from services.authority.trust.policy import Evidence, Outcome, Streak, examine, worst
from services.authority.trust.released import SILENCE_MS, ReleaseBook
from services.authority.trust.tiers import TrustRules
from services.base.release.approval import Running, approve
from services.base.release.manifest import open_manifest
from tests.unit.base_release.test_manifests import KEYS, NOW_MS, manifest

ANN, BOB = "server-00000000000000aa", "server-00000000000000bb"
RUNS = Running(version="1.4.0", platform="linux-x86_64", python="3.11.2", measurement="ab" * 32)
MANIFESTS = (open_manifest(manifest(), KEYS),)
NEWER = (*MANIFESTS, open_manifest(manifest(version=(2, 0, 0), minimum_version=(1, 5, 0)), KEYS))


def judged(book: ReleaseBook, told, *, manifests=MANIFESTS, after_ms=0, server=ANN):
    now_ms = NOW_MS + after_ms
    return book.judge(
        server,
        told,
        approve=lambda running: approve(running, manifests, now_ms=now_ms),
        is_known=bool(manifests),
        now_ms=now_ms,
    )


def finding(released):
    evidence = Evidence(checks=128, uptime_permille=1000, released=released)
    found = examine(evidence, TrustRules(), least_permille=900)
    return next(one for one in found if one.check == "release")


def test_an_approved_release_speaks_for_its_server():
    found = judged(ReleaseBook(), RUNS)
    assert (found.outcome, found.version, found.is_known) == (Outcome.GOOD, "1.4.0", True)
    assert finding(found).code == "approved"


@pytest.mark.parametrize(
    ("changed", "manifests", "code"),
    [
        ({"measurement": "ef" * 32}, MANIFESTS, "release_unknown"),
        ({"platform": "linux-aarch64"}, MANIFESTS, "release_other_platform"),
        ({"python": "3.12.1"}, MANIFESTS, "release_other_platform"),
        ({"version": "1.5.0"}, MANIFESTS, "release_other_version"),
        ({"version": "1.4.0.dev1"}, MANIFESTS, "release_unknown"),
        ({}, NEWER, "release_below_minimum"),
    ],
)
def test_att_01_what_is_not_approved_has_its_code_and_says_why(changed, manifests, code):
    told = dataclasses.replace(RUNS, **changed)
    found = judged(ReleaseBook(), told, manifests=manifests)
    assert (found.outcome, found.code) == (Outcome.FAILED, code)
    shown = finding(found)
    assert shown.outcome is Outcome.FAILED
    assert shown.what.startswith("what it runs is not approved: ")
    assert len(shown.what) > len("what it runs is not approved: ")


def test_att_02_silence_is_waited_for_an_hour_and_then_counts_against_a_server():
    book = ReleaseBook()
    assert judged(book, None).outcome is Outcome.WAITING
    assert judged(book, None, after_ms=SILENCE_MS - 1).outcome is Outcome.WAITING
    late = judged(book, None, after_ms=SILENCE_MS)
    assert (late.outcome, late.code) == (Outcome.FAILED, "release_not_told")
    assert judged(book, None, after_ms=SILENCE_MS, server=BOB).outcome is Outcome.WAITING
    assert judged(book, RUNS, after_ms=SILENCE_MS + 1).outcome is Outcome.GOOD
    assert judged(book, None, after_ms=SILENCE_MS + 2).outcome is Outcome.WAITING


def test_the_hour_begins_anew_for_who_comes_back_into_the_roster():
    book = ReleaseBook()
    judged(book, None)
    book.watch({ANN, BOB})
    assert judged(book, None, after_ms=SILENCE_MS).outcome is Outcome.FAILED
    book.watch({BOB})
    book.watch({ANN, BOB})
    assert judged(book, None, after_ms=SILENCE_MS).outcome is Outcome.WAITING


def test_one_that_is_not_approved_warns_and_three_in_a_row_demote():
    book, streak = ReleaseBook(), Streak()
    for number in range(1, 4):
        found = finding(judged(book, RUNS, manifests=NEWER))
        streak = streak.after(worst([found]))
        assert (streak.bad_count, streak.is_warning) == (number, number < 3)


def test_nothing_is_demanded_where_there_are_no_manifests():
    found = finding(judged(ReleaseBook(), RUNS, manifests=()))
    assert (found.outcome, found.code) == (Outcome.GOOD, "not_demanded")
