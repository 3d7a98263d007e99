"""A TPM of a few lines: it signs attestations with a key of its own, as fast as tests need."""

from __future__ import annotations

import hashlib
import struct

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from services.base.attestation.tpm import TpmEvidence

_AK_ATTRIBUTES = 0x00050072  # fixedTPM, fixedParent, origin, userWithAuth, restricted, sign


def sized(data: bytes) -> bytes:
    return struct.pack(">H", len(data)) + data


class SigningTpm:
    """One TPM: its registers can be set."""

    def __init__(self, number: int = 1) -> None:
        self._key = ec.derive_private_key(1000 + number, ec.SECP256R1())
        self.pcrs = {0: bytes(32), 7: bytes(32)}

    @property
    def public(self) -> bytes:
        point = self._key.public_key().public_numbers()
        head = struct.pack(">HHI", 0x0023, 0x000B, _AK_ATTRIBUTES) + sized(b"")
        curve = struct.pack(">HHHHH", 0x0010, 0x0018, 0x000B, 0x0003, 0x0010)
        return (
            head + curve + sized(point.x.to_bytes(32, "big")) + sized(point.y.to_bytes(32, "big"))
        )

    def quote(self, bound: bytes) -> TpmEvidence:
        chosen = sum(1 << number for number in self.pcrs).to_bytes(3, "little")
        digest = hashlib.sha256(b"".join(self.pcrs.values())).digest()
        attest = (
            struct.pack(">IH", 0xFF544347, 0x8018)
            + sized(b"signer")
            + sized(bound)
            + struct.pack(">QIIBQ", 1, 0, 0, 1, 0)
            + struct.pack(">IH", 1, 0x000B)
            + bytes([3])
            + chosen
            + sized(digest)
        )
        r, s = decode_dss_signature(self._key.sign(attest, ec.ECDSA(hashes.SHA256())))
        signature = struct.pack(">HH", 0x0018, 0x000B) + b"".join(
            sized(number.to_bytes(32, "big")) for number in (r, s)
        )
        return TpmEvidence(
            attest=attest, signature=signature, public=self.public, pcrs=dict(self.pcrs)
        )
