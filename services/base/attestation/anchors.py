"""The roots of AMD and Intel that come with the program, pinned by their fingerprints."""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives import hashes

from services.base.attestation.chains import load_pem_chain
from services.base.attestation.verified import Platform
from services.kernel.errors import CorruptError

if TYPE_CHECKING:
    from cryptography import x509

_FOLDER = "services.base.attestation"
_AMD = {
    "amd-ark-milan.pem": "69d063b45344d26a2e94e1f4210de49ef555308287d4c174445c95639a540bcd",
    "amd-ark-genoa.pem": "4c6598d19c18719c5dfd4a7d335f674e5bfe1d8f800cea2cf270c10d103db2f1",
    "amd-ark-turin.pem": "1f084161a44bb6d93778a904877d4819cafa5d05ef4193b2ded9dd9c73dd3f6a",
}
_INTEL = {
    "intel-sgx-root-ca.pem": "44a0196b2b99f889b8e149e95b807a350e7424964399e885a7cbb8ccfab674d3"
}
_FILES = {
    Platform.SEV_SNP: _AMD,
    Platform.TDX: _INTEL,
    Platform.SGX: _INTEL,
    Platform.TPM2: {},
}


def vendor_roots(platform: Platform) -> tuple[x509.Certificate, ...]:
    """Return the roots for one platform; for TPMs there are none but the operator's.

    Raises:
        CorruptError: ``roots_altered``: a file is not the root that it should be.
    """
    roots = []
    for name, fingerprint in _FILES[platform].items():
        data = resources.files(_FOLDER).joinpath("roots", name).read_bytes()
        certificate = load_pem_chain(data)[0]
        if certificate.fingerprint(hashes.SHA256()).hex() != fingerprint:
            raise CorruptError(
                f"{name} is not the vendor's root",
                path=name,
                code="roots_altered",
                mend="install the release again",
            )
        roots.append(certificate)
    return tuple(roots)
