"""Keys in a hardware token, reached through the PKCS#11 library of its maker.

The library is loaded once and used by one thread with one session. A token counts wrong PINs and
locks, so a refused PIN is never tried a second time by one process. The token is found by its
label and a key by its own, never by the number of a slot: another reader plugged in changes that.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import pkcs11
from pkcs11 import exceptions as token_errors

from seipd.signerd.providers.base import require_length
from seipd.signerd.providers.worker import Worker
from services.kernel.errors import ConfigError, NotFoundError, SeipdError, UnavailableError
from services.kernel.ids import KEY_BYTES
from services.kernel.signing import MAX_SIGNED_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

logger = logging.getLogger(__name__)

SIGN_WAIT_S = 3.7
"""Below the time that the signer waits for a provider: the log shall say what it was."""
OPEN_WAIT_S = 10.0
GENERATE_WAIT_S = 30.0

_ED25519_OID = bytes.fromhex("06032b6570")
_ED25519_NAME = b"\x13\x0cedwards25519"
ED25519_PARAMS = frozenset({_ED25519_OID, _ED25519_NAME})
"""CKA_EC_PARAMS: the object identifier of RFC 8410, or the name, as tokens of either kind say."""
_OCTET_STRING = b"\x04\x20"
_ID_BYTES = 16

_GONE = (
    token_errors.DeviceError,
    token_errors.DeviceRemoved,
    token_errors.KeyHandleInvalid,
    token_errors.ObjectHandleInvalid,
    token_errors.SessionClosed,
    token_errors.SessionHandleInvalid,
    token_errors.TokenNotPresent,
    token_errors.TokenNotRecognised,
    token_errors.UserNotLoggedIn,
)
"""The session is lost, with the token or without: a new one may do."""
_PIN_REFUSED = (
    token_errors.ArgumentsBad,
    token_errors.PinIncorrect,
    token_errors.PinInvalid,
    token_errors.PinLenRange,
)
_READ_ONLY = (token_errors.SessionReadOnly, token_errors.TokenWriteProtected)
_NO_ED25519 = (token_errors.DomainParamsInvalid, token_errors.MechanismInvalid)


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenPlace:
    """Which library, which token, and its PIN."""

    module: str
    token_label: str
    pin: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pair:
    public_key: bytes
    private: Any


class Pkcs11Provider:
    """One key pair a handle, which is its label; satisfies KeyProvider.

    Args:
        place: the token.
        load: what makes the library of its path; python-pkcs11's own.
        sign_wait_s: how long a caller waits for a signature.
    """

    in_memory: ClassVar[bool] = False
    max_bytes: ClassVar[int] = MAX_SIGNED_BYTES

    def __init__(
        self,
        place: TokenPlace,
        *,
        load: Callable[[str], Any] = pkcs11.lib,
        sign_wait_s: float = SIGN_WAIT_S,
    ) -> None:
        self._place = place
        self._load = load
        self._sign_wait_s = sign_wait_s
        self._worker = Worker("PKCS#11 token")
        # Of the worker's thread alone.
        self._session: Any = None
        self._open: dict[str, _Pair] = {}
        self._refused: SeipdError | None = None

    def generate(self, handle: str) -> bytes:
        """Make the key pair of a handle inside the token, unless it is there.

        Raises:
            ConfigError: ``pin_wrong`` and the like; ``token_no_ed25519``, ``token_read_only``.
            UnavailableError: ``token_missing``, ``token_failed``, ``provider_hangs``.
        """
        return self._do(lambda: self._generated(handle), wait_s=GENERATE_WAIT_S).public_key

    def public_key(self, handle: str) -> bytes:
        """Find a key pair and return its public half.

        Raises:
            NotFoundError: ``key_unknown``.
            ConfigError: ``pin_wrong`` and the like; ``key_ambiguous``, ``key_extractable``.
            UnavailableError: ``token_missing``, ``token_failed``, ``provider_hangs``.
        """
        return self._do(lambda: self._pair(handle), wait_s=OPEN_WAIT_S).public_key

    def sign(self, handle: str, data: bytes) -> bytes:
        """Return the 64 bytes of an Ed25519 signature, made in the token.

        Raises:
            InputError: ``message_too_long``.
            NotFoundError: ``key_unknown``.
            UnavailableError: ``token_missing``, ``token_failed``, ``provider_hangs``.
        """
        require_length(data, self.max_bytes)

        def signed() -> bytes:
            signature: bytes = self._pair(handle).private.sign(
                data, mechanism=pkcs11.Mechanism.EDDSA
            )
            return signature

        return self._do(signed, wait_s=self._sign_wait_s)

    def destroy(self, handle: str) -> None:
        """Leave it: what goes from a token is for its owner to say."""

    def close(self) -> None:
        """Log out, unless the token hangs; may be called twice."""
        with contextlib.suppress(UnavailableError):
            self._worker.call(self._forget, wait_s=self._sign_wait_s)
        self._worker.close()

    def _do(self, work: Callable[[], T], *, wait_s: float) -> T:
        return self._worker.call(lambda: self._tried(work), wait_s=wait_s)

    def _tried(self, work: Callable[[], T]) -> T:
        """Do something with the token; where the session was lost, once more with a new one."""
        try:
            try:
                return work()
            except _GONE as error:
                logger.warning("the token's session is lost: %s", type(error).__name__)
                self._forget()
                return work()
        except token_errors.PKCS11Error as error:
            raise _error_of(error) from error

    def _pair(self, handle: str) -> _Pair:
        if handle not in self._open:
            session = self._logged_in()
            try:
                private = _found(session, handle, pkcs11.ObjectClass.PRIVATE_KEY)
                public = _found(session, handle, pkcs11.ObjectClass.PUBLIC_KEY)
            except token_errors.NoSuchKey as error:
                raise NotFoundError(
                    f"the token holds no Ed25519 key pair labelled {handle}", code="key_unknown"
                ) from error
            except token_errors.MultipleObjectsReturned as error:
                raise ConfigError(
                    f"the token holds several keys labelled {handle}",
                    code="key_ambiguous",
                    mend="remove or rename all but one with the token's own tool",
                ) from error
            _require_kept_inside(private, handle)
            self._open[handle] = _Pair(public_key=_point_of(public), private=private)
        return self._open[handle]

    def _generated(self, handle: str) -> _Pair:
        try:
            return self._pair(handle)
        except NotFoundError:
            session = self._logged_in(writable=True)
        attribute = pkcs11.Attribute
        parameters = session.create_domain_parameters(
            pkcs11.KeyType.EC_EDWARDS, {attribute.EC_PARAMS: _ED25519_OID}, local=True
        )
        parameters.generate_keypair(
            mechanism=pkcs11.Mechanism.EC_EDWARDS_KEY_PAIR_GEN,
            store=True,
            label=handle,
            id=hashlib.sha256(handle.encode()).digest()[:_ID_BYTES],
            private_template={
                attribute.SENSITIVE: True,
                attribute.EXTRACTABLE: False,
                attribute.SIGN: True,
                attribute.DERIVE: False,
            },
        )
        # Found as after a restart: a key that is not there again is noticed now.
        return self._pair(handle)

    def _logged_in(self, *, writable: bool = False) -> Any:  # noqa: ANN401 (of a C extension)
        if self._session is not None and (self._session.rw or not writable):
            return self._session
        self._forget()
        if self._refused is not None:
            raise type(self._refused)(
                str(self._refused), code=self._refused.code, mend=self._refused.mend
            )
        try:
            self._session = self._login(writable=writable)
        except ConfigError as error:
            self._refused = error
            raise
        return self._session

    def _login(self, *, writable: bool) -> Any:  # noqa: ANN401 (of a C extension)
        token = self._token()
        _require_tries_left(token.flags)
        try:
            return token.open(rw=writable, user_pin=self._place.pin)
        except token_errors.UserAlreadyLoggedIn:
            return token.open(rw=writable)
        except token_errors.PinLocked as error:
            raise _locked() from error
        except _PIN_REFUSED as error:
            raise ConfigError(
                f"the token {self._place.token_label} refuses the PIN",
                code="pin_wrong",
                mend="correct the PIN file, then start again: each start is one try of those"
                " that the token allows",
            ) from error

    def _token(self) -> Any:  # noqa: ANN401 (of a C extension)
        place = self._place
        try:
            library = self._load(place.module)
        except token_errors.PKCS11Error as error:
            raise ConfigError(
                f"the PKCS#11 library does not load: {error}",
                code="bad_module",
                mend="give the path of the token's library, for example"
                " /usr/lib/softhsm/libsofthsm2.so",
            ) from error
        try:
            return library.get_token(token_label=place.token_label)
        except token_errors.NoSuchToken as error:
            raise UnavailableError(
                f"there is no token labelled {place.token_label}",
                code="token_missing",
                mend="plug it in; pkcs11-tool --list-slots names those that are there",
            ) from error
        except token_errors.MultipleTokensReturned as error:
            raise ConfigError(
                f"there are several tokens labelled {place.token_label}",
                code="token_ambiguous",
                mend="unplug all but one, or give them labels of their own",
            ) from error

    def _forget(self) -> None:
        session, self._session = self._session, None
        self._open.clear()
        if session is not None:
            # It may be lost already, and with it the login.
            with contextlib.suppress(token_errors.PKCS11Error):
                session.close()


def _found(session: Any, label: str, kind: pkcs11.ObjectClass) -> Any:  # noqa: ANN401 (of a C extension)
    return session.get_key(object_class=kind, key_type=pkcs11.KeyType.EC_EDWARDS, label=label)


def _point_of(public: Any) -> bytes:  # noqa: ANN401 (of a C extension)
    """Return the public half, which tokens give bare or as a DER OCTET STRING."""
    if bytes(public[pkcs11.Attribute.EC_PARAMS]) not in ED25519_PARAMS:
        raise ConfigError("the token's key is not one of Ed25519", code="key_mismatch")
    point = bytes(public[pkcs11.Attribute.EC_POINT])
    if len(point) == KEY_BYTES:
        return point
    if len(point) == KEY_BYTES + len(_OCTET_STRING) and point.startswith(_OCTET_STRING):
        return point[len(_OCTET_STRING) :]
    raise UnavailableError(
        f"the token tells a public key of {len(point)} bytes", code="token_failed"
    )


def _require_kept_inside(private: Any, handle: str) -> None:  # noqa: ANN401 (of a C extension)
    attribute = pkcs11.Attribute
    if not private[attribute.SENSITIVE] or private[attribute.EXTRACTABLE]:
        raise ConfigError(
            f"the token would give away the private key {handle}",
            code="key_extractable",
            mend="let seipd-signer keygen make the key, inside the token",
        )


def _require_tries_left(flags: pkcs11.TokenFlag) -> None:
    if flags & pkcs11.TokenFlag.USER_PIN_LOCKED:
        raise _locked()
    if flags & pkcs11.TokenFlag.USER_PIN_FINAL_TRY:
        raise ConfigError(
            "one more wrong PIN would lock the token",
            code="pin_last_try",
            mend="log in once with the token's own tool, which sets its count back",
        )


def _locked() -> ConfigError:
    return ConfigError(
        "the token is locked after too many wrong PINs",
        code="pin_locked",
        mend="unlock it with its own tool and the security officer's PIN",
    )


def _error_of(error: token_errors.PKCS11Error) -> SeipdError:
    """Say in our words what a token refused; its own errors hold neither PIN nor key."""
    if isinstance(error, _READ_ONLY):
        return ConfigError("the token takes no new key: it is read-only", code="token_read_only")
    if isinstance(error, _NO_ED25519):
        return ConfigError(
            "the token does not know Ed25519",
            code="token_no_ed25519",
            mend="it needs CKM_EC_EDWARDS_KEY_PAIR_GEN and CKM_EDDSA of PKCS#11 3.0",
        )
    name = type(error).__name__
    return UnavailableError(f"the token fails: {name}", code="token_failed")
