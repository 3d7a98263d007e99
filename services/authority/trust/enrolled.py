"""Which hardware vouches for which server, and what it has to have measured. Pure; no clock.

    hardware/<server id>   {entries: {digest: entry}, in_force: digest or null, roster,
                            words: {server: digest or "withdrawn"}}
    entry                  {hardware, platform, registers: {name: [value, …]}}

Kind: ``attestation.enroll`` {server, …entry}, by a server of tier 1 on its own feed: it holds that
this hardware is that server's, with one of these values in each of these registers. An entry is in
force from the word on by which more than half of tier 1 hold the same, and stays until more than
half hold the same other one: neither one server nor silence changes what is believed. Of each
server its newest word counts, while it is in tier 1; where nobody is, the witnesses speak. Records
under an older roster than a verdict or an enrolment before them have no effect.

``attestation.withdraw`` {server} is the word that nothing vouches for that server any more, as of a
machine that was stolen; it is counted like the others.

``hardware`` is the name of a TPM's attestation key; for the others the chip, where it matters.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec

from services.authority.trust.tiers import Right, may, require_newest_roster
from services.base.attestation.verified import Platform
from services.kernel import canonical
from services.kernel.errors import InputError, RejectedError
from services.kernel.ids import ServerId, parse_server_id

if TYPE_CHECKING:
    from collections.abc import Mapping

    from services.kernel.views import FoldContext, RosterReader, StateReader

ENROLL_KIND: Final = "attestation.enroll"
WITHDRAW_KIND: Final = "attestation.withdraw"
WITHDRAWN: Final = "withdrawn"
VIEW: Final = "hardware"

NOTHING: Final[Mapping[str, Any]] = {"entries": {}, "in_force": None, "roster": 0, "words": {}}

_Name = Annotated[str, msgspec.Meta(pattern=r"\A[a-z][a-z0-9_]{0,31}\Z")]
_Value = Annotated[str, msgspec.Meta(pattern=r"\A([0-9a-f]{64}|[0-9a-f]{96})\Z")]
_Values = Annotated[list[_Value], msgspec.Meta(min_length=1, max_length=8)]
_Hardware = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{2,256}\Z")]
_AK_NAME_CHARS = 68


class _Enrolled(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    server: str
    platform: Platform
    hardware: _Hardware | None
    registers: Annotated[dict[_Name, _Values], msgspec.Meta(max_length=24)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Enrolled:
    """The hardware that vouches for one server."""

    platform: Platform
    hardware: str | None
    registers: Mapping[str, frozenset[str]]


def enrolled_of(state: StateReader, server_id: ServerId) -> Enrolled | None:
    """Return the entry in force for a server; None while there is none."""
    held = state.get(VIEW, server_id)
    if held is None or held["in_force"] is None:
        return None
    entry = held["entries"][held["in_force"]]
    return Enrolled(
        platform=Platform(entry["platform"]),
        hardware=entry["hardware"],
        registers={name: frozenset(values) for name, values in entry["registers"].items()},
    )


def digest_of(entry: Mapping[str, Any]) -> str:
    """Return what names an entry."""
    return hashlib.sha256(canonical.encode(dict(entry))).hexdigest()


def enroll(context: FoldContext, body: dict[str, Any]) -> None:
    """Take a server's word on another's hardware, or on its own, into the state.

    Raises:
        InputError: malformed, or it says too little.
        RejectedError: ``rejected_not_eligible``, ``rejected_scope``, ``rejected_stale`` or
            ``no_change``.
    """
    server_id, entry = entry_in(body)
    digest = digest_of(entry)
    _take(context, server_id, digest, {digest: entry})


def withdraw(context: FoldContext, body: dict[str, Any]) -> None:
    """Take a server's word that nothing vouches for another any more into the state.

    Raises:
        InputError: malformed.
        RejectedError: as ``enroll``; ``no_change`` also where nothing was ever said.
    """
    if body.keys() != {"server"}:
        raise InputError(f"{WITHDRAW_KIND} names a server")
    _take(context, parse_server_id(body["server"]), WITHDRAWN, {})


def _take(
    context: FoldContext, server_id: ServerId, word: str, named: dict[str, dict[str, Any]]
) -> None:
    state, roster = context.state, context.roster
    voter = _require_elector(context)
    if roster.server(server_id) is None:
        raise RejectedError(f"{server_id} is no server here", code="rejected_scope")
    held = state.get(VIEW, server_id) or NOTHING
    require_newest_roster(context)
    if not named and not held["entries"]:
        raise RejectedError(f"nothing is enrolled for {server_id}", code="no_change")
    electors = electors_of(state, roster)
    words = {one: said for one, said in held["words"].items() if one in electors}
    words[voter] = word
    agreed = [one for one in words.values() if one == word]
    in_force = held["in_force"]
    if 2 * len(agreed) > len(electors):
        in_force = word if named else None
    if held["words"].get(voter) == word and in_force == held["in_force"]:
        raise RejectedError(f"{voter} said so", code="no_change")
    living = {in_force, *words.values()}
    entries = {**held["entries"], **named}
    after = {
        "entries": {key: one for key, one in entries.items() if key in living},
        "in_force": in_force,
        "roster": roster.number,
        "words": words,
    }
    state.put(VIEW, server_id, after)


def entry_in(body: Mapping[str, Any]) -> tuple[ServerId, dict[str, Any]]:
    """Return whom a record's body is about, and what it says of it.

    Raises:
        InputError: malformed, or it says too little: a TPM without the name of its key, or another
            platform without a register, of which any machine of that maker would do.
    """
    try:
        wire = msgspec.convert(body, _Enrolled)
    except msgspec.ValidationError as error:
        raise InputError(f"{ENROLL_KIND}: {error}") from error
    if wire.platform is Platform.TPM2:
        if wire.hardware is None or len(wire.hardware) != _AK_NAME_CHARS:
            raise InputError("a TPM is enrolled by the name of its attestation key")
    elif not wire.registers:
        raise InputError(f"{wire.platform} is enrolled with one register at least")
    if any(len(set(values)) != len(values) for values in wire.registers.values()):
        raise InputError("a value is given twice")
    entry = {
        "platform": wire.platform.value,
        "hardware": wire.hardware,
        "registers": {name: sorted(values) for name, values in wire.registers.items()},
    }
    return parse_server_id(wire.server), entry


def electors_of(state: StateReader, roster: RosterReader) -> frozenset[ServerId]:
    """Return whose word counts: tier 1; where nobody is in it, the witnesses, who give tiers.

    Else a mesh whose hardware all changed at once, as by new firmware, would never have a tier 1
    again: nobody could say what is good now.
    """
    tier1 = frozenset(one for one in roster.servers() if may(state, roster, one, Right.VOTE))
    return tier1 or frozenset(
        one for one in roster.witnesses if may(state, roster, one, Right.WITNESS)
    )


def _require_elector(context: FoldContext) -> ServerId:
    author = context.author
    if context.record.actor != author.key:
        raise RejectedError(
            "a server speaks for itself, on its own feed", code="rejected_not_eligible"
        )
    if author.server_id not in electors_of(context.state, context.roster):
        raise RejectedError(f"{author.server_id} is not in tier 1", code="rejected_not_eligible")
    return author.server_id
