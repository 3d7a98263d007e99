"""What is said to a CA (RFC 8555), a request at a time; nothing here waits or decides.

Each method blocks and may raise anything that ``network.translated`` knows. What the CA answers
is taken apart by types of ours: ``acme`` signs, and names the problems.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import msgspec
from acme import messages
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from josepy.interfaces import JSONDeSerializable
from josepy.jwk import JWKEC
from typing_extensions import override

from services.edge.acme.failures import CaAnswerError
from services.kernel import canonical
from services.kernel.ids import b64u_encode

if TYPE_CHECKING:
    import requests

    from services.edge.acme.account import Account, ExternalBinding
    from services.edge.acme.network import SafeNetwork

DNS_01: Final = "dns-01"
MAX_AUTHORIZATIONS: Final = 4
_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]{22,256}\Z")


class Problem(msgspec.Struct, frozen=True):
    """A problem document inside of an order or a challenge."""

    type: str = "about:blank"
    detail: str = ""
    title: str = ""


class _Challenge(msgspec.Struct, frozen=True):
    type: str
    url: str = ""
    token: str = ""
    status: str = ""
    error: Problem | None = None


class _Identifier(msgspec.Struct, frozen=True):
    type: str
    value: str


class _Authorization(msgspec.Struct, frozen=True):
    identifier: _Identifier
    status: str
    challenges: list[_Challenge] = []


class _Order(msgspec.Struct, frozen=True):
    status: str
    finalize: str
    authorizations: list[str]
    identifiers: list[_Identifier]
    certificate: str | None = None
    error: Problem | None = None


class _Window(msgspec.Struct, frozen=True):
    start: str
    end: str


class _RenewalInfo(msgspec.Struct, frozen=True):
    suggested_window: _Window = msgspec.field(name="suggestedWindow")


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """An order as the CA tells it now."""

    url: str
    status: str
    finalize: str
    authorizations: tuple[str, ...]
    names: tuple[str, ...]
    certificate: str | None
    error: Problem | None
    retry_after: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Authorization:
    """What the CA wants to see before it believes one name."""

    name: str
    status: str
    challenge_url: str
    challenge_status: str
    digest: bytes = field(repr=False)
    error: Problem | None
    retry_after: str | None


class _Body(JSONDeSerializable):
    """A JSON object that is sent."""

    def __init__(self, value: dict[str, Any]) -> None:
        self._value = value

    @override
    def to_partial_json(self) -> dict[str, Any]:
        return self._value

    @classmethod
    @override
    def from_json(cls, jobj: Any) -> _Body:
        return cls(jobj)


class Conversation:
    """One account's talk with one CA."""

    def __init__(self, *, network: SafeNetwork, directory: dict[str, Any]) -> None:
        self._network = network
        self._directory = directory

    @classmethod
    def open(cls, network: SafeNetwork, url: str) -> Conversation:
        """Read the directory."""
        found = _object(network.get(url))
        for name in ("newNonce", "newAccount", "newOrder"):
            if not isinstance(found.get(name), str):
                raise CaAnswerError(f"the CA's directory names no {name}")
        return cls(network=network, directory=found)

    @property
    def terms(self) -> str | None:
        """Where the CA's terms stand."""
        meta = self._directory.get("meta")
        terms = meta.get("termsOfService") if isinstance(meta, dict) else None
        return terms if isinstance(terms, str) else None

    @property
    def tells_renewal(self) -> bool:
        """Whether the CA says when to renew (RFC 9773)."""
        return isinstance(self._directory.get("renewalInfo"), str)

    def register(self, key: JWKEC, email: str, binding: ExternalBinding | None) -> str:
        """Make an account, or find the one of this key; return its URL."""
        body: dict[str, Any] = {"termsOfServiceAgreed": True}
        if email:
            body["contact"] = [f"mailto:{email}"]
        if binding is not None:
            body["externalAccountBinding"] = messages.ExternalAccountBinding.from_data(
                account_public_key=key.public_key(),
                kid=binding.kid,
                hmac_key=binding.hmac_key,
                directory=messages.Directory(self._directory),
            )
        self._network.account = None
        answer = self._post(self._directory["newAccount"], body)
        return _location(answer)

    def use(self, account: Account) -> None:
        """Sign by this account from now on."""
        self._network.account = messages.RegistrationResource(
            uri=account.url, body=messages.Registration()
        )

    def order(self, names: tuple[str, ...], replaces: str | None = None) -> Order:
        """Begin an order; ``replaces`` names the certificate that it renews."""
        wanted: dict[str, Any] = {"identifiers": [{"type": "dns", "value": name} for name in names]}
        if replaces is not None and self.tells_renewal:
            wanted["replaces"] = replaces
        answer = self._post(self._directory["newOrder"], wanted)
        return _order_of(answer, _location(answer))

    def look(self, order_url: str) -> Order:
        """Ask how an order does."""
        return _order_of(self._post(order_url, None), order_url)

    def authorization(self, url: str) -> Authorization:
        """Ask what the CA wants to see for a name."""
        answer = self._post(url, None)
        found = _typed(answer, _Authorization)
        dns = next((one for one in found.challenges if one.type == DNS_01), None)
        if found.identifier.type != "dns" or (dns is None and found.status == "pending"):
            raise CaAnswerError("the CA offers no proof by DNS", code="ca_no_dns_01")
        return Authorization(
            name=found.identifier.value,
            status=found.status,
            challenge_url=dns.url if dns is not None else "",
            challenge_status=dns.status if dns is not None else "",
            digest=self._digest(dns.token) if dns is not None else b"",
            error=dns.error if dns is not None else None,
            retry_after=answer.headers.get("Retry-After"),
        )

    def answer(self, authorization: Authorization) -> None:
        """Tell the CA to look."""
        self._post(authorization.challenge_url, {})

    def finalize(self, order: Order, csr_der: bytes) -> Order:
        """Ask for the certificate."""
        answer = self._post(order.finalize, {"csr": b64u_encode(csr_der)})
        return _order_of(answer, order.url)

    def download(self, order: Order) -> str:
        """Return the certificate with its chain."""
        if order.certificate is None:
            raise CaAnswerError("the CA names no certificate")
        return self._post(order.certificate, None).text

    def renewal_window(self, certificate_id: str) -> tuple[str, str, str | None]:
        """Return when the CA suggests to renew (from, until), and when to ask again."""
        answer = self._network.get(f"{self._directory['renewalInfo']}/{certificate_id}")
        window = _typed(answer, _RenewalInfo).suggested_window
        return window.start, window.end, answer.headers.get("Retry-After")

    def close(self) -> None:
        """End the connections."""
        self._network.session.close()

    def _post(self, url: str, body: dict[str, Any] | None) -> requests.Response:
        if not isinstance(url, str) or not url:
            raise CaAnswerError("the CA names no URL")
        sent = None if body is None else _Body(body)
        return self._network.post(url, sent, new_nonce_url=self._directory["newNonce"])

    def _digest(self, token: str) -> bytes:
        """Return what stands in the TXT record (RFC 8555, 8.4)."""
        if not _TOKEN.match(token):
            raise CaAnswerError("the CA's token is none")
        key = self._network.key
        if key is None:
            raise CaAnswerError("there is no account key")
        thumbprint = b64u_encode(key.thumbprint(hash_function=hashes.SHA256))
        return hashlib.sha256(f"{token}.{thumbprint}".encode("ascii")).digest()


