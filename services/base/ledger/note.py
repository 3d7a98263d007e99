"""Signed notes (C2SP signed-note): a text with signature lines, by Ed25519 log keys and witnesses.

    <text, lines that end in newline>
    <empty line>
    — <key name> <base64 of key id (4 bytes) and signature>

Two kinds of key are known: 01, plain Ed25519 over the text, and 04, cosignature/v1 (C2SP
tlog-cosignature), whose signature begins with eight bytes of time in seconds. Signatures of
unknown keys are ignored, a bad one of a known key spoils the whole note.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import TYPE_CHECKING

from services.base.crypto.signatures import BadSignatureError, verify
from services.kernel.errors import InputError, WireError
from services.kernel.ids import KEY_BYTES, SIGNATURE_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from services.base.crypto.signatures import Signer

MAX_NOTE_BYTES = 64 * 1024
MAX_SIGNATURES = 100
KEY_ID_BYTES = 4
NON_CANONICAL = "non_canonical"

_TIME_BYTES = 8
_MAX_TIME_S = (1 << 63) - 1
_DASH = "— "
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f]")


class NoteError(WireError):
    """Bytes that are not a signed note, or a key that is not one."""

    default_code = "bad_note"


class KeyKind(IntEnum):
    """The byte that says what a key signs with."""

    ED25519 = 0x01
    COSIGNATURE_V1 = 0x04


@dataclass(frozen=True, slots=True, kw_only=True)
class NoteSignature:
    """One signature line."""

    name: str
    key_id: bytes
    signature: bytes

    def line(self) -> str:
        """Return the line as it stands in a note, with its newline."""
        blob = base64.b64encode(self.key_id + self.signature).decode("ascii")
        return f"{_DASH}{self.name} {blob}\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """A text and its signature lines; none of them is checked yet."""

    text: str
    signatures: tuple[NoteSignature, ...]

    def encode(self) -> bytes:
        """Return the bytes of the note."""
        return encode_note(self.text, self.signatures)


@dataclass(frozen=True, slots=True, kw_only=True)
class NoteVerifier:
    """A public key by its name: what a verifier key line (vkey) says.

    Raises:
        NoteError: a name with a space or a plus, or a key that has not 32 bytes.
    """

    name: str
    public_key: bytes
    kind: KeyKind = KeyKind.ED25519
    earlier_names: tuple[str, ...] = ()
    """What the same key was called before; a checkpoint's origin of then is as good."""

    def __post_init__(self) -> None:
        check_name(self.name)
        if len(self.public_key) != KEY_BYTES:
            raise NoteError(f"the key of {self.name} has not {KEY_BYTES} bytes")

    @property
    def key_id(self) -> bytes:
        """The four bytes that name this key beside its name."""
        material = self.name.encode() + b"\n" + bytes([self.kind]) + self.public_key
        return hashlib.sha256(material).digest()[:KEY_ID_BYTES]

    @property
    def vkey(self) -> str:
        """The key as one line: name, key id and key."""
        key = base64.b64encode(bytes([self.kind]) + self.public_key).decode("ascii")
        return f"{self.name}+{self.key_id.hex()}+{key}"

    def named(self, name: str) -> NoteVerifier:
        """Return the key by the name that it had then, if it ever had that one."""
        return replace(self, name=name) if name in self.earlier_names else self

    def verify(self, text: str, signature: bytes) -> bool:
        """Say whether the signature (without key id) over a text is good."""
        if self.kind is KeyKind.ED25519:
            return verify(self.public_key, text.encode(), signature)
        if len(signature) != _TIME_BYTES + SIGNATURE_BYTES:
            return False
        time_s = int.from_bytes(signature[:_TIME_BYTES], "big")
        if time_s > _MAX_TIME_S:
            return False
        return verify(self.public_key, cosignature_input(text, time_s), signature[_TIME_BYTES:])


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedNote:
    """A note of which at least one signature is good; lines of unknown keys are told apart."""

    text: str
    verified: tuple[NoteSignature, ...]
    unverified: tuple[NoteSignature, ...]


def parse_vkey(text: str) -> NoteVerifier:
    """Parse a verifier key line.

    Raises:
        NoteError: malformed, of an unknown kind, or its key id is not that of name and key.
    """
    parts = text.split("+", 2)  # base64 may hold a plus: only the first two divide
    if len(parts) != 3:
        raise NoteError("a verifier key is name+id+key")
    name, key_id, key_text = parts
    raw = decode_base64(key_text)
    try:
        kind = KeyKind(raw[0])
    except (ValueError, IndexError) as error:
        raise NoteError("a verifier key of unknown kind") from error
    verifier = NoteVerifier(name=name, public_key=raw[1:], kind=kind)
    if verifier.key_id.hex() != key_id:
        raise NoteError("the verifier key's id is not that of its name and key")
    return verifier


