"""Answers to challenges, as another server judges them; the TPM's was recorded from a real talk."""

from __future__ import annotations

import dataclasses
import hashlib

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from services.base.attestation.anchors import vendor_roots
from services.base.attestation.chains import load_certificate, load_pem_chain
from services.base.attestation.dcap_quote import parse_quote
from services.base.attestation.judging import HardwarePolicy, judge
from services.base.attestation.messages import (
    Answer,
    Challenge,
    DcapEvidence,
    SnpEvidence,
    decode_answer,
    decode_challenge,
    encode_answer,
    encode_challenge,
)
from services.base.attestation.snp import parse_report
from services.base.attestation.tpm import TpmEvidence, verify_tpm
from services.base.attestation.tpm_credential import Randomness, certify_challenge
from services.base.attestation.tpm_structures import (
    parse_attest,
    parse_attestation_key,
    parse_signature,
)
from services.base.attestation.verified import Platform
from services.kernel.errors import SeipdError
from tests.unit.base_attestation.quote_kit import sample, unnoticed, when

ANSWER = decode_answer(sample("tpm/answer.json"))
CHALLENGE = Challenge(nonce=hashlib.sha256(b"a nonce").digest(), server_key=bytes(range(32)))
EVIDENCE = ANSWER.evidence
assert isinstance(EVIDENCE, TpmEvidence)
AK = parse_attestation_key(EVIDENCE.public)
POLICY = HardwarePolicy(anchors={Platform.TPM2: ()}, enrolled_aks={AK.name})
NOW_MS = 1_800_000_000_000
EK = load_certificate(sample("tpm/ek.der"))
AUTHORITY = load_pem_chain(sample("tpm/authority.pem"))
CHANCE = Randomness(
    secret=bytes(32), seed=bytes(32), ephemeral=ec.derive_private_key(5, ec.SECP256R1())
)


def code_of(answer: Answer = ANSWER, *, to: Challenge = CHALLENGE, policy=POLICY) -> str:
    with pytest.raises(SeipdError) as caught:
        judge(answer, to, policy=policy, now_ms=NOW_MS)
    return caught.value.code


def changed(**parts: object) -> Answer:
    return dataclasses.replace(ANSWER, evidence=dataclasses.replace(EVIDENCE, **parts))


def test_the_answer_of_an_enrolled_tpm_is_believed() -> None:
    quote = judge(ANSWER, CHALLENGE, policy=POLICY, now_ms=NOW_MS)
    assert quote.hardware == AK.name.hex()
    assert quote.registers["pcr7"] == "00" * 32


def test_att_01_an_answer_to_another_nonce_or_for_another_server_is_refused() -> None:
    other = dataclasses.replace(CHALLENGE, nonce=bytes(32))
    assert code_of(to=other) == "quote_wrong_nonce"
    assert code_of(dataclasses.replace(ANSWER, nonce=bytes(32)), to=other) == "quote_not_bound"
    peer = dataclasses.replace(CHALLENGE, server_key=bytes(32))
    assert code_of(to=peer) == "quote_other_key"
    assert code_of(dataclasses.replace(ANSWER, server_key=bytes(32)), to=peer) == "quote_not_bound"


def test_a_key_that_is_not_enrolled_is_refused() -> None:
    stranger = HardwarePolicy(anchors={Platform.TPM2: ()})
    assert code_of(policy=stranger) == "quote_key_not_certified"


def test_a_platform_that_the_mesh_does_not_take_is_refused() -> None:
    assert code_of(policy=HardwarePolicy(anchors={})) == "quote_other_platform"
    # A TDX quote that calls itself SGX's.
    evidence = DcapEvidence(
        quote=sample("intel/tdx_quote"), collateral=sample("intel/tdx_quote_collateral.json")
    )
    posing = dataclasses.replace(ANSWER, platform=Platform.SGX, evidence=evidence)
    sgx = HardwarePolicy(anchors={Platform.SGX: vendor_roots(Platform.SGX)})
    at_ms = int(when("2025-07-01").timestamp() * 1000)
    with pytest.raises(SeipdError) as caught:
        judge(posing, CHALLENGE, policy=sgx, now_ms=at_ms)
    assert caught.value.code == "quote_other_platform"


def test_registers_that_differ_or_are_not_told_are_refused() -> None:
    for name, good in (("pcr7", {"ab" * 32}), ("pcr9", {"00" * 32})):
        policy = dataclasses.replace(POLICY, registers={Platform.TPM2: {name: good}})
        assert code_of(policy=policy) == "quote_registers"