def new_key() -> JWKEC:
    """Return a new account key."""
    return JWKEC(key=ec.generate_private_key(ec.SECP256R1()))


def key_from_pem(pem: bytes) -> JWKEC:
    """Return the account key of a file of ours."""
    return JWKEC(key=serialization.load_pem_private_key(pem, password=None))


def key_to_pem(key: JWKEC) -> bytes:
    """Return an account key as it is written down."""
    pem: bytes = key.key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return pem


def _object(answer: requests.Response) -> dict[str, Any]:
    return canonical.decode_object(answer.content)


def _typed(answer: requests.Response, kind: type[Any]) -> Any:  # noqa: ANN401 (an instance of it)
    return msgspec.convert(_object(answer), kind)


def _order_of(answer: requests.Response, url: str) -> Order:
    found: _Order = _typed(answer, _Order)
    if not 0 < len(found.authorizations) <= MAX_AUTHORIZATIONS:
        raise CaAnswerError("the CA's order has no names, or too many")
    return Order(
        url=url,
        status=found.status,
        finalize=found.finalize,
        authorizations=tuple(found.authorizations),
        names=tuple(sorted(one.value for one in found.identifiers)),
        certificate=found.certificate,
        error=found.error,
        retry_after=answer.headers.get("Retry-After"),
    )


def _location(answer: requests.Response) -> str:
    location = answer.headers.get("Location")
    if not location:
        raise CaAnswerError("the CA does not say where it is")
    return location
