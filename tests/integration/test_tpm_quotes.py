"""A TPM 2.0 in software: its key is certified, its quotes verify, a changed register is seen."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from services.base.attestation.binding import binding
from services.base.attestation.chains import load_certificate
from services.base.attestation.judging import HardwarePolicy, judge
from services.base.attestation.messages import (
    Answer,
    Challenge,
    decode_answer,
    encode_answer,
)
from services.base.attestation.tpm import TpmEvidence
from services.base.attestation.tpm_credential import (
    SECRET_BYTES,
    Randomness,
    certify_challenge,
    make_credential,
)
from services.base.attestation.tpm_structures import name_of, parse_attestation_key
from services.base.attestation.tpm_tools import TpmTools
from services.base.attestation.verified import Platform
from services.kernel.errors import SeipdError, UnavailableError
from tests.fakes.swtpm import SoftwareTpm, missing_programs, software_tpm
from tests.unit.base_attestation.quote_kit import unnoticed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(bool(missing_programs()), reason=f"missing: {missing_programs()}"),
]
SERVER = bytes(range(32))
PCRS = (0, 7, 16)


@pytest.fixture(scope="module")
def tpm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SoftwareTpm]:
    with software_tpm(tmp_path_factory.mktemp("swtpm")) as running:
        yield running


@pytest.fixture
def tools(tpm: SoftwareTpm, tmp_path: Path) -> TpmTools:
    return TpmTools(folder=tmp_path, tcti=tpm.tcti, pcrs=PCRS)


def chance() -> Randomness:
    return Randomness(
        secret=secrets.token_bytes(SECRET_BYTES),
        seed=secrets.token_bytes(32),
        ephemeral=ec.generate_private_key(ec.SECP256R1()),
    )


def now() -> datetime:
    return datetime.now(UTC)


def policy(ak_name: bytes, **registers: set[str]) -> HardwarePolicy:
    return HardwarePolicy(
        anchors={Platform.TPM2: ()},
        enrolled_aks={ak_name},
        registers={Platform.TPM2: registers},
    )


async def answer_of(tools: TpmTools, challenge: Challenge) -> Answer:
    bound = binding(Platform.TPM2, nonce=challenge.nonce, server_key=challenge.server_key)
    answer = Answer(
        nonce=challenge.nonce,
        server_key=challenge.server_key,
        platform=Platform.TPM2,
        evidence=await tools.quote(bound),
    )
    return decode_answer(encode_answer(answer))


def challenge() -> Challenge:
    return Challenge(nonce=secrets.token_bytes(32), server_key=SERVER)


async def test_a_key_is_certified_and_its_quote_verifies(tpm: SoftwareTpm, tools: TpmTools) -> None:
    ek = await tools.endorsement_key()
    chain = [load_certificate(ek.certificate), *tpm.authority[:-1]]
    asked = certify_challenge(
        chain,
        await tools.ak_public(),
        anchors=tpm.authority[-1:],
        at=now(),
        randomness=chance(),
    )
    secret = await tools.open_credential(
        ek, credential=asked.credential, encrypted_seed=asked.encrypted_seed
    )
    certified = asked.answered_by(secret)

    question = challenge()
    answer = await answer_of(tools, question)
    quote = judge(answer, question, policy=policy(certified), now_ms=int(now().timestamp() * 1000))
    assert quote.hardware == certified.hex()
    assert set(quote.registers) == {"pcr0", "pcr7", "pcr16"}


async def test_a_changed_register_is_refused(tpm: SoftwareTpm, tools: TpmTools) -> None:
    name = name_of(await tools.ak_public())
    question = challenge()
    before = judge(await answer_of(tools, question), question, policy=policy(name), now_ms=0)
    good = policy(name, pcr16={before.registers["pcr16"]})
    assert judge(await answer_of(tools, question), question, policy=good, now_ms=0)

    tpm.extend(16, "ab" * 32)
    with pytest.raises(SeipdError) as caught:
        judge(await answer_of(tools, question), question, policy=good, now_ms=0)
    assert caught.value.code == "quote_registers"


async def test_att_01_a_quote_serves_for_its_nonce_and_its_server_alone(tools: TpmTools) -> None:
    name = name_of(await tools.ak_public())
    question = challenge()
    answer = await answer_of(tools, question)
    for other, code in (
        (Challenge(nonce=bytes(32), server_key=SERVER), "quote_wrong_nonce"),
        (Challenge(nonce=question.nonce, server_key=bytes(32)), "quote_other_key"),
    ):
        with pytest.raises(SeipdError) as caught:
            judge(answer, other, policy=policy(name), now_ms=0)
        assert caught.value.code == code
        # One who says what is asked for has still the old words in the quote.
        lie = Answer(
            nonce=other.nonce,
            server_key=other.server_key,
            platform=answer.platform,
            evidence=answer.evidence,
        )
        with pytest.raises(SeipdError) as caught:
            judge(lie, other, policy=policy(name), now_ms=0)
        assert caught.value.code == "quote_not_bound"


async def test_att_01_each_part_with_one_bit_changed_fails(tools: TpmTools) -> None:
    question = challenge()
    answer = await answer_of(tools, question)
    evidence = answer.evidence
    assert isinstance(evidence, TpmEvidence)
    good = policy(parse_attestation_key(evidence.public).name)
    parts = {
        "attest": evidence.attest,
        "signature": evidence.signature,
        "public": evidence.public,
        "pcr": evidence.pcrs[7],
    }
    for part, data in parts.items():

        def verify(altered: bytes, part: str = part) -> None:
            changed = TpmEvidence(
                attest=altered if part == "attest" else evidence.attest,
                signature=altered if part == "signature" else evidence.signature,
                public=altered if part == "public" else evidence.public,
                pcrs=evidence.pcrs | ({7: altered} if part == "pcr" else {}),
            )
            lie = Answer(
                nonce=answer.nonce,
                server_key=answer.server_key,
                platform=answer.platform,
                evidence=changed,
            )
            judge(lie, question, policy=good, now_ms=0)

        assert unnoticed(data, verify) == [], part


async def test_a_credential_for_another_key_is_not_opened(
    tpm: SoftwareTpm, tools: TpmTools
) -> None:
    ek = await tools.endorsement_key()
    key = load_certificate(ek.certificate).public_key()
    other = name_of(b"another public area")
    asked = make_credential(key, other, randomness=chance())
    with pytest.raises(UnavailableError):
        await tools.open_credential(
            ek, credential=asked.credential, encrypted_seed=asked.encrypted_seed
        )


async def test_an_endorsement_key_of_an_unknown_maker_is_refused(
    tpm: SoftwareTpm, tools: TpmTools
) -> None:
    ek = await tools.endorsement_key()
    with pytest.raises(SeipdError) as caught:
        certify_challenge(
            [load_certificate(ek.certificate), *tpm.authority[:-1]],
            await tools.ak_public(),
            anchors=(),
            at=now(),
            randomness=chance(),
        )
    assert caught.value.code == "quote_chain_broken"


async def test_a_tpm_that_is_not_there_is_unavailable(tmp_path: Path) -> None:
    tools = TpmTools(folder=tmp_path, tcti="device:/dev/no-tpm")
    with pytest.raises(UnavailableError) as caught:
        await tools.quote(bytes(32))
    assert caught.value.code == "attestation_unavailable"
    assert list(tmp_path.iterdir()) == []
