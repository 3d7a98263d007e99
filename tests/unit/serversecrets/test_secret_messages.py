"""A secret opens for the server that it was sealed to, and for nobody else, and is what was set."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.authority.serversecrets.messages import (
    MAX_VALUE_BYTES,
    ForgedSecretError,
    Meant,
    make_secret,
    meant_in,
    open_secret,
    parse_name,
    removed_in,
    seal_secret,
    set_body,
    unpack_secret,
)
from services.base.crypto.signatures import SigningKey
from services.kernel.errors import InputError, SeipdError, TooLargeError

MESH, OTHER_MESH = "11" * 32, "22" * 32
ANN, BOB = SigningKey(bytes(32)), SigningKey(bytes(31) + b"\x01")
SALT = bytes(range(32))

values = st.binary(min_size=1, max_size=200)
names = st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")
salts = st.binary(min_size=32, max_size=32)


def opened(sealed: bytes, meant: Meant, *, mesh: str = MESH, key: SigningKey = ANN):
    return open_secret(mesh, meant, sealed, seed=key.seed, identity_key=key.public_key)


@settings(deadline=None)
@given(name=names, value=values, salt=salts, version=st.integers(1, 2**40))
def test_what_is_sealed_to_a_server_opens_there_alone(name, value, salt, version) -> None:
    secret = make_secret(MESH, name=name, version=version, value=value, salt=salt)
    sealed = seal_secret(MESH, secret, ANN.public_key)
    assert value not in sealed or len(value) < 4
    assert opened(sealed, secret.meant).value == value
    for wrong in ({"mesh": OTHER_MESH}, {"key": BOB}):
        with pytest.raises(ForgedSecretError):
            opened(sealed, secret.meant, **wrong)


@settings(deadline=None)
@given(value=values, position=st.integers(0), bit=st.integers(0, 7))
def test_every_bit_that_is_turned_is_noticed(value, position, bit) -> None:
    secret = make_secret(MESH, name="acme", version=1, value=value, salt=SALT)
    sealed = bytearray(seal_secret(MESH, secret, ANN.public_key))
    sealed[position % len(sealed)] ^= 1 << bit
    with pytest.raises(ForgedSecretError):
        opened(bytes(sealed), secret.meant)


@given(value=values, other=values)
def test_another_value_name_version_or_salt_is_another_commitment(value, other) -> None:
    secret = make_secret(MESH, name="acme", version=2, value=value, salt=SALT)
    different = [
        make_secret(MESH, name="acm", version=2, value=b"e" + value, salt=SALT),
        make_secret(MESH, name="acme", version=3, value=value, salt=SALT),
        make_secret(MESH, name="acme", version=2, value=value, salt=bytes(32)),
        make_secret(OTHER_MESH, name="acme", version=2, value=value, salt=SALT),
    ]
    assert secret.meant.commitment not in {one.meant.commitment for one in different}
    if other != value:
        with pytest.raises(ForgedSecretError):
            unpack_secret(MESH, secret.meant, SALT + other)


def test_a_giver_that_lies_about_the_value_is_noticed() -> None:
    """The one who sealed it is nobody's proof: the commitment in the ledger is."""
    secret = make_secret(MESH, name="acme", version=1, value=b"right", salt=SALT)
    forged = make_secret(MESH, name="acme", version=1, value=b"wrong", salt=SALT)
    lie = seal_secret(
        MESH, type(secret)(meant=secret.meant, salt=SALT, value=b"wrong"), ANN.public_key
    )
    for sealed in (lie, seal_secret(MESH, forged, ANN.public_key)):
        with pytest.raises(ForgedSecretError):
            opened(sealed, secret.meant)


def test_no_text_of_a_secret_shows_its_value() -> None:
    secret = make_secret(MESH, name="acme", version=1, value=b"hunter2", salt=SALT)
    assert "hunter2" not in f"{secret!r} {secret}"
    assert SALT.hex() not in repr(secret)


@pytest.mark.parametrize("name", ["", ".", "..", "-a", "a/b", "a b", "ä", "a\n", "a" * 65, "/etc"])
def test_a_name_is_a_plain_word(name: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_name(name)
    assert caught.value.code == "bad_secret_name"


def test_a_value_is_neither_empty_nor_too_long() -> None:
    with pytest.raises(InputError) as caught:
        make_secret(MESH, name="a", version=1, value=b"", salt=SALT)
    assert caught.value.code == "empty_secret"
    with pytest.raises(TooLargeError):
        make_secret(MESH, name="a", version=1, value=bytes(MAX_VALUE_BYTES + 1), salt=SALT)
    make_secret(MESH, name="a", version=1, value=bytes(MAX_VALUE_BYTES), salt=SALT)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["name", "version", "commitment", "x"]), inner)
        ),
        max_leaves=6,
    )
)
def test_any_body_is_read_or_refused(body) -> None:
    for read in (meant_in, removed_in):
        try:
            found = read(body)
        except SeipdError:
            continue
        if read is meant_in:
            assert set_body(found) == body
