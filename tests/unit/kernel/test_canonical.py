"""The one JSON loader and encoder, against RFC 8785's vectors, a plain reference, and strangers."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.kernel import canonical
from services.kernel.canonical import MAX_INTEGER, BadJsonError, NotCanonicalError
from services.kernel.errors import WireError
from tests.vectors.locate import vectors_dir

WITH_FLOATS = {
    "structures": [(b"56.0", b"56")],
    "values": [
        (b"[333333333.33333329, 1E30, 4.50, 2e-3, 0.000000000000000000000000001]", b"[3, -1, 0]")
    ],
}
VALUES_OUTPUT = (b"[333333333.3333333,1e+30,4.5,0.002,1e-27]", b"[3,-1,0]")

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-MAX_INTEGER, MAX_INTEGER) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=20,
)


def vector(name: str) -> tuple[bytes, bytes]:
    folder = vectors_dir("jcs")
    hexes = (folder / "outhex" / f"{name}.txt").read_text()
    return (folder / "input" / f"{name}.json").read_bytes(), bytes.fromhex(hexes)


def reference(value: object) -> bytes:
    """RFC 8785 for integers, written as the text reads."""
    match value:
        case dict():
            pairs = sorted(value.items(), key=lambda pair: pair[0].encode("utf-16-be"))
            inner = (reference(key) + b":" + reference(item) for key, item in pairs)
            return b"{" + b",".join(inner) + b"}"
        case list():
            return b"[" + b",".join(reference(item) for item in value) + b"]"
        case _:
            return json.dumps(value, ensure_ascii=False).encode()


@pytest.mark.parametrize("name", ["arrays", "french", "unicode", "weird"])
def test_jcs_vectors_agree_byte_for_byte(name: str):
    source, expected = vector(name)
    assert canonical.encode(canonical.decode(source)) == expected
    assert canonical.decode_canonical(expected) == canonical.decode(source)
    with pytest.raises(NotCanonicalError):
        canonical.decode_canonical(source)


@pytest.mark.parametrize("name", WITH_FLOATS)
def test_jcs_vectors_with_floats_are_refused_and_agree_without_them(name: str):
    source, expected = vector(name)
    with pytest.raises(BadJsonError):
        canonical.decode(source)
    for number, integer in WITH_FLOATS[name]:
        assert number in source
        source = source.replace(number, integer)
    assert canonical.encode(canonical.decode(source)) == expected.replace(*VALUES_OUTPUT)


def test_every_jcs_vector_is_used():
    names = {path.stem for path in (vectors_dir("jcs") / "input").iterdir()}
    assert names == {"arrays", "french", "unicode", "weird", *WITH_FLOATS}


@given(values)
def test_encoding_agrees_with_the_reference_and_comes_back(value: object):
    data = canonical.encode(value)
    assert data == reference(value)
    assert canonical.decode_canonical(data) == value
    assert canonical.decode(data) == value


def test_keys_are_ordered_by_utf_16_and_not_by_code_point():
    assert canonical.encode({"\ufb33": 1, "\U0001f602": 2}) == '{"😂":2,"\ufb33":1}'.encode()
    assert canonical.encode({"a": {"\ufb33": {"b": 1, "a": 2}}}) == (
        '{"a":{"\ufb33":{"a":2,"b":1}}}'.encode()
    )


@given(st.dictionaries(texts, st.integers(0, 9), min_size=1, max_size=4))
def test_any_other_spelling_is_not_canonical(value: dict[str, int]):
    data = canonical.encode(value)
    for other in (b" " + data, data + b"\n", data.replace(b":", b": "), b"\xef\xbb\xbf" + data):
        if other != data:
            with pytest.raises(WireError):
                canonical.decode_canonical(other)


@pytest.mark.parametrize(
    "data",
    [
        b'{"b":1,"a":2}',
        b'{"a":1,"a":1}',
        b'{"a":1,"a":2}',
        b'"\\u0041"',
        b'"\\/"',
        b"-0",
        b'"\\u000A"',
        '{"\ufb33":1,"😂":2}'.encode(),
    ],
)
def test_non_canonical_json_is_named_so(data: bytes):
    with pytest.raises(NotCanonicalError) as caught:
        canonical.decode_canonical(data)
    assert caught.value.code == "non_canonical"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b" ",
        b"{",
        b"nope",
        b"{'a':1}",
        b"[1,]",
        b"1 2",
        b"\xff",
        b"\xef\xbb\xbf{}",
        '{"a":1}'.encode("utf-16"),
        b"NaN",
        b"Infinity",
        b"-Infinity",
        b"1.0",
        b"1e2",
        b"1e999",
        b"9007199254740992",
        b"-9007199254740992",
        b"1" * 5000,
        b"01",
        b'"\x01"',
        b'{"a":1,"a":2}',
        b'{"x":{"a":1,"b":2,"a":1}}',
        b'{"a":1}\0',
    ],
)
def test_pub_01_02_03_what_is_not_our_json_is_refused(data: bytes):
    with pytest.raises(BadJsonError) as caught:
        canonical.decode(data)
    assert caught.value.code == "bad_json"
    with pytest.raises(WireError):
        canonical.decode_canonical(data)


@pytest.mark.parametrize(
    "data",
    [
        b"[" * 33 + b"]" * 33,
        b"[" * 100_000,
        b'{"a":' * 33 + b"1" + b"}" * 33,
        b'{"a":' * 100_000,
        b'["[",' * 33,
        b'["\\"[",' + b"[" * 32 + b"]" * 33,
    ],
)
def test_pub_04_deep_nesting_is_refused_before_it_is_parsed(data: bytes):
    for decode in (canonical.decode, canonical.decode_canonical):
        with pytest.raises(BadJsonError, match="deeper"):
            decode(data)


def test_pub_04_thirty_two_levels_and_brackets_in_strings_pass():
    deep = b"[" * 32 + b"]" * 32
    assert canonical.encode(canonical.decode_canonical(deep)) == deep
    text = canonical.encode(["[" * 100 + '"' + "{" * 100 + "\\"])
    assert canonical.decode_canonical(text) == canonical.decode(text)
    value: list = []
    for _ in range(32):
        value = [value]
    with pytest.raises(BadJsonError, match="deeper"):
        canonical.encode(value)


@pytest.mark.parametrize("data", [b'"\\ud800"', b'{"\\udc00":1}', b'["a\\ud83dz"]'])
def test_pub_06_a_lone_surrogate_is_refused(data: bytes):
    with pytest.raises(BadJsonError) as caught:
        canonical.decode(data)
    assert caught.value.code == "bad_field"
    with pytest.raises(WireError):
        canonical.decode_canonical(data)


@pytest.mark.parametrize(
    "value",
    [
        1.0,
        float("nan"),
        MAX_INTEGER + 1,
        -MAX_INTEGER - 1,
        "\ud800",
        {"\ud800": 1},
        {1: 2},
        {None: 1},
        b"bytes",
        (1, 2),
        {1},
        object(),
        [1, {"a": [0.5]}],
    ],
)
def test_what_has_no_canonical_form_is_not_encoded(value: object):
    with pytest.raises(BadJsonError):
        canonical.encode(value)  # type: ignore[arg-type]


def test_an_object_is_asked_for():
    assert canonical.decode_object(b' {"a": 1} ') == {"a": 1}
    for data in (b"[]", b"1", b"null", b'"{}"'):
        with pytest.raises(BadJsonError, match="object"):
            canonical.decode_object(data)


@given(
    st.binary(max_size=80) | st.text('{}[]",:\\u0d8 19.eE-truefalsn', max_size=40).map(str.encode)
)
def test_any_bytes_give_a_value_or_wire_error(data: bytes):
    for decode in (canonical.decode, canonical.decode_canonical):
        try:
            value = decode(data)
        except WireError:
            continue
        assert canonical.decode_canonical(canonical.encode(value)) == value


@given(st.binary(max_size=40) | values.map(canonical.encode))
def test_the_two_loaders_agree_on_what_is_canonical(data: bytes):
    try:
        value = canonical.decode_canonical(data)
    except WireError:
        return
    assert canonical.decode(data) == value
