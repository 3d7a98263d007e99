"""Notes, checkpoints, tiles, proofs and journals as an attacker sends them."""

import base64
import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.base.crypto.signatures import BadSignatureError, SigningKey
from services.base.ledger.checkpoint import (
    Checkpoint,
    CheckpointError,
    cosign,
    parse_checkpoint,
    verify_checkpoint,
    verify_cosignature,
)
from services.base.ledger.journal import encode_frame, scan_journal
from services.base.ledger.merkle import EMPTY_ROOT
from services.base.ledger.note import (
    KeyKind,
    NoteError,
    NoteSignature,
    NoteVerifier,
    encode_note,
    open_note,
    parse_note,
    parse_vkey,
    sign_text,
)
from services.base.ledger.proof import ProofFormatError, TlogProof, parse_proof
from services.base.ledger.tiles import (
    TileError,
    TileRef,
    decode_bundle,
    encode_bundle,
    parse_tile_path,
    tiles_between,
)
from services.kernel.errors import CorruptError, InputError, TooLargeError
from tests.unit.base_ledger_log.log_kit import KEY, ORIGIN, VERIFIER, signed

TEXT = f"{ORIGIN}\n5\n{base64.b64encode(bytes(32)).decode()}\n"
GOOD = signed(5, bytes(32))
WITNESS = SigningKey(b"w" * 32)
WITNESS_KEY = NoteVerifier(
    name="witness", public_key=WITNESS.public_key, kind=KeyKind.COSIGNATURE_V1
)


def with_lines(*lines):
    return encode_note(TEXT, lines)


def line(name, blob):
    return NoteSignature(name=name, key_id=blob[:4], signature=blob[4:])


def test_led_08_the_good_note_is_accepted():
    assert verify_checkpoint(GOOD, VERIFIER, ORIGIN).size == 5


@pytest.mark.parametrize(
    "data",
    [
        TEXT.encode() + b"\n",
        GOOD[:-1],
        GOOD.replace(b"\n", b"\r\n"),
        GOOD.replace(b"seipd/", b"seipd\x01", 1),
        GOOD.replace(b"\n\n", b"\n"),
        GOOD.replace("— ".encode(), b"- "),
        GOOD.replace("— ".encode(), "—  ".encode()),
        GOOD + b"\n",
        GOOD + b"junk\n",
        GOOD.replace("— seipd".encode(), "— se+pd".encode()),
        GOOD.replace("— seipd".encode(), "— se\u00a0pd".encode()),
        b"\xff" + GOOD,
        b"x" * 70_000,
    ],
)
def test_led_08_a_malformed_note_is_refused(data):
    with pytest.raises(NoteError):
        open_note(data, [VERIFIER])


def test_led_08_a_known_key_with_a_bad_signature_spoils_the_note():
    witness = line("witness", WITNESS_KEY.key_id + bytes(72))
    good = sign_text(TEXT, name=ORIGIN, signer=KEY)
    assert len(open_note(with_lines(good, witness), [VERIFIER]).unverified) == 1
    with pytest.raises(BadSignatureError):
        open_note(with_lines(good, witness), [VERIFIER, WITNESS_KEY])


def test_led_08_a_note_that_no_known_key_signed_is_refused():
    with pytest.raises(BadSignatureError):
        open_note(GOOD, [NoteVerifier(name=ORIGIN, public_key=WITNESS.public_key)])


def test_led_08_seventeen_signatures_are_read_and_a_hundred_and_one_refused():
    good = sign_text(TEXT, name=ORIGIN, signer=KEY)
    others = [line(f"other{i}", bytes(68)) for i in range(100)]
    assert len(open_note(with_lines(good, *others[:16]), [VERIFIER]).unverified) == 16
    with pytest.raises(NoteError):
        open_note(with_lines(good, *others), [VERIFIER])


def test_led_08_another_name_with_the_key_id_of_a_known_key_is_an_unknown_key():
    good = sign_text(TEXT, name=ORIGIN, signer=KEY)
    impostor = line("impostor", VERIFIER.key_id + bytes(64))
    assert open_note(with_lines(impostor, good), [VERIFIER]).unverified[0].name == "impostor"


