"""What is written to and read from the devices of a TEE; the devices themselves are files here."""

from __future__ import annotations

import asyncio
import struct
import uuid
from pathlib import Path

import pytest

from services.base.attestation.devices import GramineQuoter, TsmQuoter, certificates_of
from services.base.attestation.messages import DcapEvidence, SnpEvidence
from services.base.attestation.verified import Platform
from services.kernel.errors import SeipdError, UnavailableError

VCEK, ASK, ARK = (
    uuid.UUID(text)
    for text in (
        "63da758d-e664-4564-adc5-f4b93be8accd",
        "4ab7b379-bbac-4fe4-a02f-05aef327c782",
        "c0b406a4-a803-4952-9743-3fb6014cd0ae",
    )
)


def table(*entries: tuple[uuid.UUID, bytes]) -> bytes:
    head, body = b"", b""
    start = 24 * (len(entries) + 1)
    for name, data in entries:
        head += name.bytes + struct.pack("<II", start + len(body), len(data))
        body += data
    return head + bytes(24) + body


class FakeTsm:
    """Makes the files of configfs-tsm in a folder as soon as it is made."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, provider: str, auxblob: bytes) -> None:
        self.written = b""
        make = Path.mkdir
        inside = {"provider": provider.encode() + b"\n", "outblob": b"report", "auxblob": auxblob}

        def mkdir(path: Path) -> None:
            make(path)
            for name, data in inside.items():
                (path / name).write_bytes(data)

        def rmdir(path: Path) -> None:
            self.written = (path / "inblob").read_bytes() if (path / "inblob").exists() else b""
            for child in path.iterdir():
                child.unlink()
            make_gone(path)

        make_gone = Path.rmdir
        monkeypatch.setattr(Path, "mkdir", mkdir)
        monkeypatch.setattr(Path, "rmdir", rmdir)


def test_an_snp_guest_hands_the_kernel_64_bytes_and_gets_the_chips_certificates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = table((ASK, b"ask"), (VCEK, b"vcek"), (ARK, b"ark"))
    tsm = FakeTsm(monkeypatch, provider="sev_guest", auxblob=held)
    quoter = TsmQuoter(platform=Platform.SEV_SNP, reports=tmp_path)
    evidence = asyncio.run(quoter.quote(b"b" * 64))
    assert evidence == SnpEvidence(report=b"report", chain=(b"vcek", b"ask"))
    assert tsm.written == b"b" * 64
    assert list(tmp_path.iterdir()) == []


def test_a_tdx_guest_adds_the_collateral_that_it_was_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    FakeTsm(monkeypatch, provider="tdx_guest", auxblob=b"")
    quoter = TsmQuoter(platform=Platform.TDX, supplement=b"{}", reports=tmp_path)
    evidence = asyncio.run(quoter.quote(b"b" * 64))
    assert evidence == DcapEvidence(quote=b"report", collateral=b"{}")


def test_a_guest_of_another_kind_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    FakeTsm(monkeypatch, provider="tdx_guest", auxblob=b"")
    with pytest.raises(UnavailableError, match="tdx_guest"):
        asyncio.run(TsmQuoter(platform=Platform.SEV_SNP, reports=tmp_path).quote(b""))
    assert list(tmp_path.iterdir()) == []


def test_an_enclave_writes_its_report_data_and_reads_the_quote(tmp_path: Path) -> None:
    (tmp_path / "quote").write_bytes(b"quote")
    quoter = GramineQuoter(collateral=b"{}", device=tmp_path)
    assert asyncio.run(quoter.quote(b"b")) == DcapEvidence(quote=b"quote", collateral=b"{}")
    assert (tmp_path / "user_report_data").read_bytes() == b"b" + bytes(63)


def test_a_machine_without_the_device_is_unavailable(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    for quoter in (
        TsmQuoter(platform=Platform.TDX, supplement=b"{}", reports=gone),
        GramineQuoter(collateral=b"", device=gone),
    ):
        with pytest.raises(UnavailableError) as caught:
            asyncio.run(quoter.quote(b""))
        assert caught.value.code == "attestation_unavailable"


@pytest.mark.parametrize("data", [b"\1" * 24, VCEK.bytes + struct.pack("<II", 9999, 1), b"\1"])
def test_a_certificate_table_that_points_outside_is_refused(data: bytes) -> None:
    with pytest.raises(SeipdError) as caught:
        certificates_of(data)
    assert caught.value.code == "quote_truncated"


def test_no_table_is_no_certificates() -> None:
    assert certificates_of(b"") == ()
