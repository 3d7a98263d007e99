"""SEV-SNP: reports of real chips verify, and none that differs from them by a bit."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from services.base.attestation.anchors import vendor_roots
from services.base.attestation.chains import load_certificate, load_pem_chain
from services.base.attestation.snp import Tcb, parse_report, verify_snp
from services.base.attestation.verified import Platform
from services.kernel.errors import SeipdError
from tests.unit.base_attestation.quote_kit import sample, unnoticed, when

AT = when("2025-01-01")
ROOTS = vendor_roots(Platform.SEV_SNP)
REPORT = sample("sev-snp/virtee_report.bin")
VCEK = load_certificate(sample("sev-snp/virtee_vcek.der"))
ASK, ARK = load_pem_chain(sample("sev-snp/ask_ark_milan.pem"))


def code_of(data: bytes, chain: tuple = (VCEK, ASK), **changes: object) -> str:
    """Return the code of the refusal."""
    arguments = {"anchors": ROOTS, "at": AT} | changes
    with pytest.raises(SeipdError) as caught:
        verify_snp(data, chain, **arguments)
    return caught.value.code


def test_a_report_of_a_real_chip_verifies() -> None:
    quote = verify_snp(REPORT, (VCEK, ASK), anchors=ROOTS, at=AT)
    assert quote.platform is Platform.SEV_SNP
    assert quote.bound == REPORT[0x50:0x90]
    assert quote.hardware == REPORT[0x1A0:0x1E0].hex()
    assert quote.registers["measurement"] == REPORT[0x90:0xC0].hex()
    assert verify_snp(REPORT, (VCEK, ASK, ARK), anchors=ROOTS, at=AT) == quote


def test_att_01_each_report_with_one_bit_changed_fails() -> None:
    def verify(altered: bytes) -> None:
        verify_snp(altered, (VCEK, ASK), anchors=ROOTS, at=AT)

    assert unnoticed(REPORT, verify, count=1184) == []


@pytest.mark.parametrize("which", [0, 1], ids=["vcek", "ask"])
def test_att_01_each_certificate_with_one_bit_changed_fails(which: int) -> None:
    def verify(altered: bytes) -> None:
        chain = [VCEK, ASK]
        chain[which] = load_certificate(altered)
        verify_snp(REPORT, chain, anchors=ROOTS, at=AT)

    assert unnoticed((VCEK, ASK)[which].public_bytes(Encoding.DER), verify) == []


def test_att_01_a_guest_that_its_host_may_debug_is_refused() -> None:
    report = sample("sev-snp/google_report.bin")
    vcek = load_certificate(sample("sev-snp/google_vcek.der"))
    assert parse_report(report).policy & 1 << 19
    assert code_of(report, (vcek, ASK)) == "quote_debug"


def test_each_refusal_has_its_own_code() -> None:
    other = load_certificate(sample("sev-snp/google_vcek.der"))
    assert code_of(REPORT[:-1]) == "quote_truncated"
    assert code_of(REPORT + b"\0") == "quote_trailing"
    assert code_of(b"") == "quote_truncated"
    assert code_of(REPORT, (other, ASK)) == "quote_bad_signature"
    assert code_of(REPORT, (VCEK,)) == "quote_chain_broken"
    assert code_of(REPORT, (VCEK, ARK)) == "quote_chain_broken"
    assert code_of(REPORT, ()) == "quote_chain_broken"
    assert code_of(REPORT, anchors=vendor_roots(Platform.TDX)) == "quote_chain_broken"
    assert code_of(REPORT, at=when("2031-01-01")) == "quote_chain_expired"
    assert code_of(REPORT, at=when("2023-04-01")) == "quote_chain_expired"
    # A key that is certified, and of another kind.
    assert code_of(REPORT, (ASK, ARK)) == "quote_key_not_certified"


def test_firmware_older_than_asked_for_is_refused() -> None:
    told = Tcb(boot_loader=3, tee=0, snp=8, microcode=0x73)
    newer = Tcb(boot_loader=3, tee=0, snp=8, microcode=0x74)
    assert verify_snp(REPORT, (VCEK, ASK), anchors=ROOTS, at=AT, minimum_tcb=told)
    assert code_of(REPORT, minimum_tcb=newer) == "quote_tcb_out_of_date"


def test_the_roots_of_three_generations_sign_their_intermediates() -> None:
    for name in ("ask_ark_milan.pem", "ask_ark_genoa.pem", "ask_ark_turin_vcek.pem"):
        ask, ark = load_pem_chain(sample(f"sev-snp/{name}").replace(b"\r\n", b"\n"))
        assert ark in ROOTS
        ask.verify_directly_issued_by(ark)
