"""Which device vouches for a machine is judged when the settings are read."""

from __future__ import annotations

import pytest

from seipd.config.hardware import parse_pcrs
from seipd.config.model import BadSettingsError, Settings


def test_a_server_quotes_the_registers_of_firmware_unless_told_otherwise() -> None:
    assert parse_pcrs(Settings().tpm_pcrs) == tuple(range(8))
    chosen = Settings(
        attestation="tpm2", tpm_tcti="swtpm:host=127.0.0.1,port=2321", tpm_pcrs="7,16"
    )
    assert parse_pcrs(chosen.tpm_pcrs) == (7, 16)


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"attestation": "abacus"}, "attestation"),
        ({"tpm_tcti": ""}, "tpm_tcti"),
        ({"tpm_tcti": "device:/dev/tpm\n"}, "tpm_tcti"),
        ({"tpm_pcrs": "7,0"}, "tpm_pcrs"),
        ({"tpm_pcrs": "7,7"}, "tpm_pcrs"),
        ({"tpm_pcrs": "24"}, "tpm_pcrs"),
        ({"tpm_pcrs": ""}, "tpm_pcrs"),
        ({"attestation": "tdx"}, "attestation_collateral"),
        ({"attestation": "sgx", "attestation_collateral": "here"}, "attestation_collateral"),
        ({"attestation_interval_s": float("nan")}, "attestation_interval_s"),
        ({"attestation_interval_s": 3601.0}, "attestation_interval_s"),
    ],
)
def test_each_wrong_setting_is_named(given, named) -> None:
    with pytest.raises(BadSettingsError) as caught:
        Settings(**given)
    assert {name for name, _ in caught.value.faults} == {named}
