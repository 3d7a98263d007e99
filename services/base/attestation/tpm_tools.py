"""Drives this machine's TPM by tpm2-tools: its attestation key, quotes, opened credentials.

The attestation key is a primary key of the endorsement hierarchy: the TPM derives the same one each
time, so nothing of it is stored and a restart loses nothing; clearing the TPM makes another. The
tools are used, not bindings: those have no wheels and want a compiler and the TSS headers.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from services.base.attestation.octets import Octets
from services.base.attestation.tpm import TpmEvidence
from services.base.attestation.verified import Platform
from services.kernel.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator

DEFAULT_PCRS = (0, 1, 2, 3, 4, 5, 6, 7)
DEFAULT_TCTI = "device:/dev/tpmrm0"

_TIMEOUT_S = 30.0
_DIGEST_BYTES = 32
# EK certificates, TCG EK Credential Profile 2.2.1.4: the templates L-1 and L-2.
_EK_CERTIFICATES = {"rsa": "0x01c00002", "ecc": "0x01c0000a"}
_AK_ATTRIBUTES = "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|restricted|sign"


@dataclass(frozen=True, slots=True, kw_only=True)
class EndorsementKey:
    """The TPM's endorsement key: its algorithm as the tools name it, and its certificate."""

    algorithm: str
    certificate: bytes
    """DER."""


