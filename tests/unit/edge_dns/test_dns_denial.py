"""What denies a name covers it and all below, and nothing that exists; dnspython orders names."""

from __future__ import annotations

import dns.name
import dns.rdata
from dns.rdatatype import NSEC
from hypothesis import example, given
from hypothesis import strategies as st

from services.edge.dns.denial import no_such_name, no_such_type
from services.edge.dns.wire import Type
from services.kernel.dnsnames import is_below, name_of, parents_of

APEX = name_of("mesh.example")
LETTERS = "-0123456789_abcdefghijklmnopqrstuvwxyz"
PLAIN = {Type.A}

# Names that exist are of letters, digits, - and _; anything at all may be asked for.
labels = st.one_of(
    st.text(alphabet=LETTERS, min_size=1, max_size=3),
    st.text(alphabet="-z", min_size=62, max_size=63),
).map(str.encode)
asked_labels = st.one_of(
    labels,
    st.binary(min_size=1, max_size=2),
    st.binary(min_size=60, max_size=63),
    st.sampled_from([b"*", b"\0", b"\xff", b"@", b"[", b"\xff" * 63, b"z" * 63, b"a\0"]),
).map(bytes.lower)


def below_apex(parts: list[bytes]) -> bytes:
    """Return a name below the apex, of as many labels as there is room for."""
    name = APEX
    for one in parts:
        longer = bytes([len(one)]) + one + name
        if len(longer) <= 255:
            name = longer
    return name


existing = st.sets(st.lists(labels, min_size=1, max_size=5).map(below_apex), max_size=12)
questions = st.lists(asked_labels, min_size=1, max_size=5).map(below_apex)


class Names:
    """Names that exist, and with them those above."""

    def __init__(self, owners: set[bytes]) -> None:
        self.all = {APEX, *owners}
        for owner in owners:
            self.all |= {one for one in parents_of(owner) if is_below(one, APEX)}

    def types_at(self, name: bytes) -> set[int] | None:
        return PLAIN if name in self.all else None


def read(name: bytes) -> dns.name.Name:
    return dns.name.from_wire(name, 0)[0]


def covers(owner: bytes, nsec, name: bytes) -> bool:
    """Say by the canonical order whether an NSEC says that a name is not there."""
    begin, end, at = read(owner), read_next(nsec), read(name)
    return begin < at and (at < end or end == read(APEX))


def read_next(nsec) -> dns.name.Name:
    (rdata,) = nsec.rdatas
    return dns.rdata.from_wire("IN", NSEC, rdata, 0, len(rdata)).next


def types_of(nsec) -> set[int]:
    (rdata,) = nsec.rdatas
    windows = dns.rdata.from_wire("IN", NSEC, rdata, 0, len(rdata)).windows
    return {
        256 * window + 8 * at + bit
        for window, octets in windows
        for at, octet in enumerate(octets)
        for bit in range(8)
        if octet & 0x80 >> bit
    }


LONG = below_apex([b"z" * 63, b"z" * 63, b"z" * 63, b"z" * 46])


@given(existing, questions)
@example({below_apex([b"a"])}, below_apex([b"b"]))
@example({below_apex([b"a", b"a"])}, below_apex([b"a", b"*"]))
@example({below_apex([b"y" * 63, b"a"])}, below_apex([b"y" * 62 + b"z"]))
@example({LONG}, LONG[:-20] + LONG[-20:].replace(b"z", b"y"))
@example(set(), below_apex([b"\xff" * 63, b"\xff" * 63, b"\xff" * 63, b"\xff" * 48]))
def test_a_denial_covers_the_name_and_the_wildcard_and_nothing_that_exists(
    owners: set[bytes], name: bytes
) -> None:
    names = Names(owners)
    if name in names.all:
        return
    proof = no_such_name(name, APEX, names.types_at)
    encloser = next(one for one in parents_of(name) if one in names.all)
    wildcard = b"\1*" + encloser
    assert any(covers(owner, nsec, name) for owner, nsec in proof)
    if len(wildcard) <= 255:
        assert any(covers(owner, nsec, wildcard) for owner, nsec in proof)
    for owner, nsec in proof:
        assert is_below(owner, APEX)
        assert not [one for one in names.all if covers(owner, nsec, one)]
        assert types_of(nsec) == {*(names.types_at(owner) or ()), Type.RRSIG, Type.NSEC}
    # Validators take the closest encloser from what the covering NSEC has in common with the name.
    owner, nsec = next(one for one in proof if covers(*one, name))
    shared = max(read(name).fullcompare(end)[2] for end in (read(owner), read_next(nsec)))
    assert shared == len(read(encloser).labels)


@given(existing, st.integers(min_value=0), st.sets(st.integers(1, 1000), max_size=5))
@example({LONG}, 0, {1})
def test_what_lacks_a_type_denies_that_type_alone(
    owners: set[bytes], which: int, types: set[int]
) -> None:
    names = Names(owners)
    name = sorted(names.all)[which % len(names.all)]
    nsec = no_such_type(name, APEX, types)
    assert types_of(nsec) == {*types, Type.RRSIG, Type.NSEC}
    below = [one for one in names.all if covers(name, nsec, one)]
    assert not below
