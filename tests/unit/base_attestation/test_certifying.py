"""A TPM's key is certified by what only its TPM opens, and by a fresh quote; by nothing less."""

from __future__ import annotations

import contextlib
import hashlib
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.base.attestation.binding import binding
from services.base.attestation.certifying import PER_MINUTE, CertifiedHere, Certifier
from services.base.attestation.messages import Answer, decode_challenge, encode_answer
from services.base.attestation.tpm_structures import name_of
from services.base.attestation.tpm_tools import EndorsementKey
from services.base.attestation.verified import Platform
from services.kernel import canonical
from services.kernel.errors import SeipdError, UnavailableError
from services.kernel.ids import b64u_encode
from tests.fakes.signing_tpm import SigningTpm
from tests.unit.base_attestation.quote_kit import sample, when

if TYPE_CHECKING:
    from collections.abc import Callable

    from services.base.attestation.tpm import TpmEvidence

B = b"b" * 32
EK = sample("tpm/ek.der")
MAKERS = sample("tpm/authority.pem")


class Clock:
    ms = int(when("2027-01-15").timestamp() * 1000)

    def now_ms(self) -> int:
        return self.ms

    def monotonic_s(self) -> float:
        return self.ms / 1000


class Opener:
    """A TPM that opens what is for its own key: here the secret is known to both."""

    def __init__(self) -> None:
        self.tpm = SigningTpm()
        self.secret = bytes(32)

    async def ak_public(self) -> bytes:
        return self.tpm.public

    async def endorsement_key(self) -> EndorsementKey:
        return EndorsementKey(algorithm="rsa", certificate=EK)

    async def open_credential(
        self, ek: EndorsementKey, *, credential: bytes, encrypted_seed: bytes
    ) -> bytes:
        return self.secret


class Wire:
    def __init__(self, here: CertifiedHere, quote: Callable[[bytes], TpmEvidence]) -> None:
        self._here = here
        self._quote = quote
        self.sent: list[bytes] = []

    async def ask(self, server_key: bytes, challenge: bytes) -> bytes:
        asked = decode_challenge(challenge)
        bound = binding(Platform.TPM2, nonce=asked.nonce, server_key=server_key)
        answer = Answer(
            nonce=asked.nonce,
            server_key=server_key,
            platform=Platform.TPM2,
            evidence=self._quote(bound),
        )
        return encode_answer(answer)

    async def device(self, server_key: bytes) -> bytes:
        return await self._here.device(asker=b"a" * 32)

    async def open(self, server_key: bytes, credential: bytes) -> bytes:
        self.sent.append(credential)
        return await self._here.open(credential, asker=b"a" * 32)


@pytest.fixture
def known_secret(monkeypatch: pytest.MonkeyPatch) -> bytes:
    """Draw one secret again and again, so that a TPM of a few lines can seem to open it."""
    secret = hashlib.sha256(b"a secret").digest()
    monkeypatch.setattr("secrets.token_bytes", lambda count: secret[:count])
    return secret


async def code_of(wire: Wire, makers: bytes = MAKERS) -> str:
    with pytest.raises(SeipdError) as caught:
        await Certifier(wire=wire, clock=Clock()).certify(B, makers)
    return caught.value.code


async def test_who_opens_the_credential_and_quotes_by_that_key_is_certified(known_secret) -> None:
    opener = Opener()
    opener.secret = known_secret
    wire = Wire(CertifiedHere(tpm=opener, clock=Clock()), opener.tpm.quote)
    quote = await Certifier(wire=wire, clock=Clock()).certify(B, MAKERS)
    assert quote.hardware == name_of(opener.tpm.public).hex()
    assert quote.registers == {"pcr0": "00" * 32, "pcr7": "00" * 32}
    assert known_secret not in wire.sent[0]


async def test_who_can_t_open_it_or_quotes_by_another_key_is_not(known_secret) -> None:
    opener = Opener()
    here = CertifiedHere(tpm=opener, clock=Clock())
    assert await code_of(Wire(here, opener.tpm.quote)) == "quote_key_not_certified"
    opener.secret = known_secret
    here = CertifiedHere(tpm=opener, clock=Clock())
    assert await code_of(Wire(here, SigningTpm(2).quote)) == "quote_key_not_certified"


async def test_a_maker_that_the_operator_did_not_name_certifies_nothing() -> None:
    opener = Opener()
    wire = Wire(CertifiedHere(tpm=opener, clock=Clock()), opener.tpm.quote)
    amd = sample("sev-snp/ask_ark_milan.pem")
    assert await code_of(wire, amd) == "quote_chain_broken"
    between_alone = MAKERS[: MAKERS.index(b"-----END") + 26]
    assert await code_of(wire, between_alone) == "quote_chain_broken"
    assert await code_of(wire, b"garbage") == "quote_malformed"


async def test_a_tpm_is_asked_seldom_and_what_is_no_credential_is_refused() -> None:
    here = CertifiedHere(tpm=Opener(), clock=Clock())
    for sent in (b"{}", canonical.encode({"credential": "?", "seed": b64u_encode(b"x")})):
        with pytest.raises(SeipdError) as caught:
            await here.open(sent, asker=B)
        assert caught.value.code == "quote_malformed"
    for _ in range(PER_MINUTE - 2):
        await here.device(asker=B)
    with pytest.raises(SeipdError) as caught:
        await here.device(asker=B)
    assert caught.value.code == "rate_limited"
    with pytest.raises(UnavailableError):
        await CertifiedHere(tpm=None, clock=Clock()).device(asker=B)


TEXTS = st.fixed_dictionaries({"credential": st.text(max_size=9), "seed": st.text(max_size=9)})


@given(st.one_of(st.binary(max_size=200), TEXTS.map(canonical.encode)))
async def test_whatever_is_sent_as_a_credential_is_opened_or_refused(sent: bytes) -> None:
    with contextlib.suppress(SeipdError):
        await CertifiedHere(tpm=Opener(), clock=Clock()).open(sent, asker=B)