def test_led_08_two_keys_of_one_name_and_id_are_ambiguous():
    with pytest.raises(InputError) as caught:
        open_note(GOOD, [VERIFIER, VERIFIER])
    assert caught.value.code == "ambiguous_key"


@pytest.mark.parametrize("name", ["", "a b", "a+b", "a\u2003b", "a\nb", "a\x00b"])
def test_led_08_a_key_name_without_spaces_and_plus(name):
    with pytest.raises(NoteError):
        NoteVerifier(name=name, public_key=bytes(32))


@pytest.mark.parametrize("key", ["", "a", "a+b", f"{ORIGIN}+00000000+{'A' * 44}", "é+1+é"])
def test_a_verifier_key_that_is_none(key):
    with pytest.raises(NoteError):
        parse_vkey(key)


@pytest.mark.parametrize("size", ["05", "+5", " 5", "5 ", "-5", "5_0", "\u0665", "", "1e3", "0x5"])
def test_a_size_in_another_spelling(size):
    with pytest.raises(CheckpointError):
        parse_checkpoint(TEXT.replace("\n5\n", f"\n{size}\n"))


@pytest.mark.parametrize(
    "text",
    [
        TEXT[:-1],
        TEXT + "\n",
        "\n" + TEXT.split("\n", 1)[1],
        TEXT.replace("AAAA=\n", "AAAB=\n"),
        TEXT.replace("A" * 8, "", 1),
        TEXT.replace("\n5\n", "\n0\n"),
        f"{ORIGIN}\n5\n",
    ],
)
def test_a_checkpoint_in_another_form(text):
    with pytest.raises(CheckpointError):
        parse_checkpoint(text)


def test_extension_lines_are_kept():
    checkpoint = parse_checkpoint(TEXT + "one\ntwo\n")
    assert checkpoint.extensions == ("one", "two")
    assert checkpoint.text() == TEXT + "one\ntwo\n"
    with pytest.raises(CheckpointError):
        Checkpoint(origin="a\nb", size=0, root=EMPTY_ROOT).text()


def test_a_witness_signs_text_and_time():
    cosigned = GOOD + cosign(TEXT, name="witness", signer=WITNESS, time_s=1_700_000_000)
    assert verify_cosignature(cosigned, WITNESS_KEY) == 1_700_000_000
    assert verify_checkpoint(cosigned, VERIFIER, ORIGIN).size == 5
    with pytest.raises(BadSignatureError):
        verify_cosignature(cosigned.replace(b"\n5\n", b"\n6\n"), WITNESS_KEY)
    for time_s in (-1, 1 << 63):
        with pytest.raises(InputError):
            cosign(TEXT, name="witness", signer=WITNESS, time_s=time_s)
    with pytest.raises(CheckpointError):
        cosign("not a checkpoint\n", name="witness", signer=WITNESS, time_s=1)


def test_a_plain_key_does_not_pass_as_a_witness():
    with pytest.raises(NoteError):
        verify_cosignature(GOOD, VERIFIER)


@pytest.mark.parametrize(
    "path",
    [
        "tile/0/x001/../000",
        "tile/0/../0/000",
        "tile/0/1",
        "tile/0/01",
        "tile/0/x000/001",
        "tile/00/001",
        "tile/64/001",
        "tile/0/001/",
        "/tile/0/001",
        "tile/0/001.p/0",
        "tile/0/001.p/01",
        "tile/0/001.p/256",
        "tile/0/001.p/999",
        "tile/0/001\n",
        "tile/0/\u0660\u0660\u0661",
        "tile/entries",
        "tile//001",
        "checkpoint",
        "",
    ],
)
def test_led_19_a_path_in_another_spelling_is_refused(path):
    with pytest.raises(TileError):
        parse_tile_path(path)


