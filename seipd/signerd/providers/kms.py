"""Keys in AWS KMS: they are made there, sign there, and can't be taken out.

A handle is an alias. An alias can be pointed at another key by anybody whom AWS allows, so it is
looked up once, and from then on the key is named by its ARN; what the alias named is compared with
the signer's own row of it at each start. A new key is a new key id and a new alias: KMS does not
rotate keys that sign.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import msgspec

from seipd.signerd.providers import kms_api, sigv4
from seipd.signerd.providers.base import require_length
from seipd.signerd.providers.https import NotSentError
from seipd.signerd.providers.kms_api import Again, KmsError
from seipd.signerd.providers.worker import Worker
from services.base.crypto.signatures import verify
from services.kernel.errors import NotFoundError, UnavailableError, UnreachableError

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random  # noqa: TID251 (a type; the generator is handed in)

    from seipd.signerd.providers.https import HttpsPoster
    from seipd.signerd.providers.sigv4 import Credentials, ServicePlace
    from services.kernel.clock import Clock

S = TypeVar("S", bound=msgspec.Struct)
T = TypeVar("T")

logger = logging.getLogger(__name__)

THREADS = 4
MAX_ATTEMPTS = 5
FIRST_PAUSE_S = 0.1
MAX_PAUSE_S = 1.0
GIVE_UP_S = 0.5
"""What a caller waits beyond the deadline, for a name server that the deadline can't reach."""

_NOT_FOUND = "NotFoundException"
_EXISTS = "AlreadyExistsException"


@dataclass(frozen=True, slots=True, kw_only=True)
class Deadlines:
    """How long it all takes at most, retries included; a signature below the signer's wait."""

    sign_s: float = 3.2
    open_s: float = 8.0
    generate_s: float = 25.0
    attempt_s: float = 1.5


@dataclass(frozen=True, slots=True, kw_only=True)
class _KmsKey:
    arn: str
    public_key: bytes


