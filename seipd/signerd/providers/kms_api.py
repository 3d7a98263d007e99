"""What is said to AWS KMS and what it answers, as far as signing with Ed25519 goes. Pure.

Source: https://docs.aws.amazon.com/kms/latest/APIReference/ (CreateKey, CreateAlias, GetPublicKey,
Sign, ScheduleKeyDeletion; the protocol is AWS JSON 1.1).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from enum import Enum
from typing import Any, TypeVar

import msgspec

from services.kernel import canonical
from services.kernel.errors import ConfigError, UnavailableError
from services.kernel.ids import KEY_BYTES, SIGNATURE_BYTES

SERVICE = "kms"
CONTENT_TYPE = "application/x-amz-json-1.1"
TARGET_PREFIX = "TrentService."
KEY_SPEC = "ECC_NIST_EDWARDS25519"
KEY_USAGE = "SIGN_VERIFY"
ALGORITHM = "ED25519_SHA_512"
"""Pure Ed25519 of RFC 8032; ED25519_PH_SHA_512 is another signature."""
MAX_MESSAGE_BYTES = 4096
DELETION_DAYS = 7
MAX_ALIAS_CHARS = 200

_SPKI = bytes.fromhex("302a300506032b6570032100")
"""RFC 8410: what stands before the 32 bytes of an Ed25519 key in its SubjectPublicKeyInfo."""
_REGION = re.compile(r"[a-z]{2}(-[a-z]+){1,3}-[1-9][0-9]?\Z")
_UNSAFE = re.compile(r"[^A-Za-z0-9/-]")
_MAX_SHOWN = 300

S = TypeVar("S", bound=msgspec.Struct)


class Again(Enum):
    """Whether a request that failed may be made again."""

    NEVER = "never"
    IF_REPEATABLE = "if_repeatable"
    """It may have been done: again only where twice is as good as once."""
    ALWAYS = "always"
    """It was not done."""


_THROTTLED = frozenset({"ThrottlingException", "TooManyRequestsException"})
_CREDENTIALS_GONE = frozenset(
    {"ExpiredTokenException", "InvalidClientTokenId", "UnrecognizedClientException"}
)
_BAD_SIGNATURE = frozenset({"InvalidSignatureException", "IncompleteSignatureException"})
_STATUS_THROTTLED, _STATUS_FAULT = 429, 500


class KmsError(UnavailableError):
    """KMS refused or failed; ``kind`` is its own word for it."""

    default_code = "kms_refused"

    def __init__(self, what: str, *, kind: str, again: Again, mend: str = "") -> None:
        code = "kms_refused" if again is Again.NEVER else "kms_unavailable"
        super().__init__(what, code=code, mend=mend)
        self.kind = kind
        self.again = again

    @property
    def credentials_gone(self) -> bool:
        """Whether a newer access key may help."""
        return self.kind in _CREDENTIALS_GONE


class KeyReply(msgspec.Struct, frozen=True):
    """Of GetPublicKey."""

    KeyId: str
    PublicKey: str
    KeySpec: str
    KeyUsage: str
    SigningAlgorithms: list[str]


class SignReply(msgspec.Struct, frozen=True):
    """Of Sign."""

    KeyId: str
    Signature: str
    SigningAlgorithm: str


class _Metadata(msgspec.Struct, frozen=True):
    Arn: str


class CreateReply(msgspec.Struct, frozen=True):
    """Of CreateKey."""

    KeyMetadata: _Metadata


class Empty(msgspec.Struct, frozen=True):
    """Of what answers nothing that matters."""


class _ErrorReply(msgspec.Struct, frozen=True):
    kind: str = msgspec.field(name="__type", default="")
    message: str = ""
    Message: str = ""


def parse_region(text: str) -> str:
    """Check the name of a region.

    Raises:
        ConfigError: ``bad_region``.
    """
    if not _REGION.match(text):
        raise ConfigError(
            f"not an AWS region: {text[:80]!r}",
            code="bad_region",
            mend="write it as eu-central-1",
        )
    return text


def alias_of(prefix: str, handle: str) -> str:
    """Return the alias of a handle: readable, and two handles never have one.

    An alias is made of letters, digits, ``/``, ``_`` and ``-``; any other, and ``_`` itself,
    is written as ``_`` and two hex digits. What gets too long is a hash, after ``_x``.
    """
    name = _UNSAFE.sub(lambda found: f"_{ord(found[0]):02x}", handle)
    if len(prefix) + len(name) > MAX_ALIAS_CHARS:
        name = f"_x{hashlib.sha256(handle.encode()).hexdigest()}"
    return f"alias/{prefix}{name}"


def encode_request(request: dict[str, Any]) -> bytes:
    """Return the body of a request."""
    return canonical.encode(request)


def sign_request(key_id: str, data: bytes) -> dict[str, Any]:
    """Return the request that signs a whole message, not a digest."""
    return {
        "KeyId": key_id,
        "Message": base64.b64encode(data).decode(),
        "MessageType": "RAW",
        "SigningAlgorithm": ALGORITHM,
    }


def create_request(handle: str) -> dict[str, Any]:
    """Return the request that makes a key of one region; what it is for stands in its text."""
    return {
        "Description": f"seipd-signer {handle}",
        "KeySpec": KEY_SPEC,
        "KeyUsage": KEY_USAGE,
        "MultiRegion": False,
        "Origin": "AWS_KMS",
    }


def decode_reply(body: bytes, kind: type[S]) -> S:
    """Return what was answered.

    Raises:
        KmsError: it is not of that form.
    """
    try:
        return msgspec.json.decode(body or b"{}", type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _strange(str(error)) from error


def public_key_of(reply: KeyReply) -> bytes:
    """Return the 32 bytes of the public half.

    Raises:
        ConfigError: ``key_mismatch``: a key of another kind or for another use.
        KmsError: it is not of that form.
    """
    if (
        (reply.KeySpec, reply.KeyUsage) != (KEY_SPEC, KEY_USAGE)
        or ALGORITHM not in reply.SigningAlgorithms
    ):  # fmt: skip
        raise ConfigError(
            f"{reply.KeyId} is a key of {reply.KeySpec} for {reply.KeyUsage}",
            code="key_mismatch",
            mend=f"the alias must name one of {KEY_SPEC} for {KEY_USAGE}",
        )
    data = _decode_base64(reply.PublicKey)
    if len(data) != len(_SPKI) + KEY_BYTES or not data.startswith(_SPKI):
        raise _strange("a public key that is not one of Ed25519")
    return data[len(_SPKI) :]


def signature_of(reply: SignReply, key_id: str) -> bytes:
    """Return the signature, if it says that it is one of that key.

    Raises:
        KmsError: it is not.
    """
    signature = _decode_base64(reply.Signature)
    if (reply.KeyId, reply.SigningAlgorithm) != (key_id, ALGORITHM):
        raise _strange(f"a signature by {reply.KeyId} of {reply.SigningAlgorithm}")
    if len(signature) != SIGNATURE_BYTES:
        raise _strange(f"a signature of {len(signature)} bytes")
    return signature


def error_of(status: int, body: bytes) -> KmsError:
    """Tell what went wrong, and whether to ask again."""
    try:
        reply = msgspec.json.decode(body, type=_ErrorReply)
    except (msgspec.DecodeError, UnicodeDecodeError):
        reply = _ErrorReply()
    kind = reply.kind.rpartition("#")[2] or f"status {status}"
    if kind in _THROTTLED or status == _STATUS_THROTTLED:
        again = Again.ALWAYS
    elif status >= _STATUS_FAULT:
        again = Again.IF_REPEATABLE
    else:
        again = Again.NEVER
    if kind in _BAD_SIGNATURE:
        # Its message may repeat what was sent, a session token included.
        mend = "look at the secret access key, and at this machine's clock"
        return KmsError(f"KMS refuses: {kind}", kind=kind, again=again, mend=mend)
    said = (reply.message or reply.Message)[:_MAX_SHOWN]
    return KmsError(f"KMS refuses: {kind} {said}".rstrip(), kind=kind, again=again)


def _decode_base64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise _strange("bad base64") from error


def _strange(what: str) -> KmsError:
    return KmsError(
        f"KMS answered something else: {what}"[:_MAX_SHOWN], kind="strange", again=Again.NEVER
    )