def parse_note(data: bytes) -> Note:
    """Parse a signed note.

    Raises:
        NoteError: any departure from the format.
    """
    if len(data) > MAX_NOTE_BYTES:
        raise NoteError(f"a note has at most {MAX_NOTE_BYTES} bytes")
    try:
        whole = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise NoteError("a note is UTF-8") from error
    if _CONTROL.search(whole):
        raise NoteError("a note holds no control characters")
    text, gap, lines = whole.rpartition("\n\n")
    if not gap or not lines.endswith("\n"):
        raise NoteError("a note is a text, an empty line and signature lines")
    found = lines[:-1].split("\n")
    if len(found) > MAX_SIGNATURES:
        raise NoteError(f"a note has at most {MAX_SIGNATURES} signatures")
    return Note(text=text + "\n", signatures=tuple(parse_signature_line(line) for line in found))


def parse_signature_line(line: str) -> NoteSignature:
    """Parse one signature line, without its newline.

    Raises:
        NoteError: malformed.
    """
    parts = line.removeprefix(_DASH).split(" ")
    if not line.startswith(_DASH) or len(parts) != 2:
        raise NoteError("a signature line is a dash, a name and base64")
    check_name(parts[0])
    blob = decode_base64(parts[1])
    if len(blob) <= KEY_ID_BYTES:
        raise NoteError("a signature line without a signature")
    return NoteSignature(name=parts[0], key_id=blob[:KEY_ID_BYTES], signature=blob[KEY_ID_BYTES:])


def open_note(data: bytes, verifiers: Iterable[NoteVerifier]) -> OpenedNote:
    """Parse a note and check it against the keys known.

    Raises:
        NoteError: malformed.
        InputError: ``ambiguous_key``: two of the keys have one name and id, and the note uses it.
        BadSignatureError: a known key's signature is bad, or no key is known.
    """
    note = parse_note(data)
    known = tuple(verifiers)
    verified: list[NoteSignature] = []
    unverified: list[NoteSignature] = []
    seen: set[tuple[str, bytes]] = set()
    for one in note.signatures:
        place = (one.name, one.key_id)
        matching = [key for key in known if (key.name, key.key_id) == place]
        if len(matching) > 1:
            raise InputError(f"two keys are {one.name}+{one.key_id.hex()}", code="ambiguous_key")
        if not matching:
            unverified.append(one)
        elif place not in seen:
            if not matching[0].verify(note.text, one.signature):
                raise BadSignatureError(f"the signature of {one.name} is not good")
            verified.append(one)
            seen.add(place)
    if not verified:
        raise BadSignatureError("the note has no signature by a known key")
    return OpenedNote(text=note.text, verified=tuple(verified), unverified=tuple(unverified))


def encode_note(text: str, signatures: Sequence[NoteSignature]) -> bytes:
    """Return the bytes of a note.

    Raises:
        NoteError: a text that does not end in newline, or no signature.
    """
    if not text.endswith("\n") or not signatures:
        raise NoteError("a note has a text that ends in newline, and a signature")
    return (text + "\n" + "".join(one.line() for one in signatures)).encode()


def sign_text(text: str, *, name: str, signer: Signer) -> NoteSignature:
    """Return the plain Ed25519 signature of a text under a key name.

    Raises:
        NoteError: a text that is not that of a note, or a name that is not one.
    """
    if not text.endswith("\n") or _CONTROL.search(text):
        raise NoteError("a note's text ends in newline and holds no control characters")
    key = NoteVerifier(name=name, public_key=signer.public_key)
    return NoteSignature(name=name, key_id=key.key_id, signature=signer.sign(text.encode()))


def cosign_text(text: str, *, name: str, signer: Signer, time_s: int) -> NoteSignature:
    """Return a cosignature/v1 over a checkpoint's text.

    Raises:
        InputError: a time before 1970 or beyond 63 bits.
        NoteError: a name that is not one.
    """
    if not 0 <= time_s <= _MAX_TIME_S:
        raise InputError("a cosignature's time is out of range")
    key = NoteVerifier(name=name, public_key=signer.public_key, kind=KeyKind.COSIGNATURE_V1)
    signature = signer.sign(cosignature_input(text, time_s))
    return NoteSignature(
        name=name, key_id=key.key_id, signature=time_s.to_bytes(_TIME_BYTES, "big") + signature
    )


def cosignature_time_s(signature: NoteSignature) -> int:
    """Return the time that a cosignature/v1 line holds.

    Raises:
        NoteError: it has not the length of one.
    """
    if len(signature.signature) != _TIME_BYTES + SIGNATURE_BYTES:
        raise NoteError("not a cosignature/v1")
    return int.from_bytes(signature.signature[:_TIME_BYTES], "big")


def cosignature_input(text: str, time_s: int) -> bytes:
    """Return what a witness signs (C2SP tlog-cosignature, cosignature/v1)."""
    return f"cosignature/v1\ntime {time_s}\n{text}".encode()


def check_name(name: str) -> None:
    """Check a key name.

    Raises:
        NoteError: empty, or with a space, a plus or a control character.
    """
    if not name or "+" in name or any(char.isspace() or char < " " for char in name):
        raise NoteError("a key name is not empty and has no space and no plus")


def decode_base64(text: str) -> bytes:
    """Decode standard base64 in its only spelling.

    Raises:
        NoteError: any other spelling.
    """
    try:
        data = base64.b64decode(text.encode("ascii"), validate=True)
    except (ValueError, binascii.Error) as error:
        raise NoteError("not base64") from error
    if base64.b64encode(data).decode("ascii") != text:
        raise NoteError("base64 in a spelling that is not canonical", code=NON_CANONICAL)
    return data