class KmsProvider:
    """One key and one alias a handle; satisfies KeyProvider.

    Args:
        poster: reaches the service.
        place: its region.
        alias_prefix: for example ``seipd/``.
        credentials: reads the access key; again where KMS says that it ran out.
        clock: the system's.
        jitter: spreads what is asked again.
        deadlines: how long to try.
    """

    in_memory: ClassVar[bool] = False
    max_bytes: ClassVar[int] = kms_api.MAX_MESSAGE_BYTES

    def __init__(
        self,
        *,
        poster: HttpsPoster,
        place: ServicePlace,
        alias_prefix: str,
        credentials: Callable[[], Credentials],
        clock: Clock,
        jitter: Random,
        deadlines: Deadlines | None = None,
    ) -> None:
        self._poster = poster
        self._place = place
        self._alias_prefix = alias_prefix
        self._read_credentials = credentials
        self._credentials: Credentials | None = None
        self._clock = clock
        self._jitter = jitter
        self._deadlines = deadlines or Deadlines()
        self._worker = Worker("key service", threads=THREADS)
        self._closing = threading.Event()
        self._open: dict[str, _KmsKey] = {}

    def generate(self, handle: str) -> bytes:
        """Make the key of a handle and its alias, unless they are there.

        Raises:
            ConfigError: the alias names a key of another kind; no access key.
            UnavailableError: ``kms_refused``, ``kms_unavailable``, ``provider_hangs``.
        """
        return self._within(self._deadlines.generate_s, lambda t: self._made(handle, t)).public_key

    def public_key(self, handle: str) -> bytes:
        """Look up the key of a handle and return its public half.

        Raises:
            NotFoundError: ``key_unknown``.
            ConfigError: ``key_mismatch``: a key of another kind; no access key.
            UnavailableError: ``kms_refused``, ``kms_unavailable``, ``provider_hangs``.
        """
        return self._within(self._deadlines.open_s, lambda t: self._key(handle, t)).public_key

    def sign(self, handle: str, data: bytes) -> bytes:
        """Return the 64 bytes of an Ed25519 signature, which was checked.

        Raises:
            InputError: ``message_too_long``: over 4096 bytes.
            NotFoundError: ``key_unknown``.
            UnavailableError: ``kms_refused``, ``kms_unavailable``, ``kms_wrong_signature``,
                ``provider_hangs``.
        """
        require_length(data, self.max_bytes)
        return self._within(self._deadlines.sign_s, lambda t: self._signed(handle, data, t))

    def destroy(self, handle: str) -> None:
        """Leave it: what goes from a key service is for its owner to say."""

    def close(self) -> None:
        """Forget the keys and the access key; may be called twice."""
        self._closing.set()
        self._worker.close()
        self._open.clear()
        self._credentials = None

    def _within(self, time_s: float, work: Callable[[float], T]) -> T:
        deadline_s = self._clock.monotonic_s() + time_s
        return self._worker.call(lambda: work(deadline_s), wait_s=time_s + GIVE_UP_S)

    def _signed(self, handle: str, data: bytes, deadline_s: float) -> bytes:
        key = self._key(handle, deadline_s)
        request = kms_api.sign_request(key.arn, data)
        reply = self._ask("Sign", request, kms_api.SignReply, deadline_s)
        signature = kms_api.signature_of(reply, key.arn)
        if not verify(key.public_key, data, signature):
            raise UnavailableError(
                "KMS answered with the signature of another key", code="kms_wrong_signature"
            )
        return signature

    def _key(self, handle: str, deadline_s: float) -> _KmsKey:
        if handle not in self._open:
            alias = kms_api.alias_of(self._alias_prefix, handle)
            try:
                self._open[handle] = self._asked_key(alias, deadline_s)
            except KmsError as error:
                if error.kind != _NOT_FOUND:
                    raise
                raise NotFoundError(
                    f"KMS knows no {alias} in {self._place.region}", code="key_unknown"
                ) from error
        return self._open[handle]

    def _asked_key(
        self, name: str, deadline_s: float, *, again_on: frozenset[str] = frozenset()
    ) -> _KmsKey:
        reply = self._ask(
            "GetPublicKey", {"KeyId": name}, kms_api.KeyReply, deadline_s, again_on=again_on
        )
        return _KmsKey(arn=reply.KeyId, public_key=kms_api.public_key_of(reply))

    def _made(self, handle: str, deadline_s: float) -> _KmsKey:
        try:
            return self._key(handle, deadline_s)
        except NotFoundError:
            pass
        reply = self._ask(
            "CreateKey", kms_api.create_request(handle), kms_api.CreateReply, deadline_s, once=True
        )
        arn = reply.KeyMetadata.Arn
        alias = kms_api.alias_of(self._alias_prefix, handle)
        try:
            request = {"AliasName": alias, "TargetKeyId": arn}
            self._ask("CreateAlias", request, kms_api.Empty, deadline_s)
        except KmsError as error:
            if error.again is not Again.NEVER:
                logger.warning("KMS made a key that may have no alias", extra={"arn": arn})
                raise
            if error.kind != _EXISTS:
                self._discard(arn, deadline_s)
                raise
        # The answer of the first try may have been lost, or somebody else was quicker.
        key = self._asked_key(alias, deadline_s, again_on=frozenset({_NOT_FOUND}))
        if key.arn != arn:
            self._discard(arn, deadline_s)
        self._open[handle] = key
        return key

    def _discard(self, arn: str, deadline_s: float) -> None:
        """Have a key deleted that nobody will find."""
        request = {"KeyId": arn, "PendingWindowInDays": kms_api.DELETION_DAYS}
        try:
            self._ask("ScheduleKeyDeletion", request, kms_api.Empty, deadline_s)
        except KmsError as error:
            logger.warning("a key without an alias stays in KMS: %s", error, extra={"arn": arn})

    def _ask(
        self,
        action: str,
        request: dict[str, Any],
        kind: type[S],
        deadline_s: float,
        *,
        once: bool = False,
        again_on: frozenset[str] = frozenset(),
    ) -> S:
        """Ask, and where that may help ask again, within the time.

        Args:
            action: of the API.
            request: its body.
            kind: what the answer is read as.
            deadline_s: of the monotonic clock.
            once: it must not be done twice.
            again_on: what is refused for a moment only, as what was made is seen everywhere.
        """
        body = kms_api.encode_request(request)
        attempt = 0
        while True:
            used = self._credentials = self._credentials or self._read_credentials()
            try:
                return kms_api.decode_reply(self._post(action, body, used, deadline_s), kind)
            except KmsError as error:
                failure = error
            may = failure.again is Again.ALWAYS or failure.kind in again_on
            may = may or (failure.again is Again.IF_REPEATABLE and not once)
            if not may and not (failure.credentials_gone and self._newer_than(used)):
                raise failure
            pause_s = self._jitter.uniform(0, min(MAX_PAUSE_S, FIRST_PAUSE_S * 2**attempt))
            attempt += 1
            if attempt == MAX_ATTEMPTS or self._clock.monotonic_s() + pause_s >= deadline_s:
                raise failure
            if self._closing.wait(pause_s):
                raise failure

    def _newer_than(self, used: Credentials) -> bool:
        """Read the access key anew; say whether it is another than the one that ran out."""
        self._credentials = self._read_credentials()
        return self._credentials != used

    def _post(self, action: str, body: bytes, credentials: Credentials, deadline_s: float) -> bytes:
        left_s = deadline_s - self._clock.monotonic_s()
        if left_s <= 0:
            raise _lost("no answer in time", again=Again.IF_REPEATABLE)
        headers = self._headers(action, body, credentials)
        try:
            status, answer = self._poster.post(
                headers, body, within_s=min(left_s, self._deadlines.attempt_s)
            )
        except NotSentError as error:
            raise _lost(str(error), again=Again.ALWAYS) from error
        except UnreachableError as error:
            raise _lost(str(error), again=Again.IF_REPEATABLE) from error
        if status != HTTPStatus.OK:
            raise kms_api.error_of(status, answer)
        return answer

    def _headers(self, action: str, body: bytes, credentials: Credentials) -> dict[str, str]:
        now = datetime.fromtimestamp(self._clock.now_ms() // 1000, UTC)
        headers = {
            "Content-Type": kms_api.CONTENT_TYPE,
            "Host": self._poster.host_header,
            "X-Amz-Target": f"{kms_api.TARGET_PREFIX}{action}",
            sigv4.DATE_HEADER: now.strftime("%Y%m%dT%H%M%SZ"),
        }
        if credentials.session_token:
            headers[sigv4.TOKEN_HEADER] = credentials.session_token
        signed = sigv4.authorization(
            "POST", headers, body, credentials=credentials, place=self._place
        )
        return headers | {"Authorization": signed, "Connection": "close"}


def _lost(what: str, *, again: Again) -> KmsError:
    return KmsError(f"KMS can't be reached: {what}", kind="unreachable", again=again)
