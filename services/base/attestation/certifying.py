"""A TPM's attestation key certified over the wire: by a credential that only its TPM opens.

device      {} → {ek, public}: the EK's certificate (DER) and the AK's TPMT_PUBLIC
credential  {credential, seed} → {secret}

Both sides know by their session who speaks. What is certified is that the AK lives in a TPM of a
maker that the operator named; which machine that TPM is in, no certificate says.
"""

from __future__ import annotations

import secrets
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

import msgspec
from cryptography.hazmat.primitives.asymmetric import ec

from services.base.attestation.binding import NONCE_BYTES
from services.base.attestation.chains import load_certificate, load_pem_chain
from services.base.attestation.errors import Refusal, malformed, refused
from services.base.attestation.judging import HardwarePolicy, judge
from services.base.attestation.messages import Challenge, decode_answer, encode_challenge
from services.base.attestation.tpm_credential import SECRET_BYTES, Randomness, certify_challenge
from services.base.attestation.verified import Platform
from services.kernel import canonical
from services.kernel.errors import InputError, RateLimitedError, UnavailableError
from services.kernel.ids import b64u_decode, b64u_encode
from services.runtime.ratelimit import RateLimiter

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cryptography import x509

    from services.base.attestation.tpm_credential import CredentialChallenge
    from services.base.attestation.tpm_tools import EndorsementKey
    from services.base.attestation.verified import VerifiedQuote
    from services.kernel.clock import Clock

PER_MINUTE = 6
_SEED_BYTES = 32


class Tpm(Protocol):
    """A TPM whose key can be certified; see TpmTools."""

    async def ak_public(self) -> bytes:
        """Return the attestation key's TPMT_PUBLIC."""

    async def endorsement_key(self) -> EndorsementKey:
        """Return the EK that the TPM has a certificate for."""

    async def open_credential(
        self, ek: EndorsementKey, *, credential: bytes, encrypted_seed: bytes
    ) -> bytes:
        """Open a credential and return the secret in it."""


class Wire(Protocol):
    """The way to a server that is to be certified."""

    async def ask(self, server_key: bytes, challenge: bytes) -> bytes:
        """Send a challenge; return what that very server answers."""

    async def device(self, server_key: bytes) -> bytes:
        """Ask for the keys of a server's TPM."""

    async def open(self, server_key: bytes, credential: bytes) -> bytes:
        """Have a server's TPM open a credential."""


class _Device(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    ek: str
    public: str


class _Credential(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    credential: str
    seed: str


class _Secret(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    secret: str


class CertifiedHere:
    """What this server answers of its own TPM; ``tpm`` is None where there is none."""

    def __init__(self, *, tpm: Tpm | None, clock: Clock) -> None:
        self._tpm = tpm
        self._clock = clock
        self._askers = RateLimiter(per_minute=PER_MINUTE)

    async def device(self, *, asker: bytes) -> bytes:
        """Return the keys of this machine's TPM.

        Raises:
            UnavailableError: ``attestation_unavailable``.
            RateLimitedError: this server asks too often.
        """
        tpm = self._spend(asker)
        ek, public = await tpm.endorsement_key(), await tpm.ak_public()
        return canonical.encode({"ek": b64u_encode(ek.certificate), "public": b64u_encode(public)})

    async def open(self, data: bytes, *, asker: bytes) -> bytes:
        """Have this machine's TPM open a credential.

        Raises:
            WireError: that is none.
            UnavailableError: ``attestation_unavailable``: or it was made for another TPM or AK.
            RateLimitedError: this server asks too often.
        """
        tpm = self._spend(asker)
        wire = _parsed(data, _Credential)
        secret = await tpm.open_credential(
            await tpm.endorsement_key(),
            credential=_bytes(wire.credential),
            encrypted_seed=_bytes(wire.seed),
        )
        return canonical.encode({"secret": b64u_encode(secret)})

    def _spend(self, asker: bytes) -> Tpm:
        spent = self._askers.spend(asker.hex(), now_s=self._clock.monotonic_s())
        if not spent.allowed:
            raise RateLimitedError("too much is asked of the TPM", retry_after_s=spent.reset_s)
        if self._tpm is None:
            raise UnavailableError("this machine has no TPM", code="attestation_unavailable")
        return self._tpm


class Certifier:
    """Certifies the key of another server's TPM."""

    def __init__(self, *, wire: Wire, clock: Clock) -> None:
        self._wire = wire
        self._clock = clock

    async def certify(self, server_key: bytes, makers: bytes) -> VerifiedQuote:
        """Return a fresh quote by the AK of a server's TPM, which is certified.

        Args:
            server_key: whose TPM.
            makers: certificates of the TPM's maker (PEM), roots and those between.

        Raises:
            QuoteFormatError: something is not of its form.
            QuoteRefusedError: the EK's certificate does not lead to one of these roots, the TPM
                does not open the credential, or its quote is not good.
            SeipdError: the server can't be reached, or has no TPM.
        """
        device = _parsed(await self._wire.device(server_key), _Device)
        ek, public = load_certificate(_bytes(device.ek)), _bytes(device.public)
        asked = self._challenge(ek, public, load_pem_chain(makers))
        told = await self._wire.open(
            server_key,
            canonical.encode(
                {
                    "credential": b64u_encode(asked.credential),
                    "seed": b64u_encode(asked.encrypted_seed),
                }
            ),
        )
        name = asked.answered_by(_bytes(_parsed(told, _Secret).secret))
        challenge = Challenge(nonce=secrets.token_bytes(NONCE_BYTES), server_key=server_key)
        answer = decode_answer(await self._wire.ask(server_key, encode_challenge(challenge)))
        policy = HardwarePolicy(anchors={Platform.TPM2: ()}, enrolled_aks={name})
        return judge(answer, challenge, policy=policy, now_ms=self._clock.now_ms())

    def _challenge(
        self, ek: x509.Certificate, public: bytes, makers: Sequence[x509.Certificate]
    ) -> CredentialChallenge:
        roots = [one for one in makers if one.subject == one.issuer]
        if not roots:
            raise refused(Refusal.CHAIN_BROKEN, "no root is among the maker's certificates")
        return certify_challenge(
            [ek, *(one for one in makers if one not in roots)],
            public,
            anchors=roots,
            at=datetime.fromtimestamp(self._clock.now_ms() / 1000, UTC),
            randomness=Randomness(
                secret=secrets.token_bytes(SECRET_BYTES),
                seed=secrets.token_bytes(_SEED_BYTES),
                ephemeral=ec.generate_private_key(ec.SECP256R1()),
            ),
        )


def _parsed(data: bytes, shape: Any) -> Any:  # noqa: ANN401 (one of the shapes above)
    try:
        return msgspec.convert(canonical.decode_canonical(data), shape)
    except msgspec.ValidationError as error:
        raise malformed(f"certifying a TPM: {error}") from error


def _bytes(text: str) -> bytes:
    try:
        return b64u_decode(text)
    except InputError as error:
        raise malformed(f"certifying a TPM: {error}") from error
