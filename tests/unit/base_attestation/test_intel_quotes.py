"""SGX and TDX: quotes of real processors verify, and none that differs from them by a bit."""

from __future__ import annotations

import dataclasses

import pytest

from services.base.attestation.anchors import vendor_roots
from services.base.attestation.dcap import check_signatures, verify_dcap
from services.base.attestation.dcap_quote import TdReport, parse_quote
from services.base.attestation.tcb import parse_collateral, worst
from services.base.attestation.verified import Platform
from services.kernel.errors import SeipdError
from tests.unit.base_attestation.quote_kit import sample, unnoticed, when

ROOTS = vendor_roots(Platform.TDX)
AT = when("2025-07-01")
SGX = sample("intel/sgx_quote")
SGX_SAYS = parse_collateral(sample("intel/sgx_quote_collateral.json"))
TDX = sample("intel/tdx_quote")
TDX_SAYS = parse_collateral(sample("intel/tdx_quote_collateral.json"))
V5 = sample("intel/tdx_quote_outdated")
V5_SAYS = parse_collateral(sample("intel/tdx_quote_outdated_collateral.json"))
V5_AT = when("2026-03-01")
CONFIGURABLE = frozenset({"UpToDate", "ConfigurationAndSWHardeningNeeded"})
QUOTES = {"sgx": (SGX, SGX_SAYS), "tdx": (TDX, TDX_SAYS)}
WITHOUT_COLLATERAL = {
    "v4 of a cloud guest": (sample("intel/cos-113-tdx-quote.dat"), when("2025-01-01")),
    "v4 of Sapphire Rapids": (sample("intel/tdx_prod_quote_SPR_E4.dat")[:-39], when("2024-01-01")),
    "v5": (sample("intel/quote_v5_sample.dat"), when("2026-03-01")),
}


def code_of(data: bytes = TDX, collateral: object = TDX_SAYS, **changes: object) -> str:
    with pytest.raises(SeipdError) as caught:
        verify_dcap(data, collateral, **({"anchors": ROOTS, "at": AT} | changes))
    return caught.value.code


def test_an_sgx_quote_of_a_real_processor_verifies() -> None:
    assert code_of(SGX, SGX_SAYS) == "quote_tcb_out_of_date"
    quote = verify_dcap(SGX, SGX_SAYS, anchors=ROOTS, at=AT, accepted_states=CONFIGURABLE)
    assert quote.platform is Platform.SGX
    assert quote.bound.rstrip(b"\0") == b"Hello, world!"
    assert quote.tcb_status == "ConfigurationAndSWHardeningNeeded"
    assert quote.registers["mr_enclave"] == SGX[48 + 64 : 48 + 96].hex()


def test_a_tdx_quote_of_a_real_processor_verifies() -> None:
    quote = verify_dcap(TDX, TDX_SAYS, anchors=ROOTS, at=AT)
    assert quote.platform is Platform.TDX
    assert quote.tcb_status == "UpToDate"
    assert quote.hardware.startswith("b0c06f000000-")
    assert quote.bound == TDX[48 + 520 : 48 + 584]
    assert quote.registers["mr_td"] == TDX[48 + 136 : 48 + 184].hex()


def test_a_version_5_quote_of_firmware_below_every_level_is_refused() -> None:
    assert check_signatures(V5, anchors=ROOTS, at=V5_AT)
    assert code_of(V5, V5_SAYS, at=V5_AT) == "quote_tcb_out_of_date"
    anything = frozenset({"OutOfDate"})
    assert code_of(V5, V5_SAYS, at=V5_AT, accepted_states=anything) == "quote_tcb_out_of_date"


@pytest.mark.parametrize("name", WITHOUT_COLLATERAL)
def test_signatures_of_other_real_quotes_are_good(name: str) -> None:
    data, at = WITHOUT_COLLATERAL[name]
    quote, line = check_signatures(data, anchors=ROOTS, at=at)
    assert isinstance(quote.body, TdReport)
    assert line[-1] in ROOTS
    assert unnoticed(data, lambda altered: check_signatures(altered, anchors=ROOTS, at=at)) == []


@pytest.mark.parametrize("name", QUOTES)
def test_att_01_each_quote_with_one_bit_changed_fails(name: str) -> None:
    data, collateral = QUOTES[name]

    def verify(altered: bytes) -> None:
        verify_dcap(altered, collateral, anchors=ROOTS, at=AT, accepted_states=CONFIGURABLE)

    assert unnoticed(data, verify, count=1500) == []


@pytest.mark.parametrize(
    "field", ["tcb_info", "tcb_info_signature", "qe_identity", "qe_identity_signature"]
)
def test_att_01_collateral_with_one_bit_changed_fails(field: str) -> None:
    def verify(altered: bytes) -> None:
        changed = dataclasses.replace(TDX_SAYS, **{field: altered})
        verify_dcap(TDX, changed, anchors=ROOTS, at=AT)

    assert unnoticed(getattr(TDX_SAYS, field), verify) == []


def test_each_intel_refusal_has_its_own_code() -> None:
    assert code_of(TDX[:1000]) == "quote_truncated"
    assert code_of(TDX + b"\0" * 20 + b"x") == "quote_trailing"
    assert code_of(b"\x03\0" + TDX[2:]) == "quote_malformed"
    assert code_of(sample("intel/tdx_prod_quote_SPR_E4.dat")) == "quote_trailing"
    assert code_of(anchors=vendor_roots(Platform.SEV_SNP)) == "quote_chain_broken"
    assert code_of(at=when("2033-01-01")) == "quote_chain_expired"
    assert code_of(at=when("2025-08-01")) == "quote_collateral_stale"
    assert code_of(SGX, TDX_SAYS) == "quote_collateral_bad"


def test_collateral_of_another_platform_is_refused() -> None:
    assert code_of(TDX, V5_SAYS, at=V5_AT) == "quote_other_hardware"


def test_collateral_without_the_list_of_the_pck_authority_is_refused() -> None:
    short = dataclasses.replace(TDX_SAYS, crls=TDX_SAYS.crls[:1])
    assert code_of(TDX, short) == "quote_collateral_bad"


def test_an_unknown_word_for_a_state_is_the_worst() -> None:
    assert worst("UpToDate", "Fine", "Revoked") == "Fine"


def test_the_chain_in_a_quote_has_one_spelling() -> None:
    chain = parse_quote(TDX).pck_chain
    at = TDX.index(chain)
    # The same certificates, one line broken elsewhere: as many bytes, other bytes.
    line = chain.index(b"\n", 60)
    moved = chain[: line - 1] + chain[line : line + 1] + chain[line - 1 : line] + chain[line + 1 :]
    altered = TDX[:at] + moved + TDX[at + len(chain) :]
    assert len(altered) == len(TDX)
    assert code_of(altered) == "quote_malformed"