@given(st.one_of(st.none(), st.integers(0, 63)), st.integers(0, 10**18 - 1), st.integers(1, 256))
def test_a_path_reads_as_it_was_written(level, index, width):
    ref = TileRef(level=level, index=index, width=width)
    assert parse_tile_path(ref.path()) == ref


@settings(deadline=None)
@given(st.integers(0, 200_000), st.integers(0, 200_000))
def test_tiles_of_a_growth_and_of_its_beginning_make_the_whole(one, two):
    old, new = sorted((one, two))
    whole = set(tiles_between(0, new))
    added = set(tiles_between(old, new))
    assert added <= whole
    assert whole - added <= set(tiles_between(0, old))


@given(st.lists(st.binary(max_size=300), max_size=20))
def test_a_bundle_reads_as_it_was_written(found):
    data = encode_bundle(found)
    assert decode_bundle(data, len(found)) == found
    with pytest.raises(TileError):
        decode_bundle(data + b"\0", len(found))
    with pytest.raises(TileError):
        decode_bundle(data, len(found) + 1)


def test_an_entry_of_64_kib_is_too_large():
    assert len(encode_bundle([bytes(65535)])) == 65537
    with pytest.raises(TooLargeError):
        encode_bundle([bytes(65536)])


@given(st.binary(max_size=300), st.integers(0, 256))
def test_any_bytes_are_a_bundle_or_an_error(data, count):
    with contextlib.suppress(TileError):
        assert encode_bundle(decode_bundle(data, count)) == data


@given(st.one_of(st.binary(max_size=200), st.text(max_size=200).map(str.encode)))
def test_any_bytes_are_a_note_or_an_error(data):
    for candidate in (data, GOOD[: len(data)] + data, data + GOOD):
        try:
            assert parse_note(candidate).encode() == candidate
        except NoteError:
            continue


@given(st.binary(max_size=200))
def test_any_bytes_are_a_proof_or_an_error(data):
    good = TlogProof(index=3, hashes=(bytes(32),), checkpoint=b"x\n", extra=b"e").encode()
    for candidate in (data, good[: len(data)] + data, good + data):
        try:
            assert parse_proof(candidate).encode() == candidate
        except ProofFormatError:
            continue


@given(st.lists(st.lists(st.binary(max_size=40), min_size=1, max_size=5), max_size=4))
def test_a_journal_reads_as_it_was_written(groups):
    data, first, want = b"", 0, []
    for group in groups:
        data += encode_frame(first, group, b"checkpoint")
        want.append((first, tuple(group), b"checkpoint"))
        first += len(group)
    assert [(one.first, one.entries, one.checkpoint) for one in scan_journal(data)] == want


@given(st.integers(0, 2000))
def test_a_journal_cut_short_loses_only_its_last_frame(cut):
    one, two = encode_frame(0, [b"a" * 300], b"cp1\n"), encode_frame(1, [b"b" * 300], b"cp2\n")
    data = (one + two)[:cut]
    assert len(scan_journal(data)) == (cut >= len(one)) + (cut >= len(one + two))


def test_a_last_frame_of_which_a_block_never_reached_the_disk_is_left_out():
    one, two = encode_frame(0, [b"a" * 300], b"cp1\n"), encode_frame(1, [b"b" * 9000], b"cp2\n")
    data = bytearray(one + two)
    data[4096:8192] = bytes(4096)
    assert [frame.first for frame in scan_journal(bytes(data))] == [0]
    header_lost = one + bytes(4096 - len(one)) + (one + two)[4096:]
    assert [frame.first for frame in scan_journal(header_lost)] == [0]


def test_led_01_a_changed_byte_in_any_frame_of_a_journal_is_damage():
    data = encode_frame(0, [b"a" * 50], b"cp1\n") + encode_frame(1, [b"b" * 50], b"cp2\n")
    for at in range(len(data)):
        bad = bytearray(data)
        bad[at] ^= 0x01
        with pytest.raises(CorruptError) as caught:
            scan_journal(bytes(bad))
        assert caught.value.path == "journal"
