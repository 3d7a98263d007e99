"""Whose signer makes a mesh's first root key: the daemon's own, or one that its operator runs."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from seipd.daemon.lifecycle import ServiceStack
from seipd.daemon.signer_process import SignerProcess
from services.authority.rootkeys.service import ROOT_KEY_ID
from services.base.signing.client import GrpcSigner
from services.base.signing.remote import SCHEME
from services.kernel.errors import ConfigError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from seipd.config.model import Settings
    from seipd.config.paths import Paths

ROOT_PURPOSE = "seipd/record/v1"


@contextlib.asynccontextmanager
async def founding_signer(settings: Settings, paths: Paths) -> AsyncIterator[str]:
    """Give the socket of a signer that has the first root key; one is started where none is set.

    Raises:
        ConfigError: ``no_signer``, ``no_root_key``; or there can't be one of this user.
        StartError: it does not come up.
        UnavailableError: ``signer_unavailable``: the one that is set does not answer.
    """
    if settings.signer == "auto":
        process = SignerProcess(
            state=paths.signer_state,
            socket=paths.signer_socket,
            unlock_file=paths.signer_unlock,
            allow_same_user=settings.allow_insecure_same_user,
        )
        await process.ensure_root_key(key_id=ROOT_KEY_ID, purpose=ROOT_PURPOSE)
        async with ServiceStack([process]):
            yield str(paths.signer_socket)
        return
    if settings.signer == "none" or settings.signer.startswith(SCHEME):
        raise ConfigError(
            "a mesh is founded on the machine of its signer",
            code="no_signer",
            mend="set signer = auto, or the path of its socket",
        )
    try:
        await GrpcSigner(settings.signer).public_key(scope="platform", key_id=ROOT_KEY_ID)
    except NotFoundError as error:
        raise ConfigError(
            f"the signer at {settings.signer} has no key {ROOT_KEY_ID}",
            code="no_root_key",
            mend=f"seipd-signer keygen --key-id {ROOT_KEY_ID} --purpose {ROOT_PURPOSE}, "
            "with the provider that it has",
        ) from error
    yield settings.signer