class TpmTools:
    """The TPM that ``tcti`` names; ``folder`` is for files that live no longer than a call."""

    platform = Platform.TPM2

    def __init__(
        self, *, folder: Path, tcti: str = DEFAULT_TCTI, pcrs: tuple[int, ...] = DEFAULT_PCRS
    ) -> None:
        self._folder = folder
        self._tcti = tcti
        self._pcrs = pcrs
        self._busy = asyncio.Lock()

    async def quote(self, bound: bytes) -> TpmEvidence:
        """Have the TPM sign its registers together with up to 32 bytes.

        Raises:
            UnavailableError: ``attestation_unavailable``.
        """
        selection = f"sha256:{','.join(str(number) for number in self._pcrs)}"
        async with self._busy:
            with self._scratch() as scratch:
                public = await self._make_ak(scratch)
                await self._tool(
                    scratch,
                    *("tpm2_quote", "-Q", "-c", "ak.ctx", "-l", selection, "-q", bound.hex()),
                    *("-g", "sha256", "-m", "attest", "-s", "signature", "-f", "tss"),
                    *("-o", "pcrs", "-F", "values"),
                )
                values = (scratch / "pcrs").read_bytes()
                return TpmEvidence(
                    attest=(scratch / "attest").read_bytes(),
                    signature=(scratch / "signature").read_bytes(),
                    public=public,
                    pcrs=dict(zip(self._pcrs, _digests(values), strict=True)),
                )

    async def ak_public(self) -> bytes:
        """Return the attestation key's TPMT_PUBLIC.

        Raises:
            UnavailableError: ``attestation_unavailable``.
        """
        async with self._busy:
            with self._scratch() as scratch:
                return await self._make_ak(scratch)

    async def endorsement_key(self) -> EndorsementKey:
        """Return the EK that the TPM has a certificate for.

        Raises:
            UnavailableError: ``attestation_unavailable``: it has none.
        """
        async with self._busy:
            with self._scratch() as scratch:
                for algorithm, index in _EK_CERTIFICATES.items():
                    with suppress(UnavailableError):
                        await self._tool(scratch, "tpm2_nvread", index, "-o", "ek.der")
                        certificate = _one_der((scratch / "ek.der").read_bytes())
                        return EndorsementKey(algorithm=algorithm, certificate=certificate)
        raise _unavailable("the TPM has no certificate of an endorsement key")

    async def open_credential(
        self, ek: EndorsementKey, *, credential: bytes, encrypted_seed: bytes
    ) -> bytes:
        """Open a credential (TPM2_ActivateCredential) and return the secret in it.

        Raises:
            UnavailableError: ``attestation_unavailable``: the TPM refuses; it was made for another
                TPM or another attestation key.
        """
        async with self._busy:
            with self._scratch() as scratch:
                await self._make_ak(scratch)
                await self._tool(scratch, "tpm2_createek", "-Q", "-c", "ek.ctx", "-G", ek.algorithm)
                # The tools' file: magic, version, and the two structures.
                head = bytes.fromhex("badcc0de00000001")
                (scratch / "credential").write_bytes(head + credential + encrypted_seed)
                session = ("-S", "session")
                await self._tool(scratch, "tpm2_startauthsession", "--policy-session", *session)
                await self._tool(scratch, "tpm2_policysecret", "-Q", *session, "-c", "e")
                await self._tool(
                    scratch,
                    *("tpm2_activatecredential", "-Q", "-c", "ak.ctx", "-C", "ek.ctx"),
                    *("-i", "credential", "-o", "secret", "-P", "session:session"),
                )
                return (scratch / "secret").read_bytes()

    async def _make_ak(self, scratch: Path) -> bytes:
        await self._tool(
            scratch,
            *(
                "tpm2_createprimary",
                "-Q",
                "-C",
                "e",
                "-g",
                "sha256",
                "-G",
                "ecc256:ecdsa-sha256:null",
            ),
            *("-a", _AK_ATTRIBUTES, "-c", "ak.ctx"),
        )
        await self._tool(
            scratch, "tpm2_readpublic", "-Q", "-c", "ak.ctx", "-f", "tss", "-o", "ak.pub"
        )
        return Octets(
            (scratch / "ak.pub").read_bytes(), order="big", what="a TPM public key"
        ).sized(2)

    async def _tool(self, scratch: Path, *words: str) -> None:
        try:
            await self._run(scratch, *words)
        finally:
            # Without a resource manager in between, objects of one step are in the next one's way.
            with suppress(UnavailableError):
                await self._run(scratch, "tpm2_flushcontext", "-t")

    async def _run(self, scratch: Path, *words: str) -> None:
        environment = {"PATH": os.environ.get("PATH", os.defpath), "TPM2TOOLS_TCTI": self._tcti}
        try:
            process = await asyncio.create_subprocess_exec(
                *words,
                cwd=scratch,
                env=environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
            )
        except OSError as error:
            raise _unavailable(f"{words[0]} can't be run: {error}") from error
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                _, told = await process.communicate()
        except TimeoutError as error:
            raise _unavailable(f"{words[0]} did not end within {_TIMEOUT_S:.0f} s") from error
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode:
            lines = told.decode("utf-8", "replace").splitlines()
            why = next((line for line in lines if line.startswith("ERROR")), "no word of why")
            raise _unavailable(f"{words[0]}: {why}")

    def _scratch(self) -> _Scratch:
        return _Scratch(self._folder)


class _Scratch:
    """A folder for the files of one call."""

    def __init__(self, parent: Path) -> None:
        self._held = tempfile.TemporaryDirectory(prefix="tpm-", dir=parent)

    def __enter__(self) -> Path:
        return Path(self._held.__enter__())

    def __exit__(self, *exc_info: object) -> None:
        self._held.cleanup()


def _digests(values: bytes) -> Iterator[bytes]:
    for start in range(0, len(values), _DIGEST_BYTES):
        yield values[start : start + _DIGEST_BYTES]


def _one_der(data: bytes) -> bytes:
    """Return a certificate without what fills its room in the TPM up."""
    if data[:2] != b"\x30\x82":
        raise _unavailable("the TPM's certificate is none")
    return data[: 4 + int.from_bytes(data[2:4], "big")]


def _unavailable(what: str) -> UnavailableError:
    return UnavailableError(
        what,
        code="attestation_unavailable",
        mend="install tpm2-tools, and give the daemon's user access to /dev/tpmrm0 (group tss)",
    )