def test_registers_told_must_be_those_that_were_signed() -> None:
    pcrs = dict(EVIDENCE.pcrs)
    assert code_of(changed(pcrs=pcrs | {0: b"\1" * 32})) == "quote_not_bound"
    assert code_of(changed(pcrs=pcrs | {9: bytes(32)})) == "quote_not_bound"
    assert code_of(changed(pcrs={0: pcrs[0]})) == "quote_not_bound"
    # The same bytes, cut elsewhere.
    moved = pcrs | {0: pcrs[0] + pcrs[1][:1], 1: pcrs[1][1:]}
    assert code_of(changed(pcrs=moved)) == "quote_not_bound"


@pytest.mark.parametrize("part", ["attest", "signature", "public"])
def test_att_01_each_part_of_a_tpm_answer_with_one_bit_changed_fails(part: str) -> None:
    def verify(altered: bytes) -> None:
        judge(changed(**{part: altered}), CHALLENGE, policy=POLICY, now_ms=NOW_MS)

    whole = getattr(EVIDENCE, part)
    assert unnoticed(whole, verify, count=len(whole)) == []
    assert code_of(changed(**{part: whole[:-1]})) == "quote_truncated"
    assert code_of(changed(**{part: whole + b"\0"})) == "quote_trailing"


def test_a_key_that_signs_what_anybody_hands_it_is_no_attestation_key() -> None:
    public = bytearray(EVIDENCE.public)
    public[4 + 1] &= ~0x01  # TPMA_OBJECT restricted, bit 16
    with pytest.raises(SeipdError, match="no attestation key"):
        parse_attestation_key(bytes(public))


def test_an_endorsement_certificate_leads_to_a_credential() -> None:
    at = when("2026-12-31")
    chain = (EK, *AUTHORITY[:-1])
    asked = certify_challenge(
        chain, EVIDENCE.public, anchors=AUTHORITY[-1:], at=at, randomness=CHANCE
    )
    assert asked.answered_by(CHANCE.secret) == AK.name
    with pytest.raises(SeipdError) as caught:
        asked.answered_by(b"\1" * 32)
    assert caught.value.code == "quote_key_not_certified"
    for bad, anchors, code in (
        (chain, (), "quote_chain_broken"),
        (AUTHORITY, AUTHORITY[-1:], "quote_key_not_certified"),
    ):
        with pytest.raises(SeipdError) as caught:
            certify_challenge(bad, EVIDENCE.public, anchors=anchors, at=at, randomness=CHANCE)
        assert caught.value.code == code


@pytest.mark.parametrize(
    "evidence",
    [
        EVIDENCE,
        SnpEvidence(report=b"report", chain=(b"vcek", b"ask")),
        DcapEvidence(quote=b"quote", collateral=b"{}"),
    ],
    ids=["tpm2", "sev-snp", "tdx"],
)
def test_messages_come_back_as_they_went(evidence: object) -> None:
    platform = {
        TpmEvidence: Platform.TPM2,
        SnpEvidence: Platform.SEV_SNP,
        DcapEvidence: Platform.TDX,
    }[type(evidence)]
    answer = dataclasses.replace(ANSWER, platform=platform, evidence=evidence)
    assert decode_answer(encode_answer(answer)) == answer
    assert decode_challenge(encode_challenge(CHALLENGE)) == CHALLENGE


@given(st.binary(max_size=2000))
def test_any_bytes_give_a_value_or_one_of_our_errors(data: bytes) -> None:
    for parse in (
        decode_answer,
        decode_challenge,
        parse_attest,
        parse_attestation_key,
        parse_report,
        parse_quote,
        load_certificate,
        load_pem_chain,
        lambda octets: parse_signature(octets, AK.key),
    ):
        try:
            parse(data)
        except SeipdError:
            continue


@given(st.integers(0, 4000), st.binary(max_size=8))
def test_a_damaged_answer_is_never_another_kind_of_error(place: int, put: bytes) -> None:
    data = sample("tpm/answer.json")
    damaged = data[: place % len(data)] + put + data[place % len(data) :]
    try:
        answer = decode_answer(damaged)
        assert isinstance(answer.evidence, TpmEvidence)
        verify_tpm(answer.evidence, enrolled=frozenset())
    except SeipdError:
        return
    assert damaged == data
