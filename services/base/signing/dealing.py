r"""A recovery key from its dealing to its one use. Pure; what is secret here stays in the signer.

    context   = SHA-256( "seipd/dealing/v1\0" || mesh id, 32 || canonical JSON
                         {holders: [identity keys], number, recovery_key, threshold} )
    signature = by the recovery key, over "seipd/recovery-key/v1\0" || context
    sealed    = HPKE to the holder's identity, info "seipd/share-seal/v1\0" || context || index
    released  = HPKE to a one-time key, info "seipd/share-release/v1\0" || context
                || SHA-256( claim ) || index
    endorsement = by the recovery key, over the claim, which begins with "seipd/root-recovery/v1\0"

The context is the name of the dealing. It fixes who holds which share of which key, so a share of
another dealing, or at another holder's place, opens nothing here. The claim says which root key is
to follow; a share that was released for one claim opens for no other.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from services.base.crypto.aead import DecryptError
from services.base.crypto.sealing import (
    SEALED_OVERHEAD_BYTES,
    curve_private,
    curve_public,
    open_sealed_for,
    seal_for,
)
from services.base.crypto.shamir import SECRET_BYTES, combine
from services.base.crypto.signatures import SigningKey, verify
from services.base.crypto.verifiable import (
    CONTEXT_BYTES,
    OPENING_BYTES,
    Opening,
    Proof,
    deal,
    decode_opening,
    is_of,
)
from services.kernel import canonical
from services.kernel.errors import ForbiddenError, InputError, RejectedError
from services.kernel.ids import MeshId, b64u_encode

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from services.base.crypto.shamir import RandomBytes

SEALED_SHARE_BYTES = OPENING_BYTES + SEALED_OVERHEAD_BYTES
PURPOSE_CLAIM = b"seipd/root-recovery/v1\0"
MAX_CLAIM_BYTES = 4096

_PURPOSE_DEALING = b"seipd/dealing/v1\0"
_PURPOSE_KEY = b"seipd/recovery-key/v1\0"
_PURPOSE_SEAL = "seipd/share-seal/v1"
_PURPOSE_RELEASE = "seipd/share-release/v1"


class ShareError(RejectedError):
    """A share is not what it should be; ``code`` is ``share_unopened`` or ``share_forged``."""

    default_code = "share_forged"


class RecoveryError(RejectedError):
    """The shares that are here give no recovery key; ``bad`` names the bad ones by index."""

    default_code = "too_few_shares"

    def __init__(self, what: str, *, code: str, mend: str = "", bad: Mapping[int, str]) -> None:
        super().__init__(what, code=code, mend=mend)
        self.bad = dict(bad)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dealing:
    """What is public of a dealing: the key, who holds shares of it, and the proof that they fit."""

    mesh_id: MeshId
    number: int
    recovery_key: bytes
    holders: tuple[bytes, ...]
    proof: Proof

    @property
    def context(self) -> bytes:
        """The name of the dealing, which all its parts are bound to."""
        return dealing_context(
            self.mesh_id, self.number, self.recovery_key, self.proof.threshold, self.holders
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Dealt:
    """A fresh dealing: what is public, the key's own signature, and the sealed shares."""

    dealing: Dealing
    signature: bytes
    sealed: tuple[bytes, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rebuilt:
    """The recovery key, and the shares that were bad, by index."""

    key: SigningKey = field(repr=False)
    bad: dict[int, str]


def dealing_context(
    mesh_id: MeshId, number: int, recovery_key: bytes, threshold: int, holders: Sequence[bytes]
) -> bytes:
    """Return the 32 bytes that name a dealing."""
    value = {
        "holders": [b64u_encode(one) for one in holders],
        "number": number,
        "recovery_key": b64u_encode(recovery_key),
        "threshold": threshold,
    }
    data = _PURPOSE_DEALING + bytes.fromhex(mesh_id) + canonical.encode(value)
    return hashlib.sha256(data).digest()


def deal_key(
    *,
    mesh_id: MeshId,
    number: int,
    threshold: int,
    holders: Sequence[bytes],
    random: RandomBytes,
) -> Dealt:
    """Make a recovery key, deal it to identities, and forget it.

    Raises:
        InputError: ``bad_threshold``; ``bad_key``: a holder can't be sealed to.
    """
    key = SigningKey(random(SECRET_BYTES))
    context = dealing_context(mesh_id, number, key.public_key, threshold, holders)
    openings, proof = deal(
        key.seed, threshold=threshold, count=len(holders), context=context, random=random
    )
    sealed = tuple(
        seal_for(
            curve_public(holder),
            one.encode(),
            purpose=_PURPOSE_SEAL,
            context=_at(context, one.share.index),
        )
        for holder, one in zip(holders, openings, strict=True)
    )
    return Dealt(
        dealing=Dealing(
            mesh_id=mesh_id,
            number=number,
            recovery_key=key.public_key,
            holders=tuple(holders),
            proof=proof,
        ),
        signature=vouch(key, context),
        sealed=sealed,
    )


def vouch(key: SigningKey, context: bytes) -> bytes:
    """Return a recovery key's own signature over the dealing that names it."""
    return key.sign(_PURPOSE_KEY + context)


def key_vouches(recovery_key: bytes, context: bytes, signature: bytes) -> bool:
    """Say whether whoever dealt had the recovery key that the dealing names."""
    return verify(recovery_key, _PURPOSE_KEY + context, signature)


def open_share(seed: bytes, sealed: bytes, *, index: int, dealing: Dealing) -> Opening:
    """Open one's own share, and check that all others' fit to it.

    Raises:
        ShareError: ``share_unopened``: sealed to another key, for another dealing, or changed;
            ``share_forged``: not the one that the dealer committed to, or off the polynomial.
    """
    context = dealing.context
    return _opened(
        curve_private(seed), sealed, _PURPOSE_SEAL, _at(context, index), index, dealing, context
    )


def release_share(
    opening: Opening, *, one_time_key: bytes, claim: bytes, dealing: Dealing
) -> bytes:
    """Seal a share to the one-time key of a server that recovers the root.

    Raises:
        InputError: ``bad_key``.
    """
    context = _at(_released(dealing.context, claim), opening.share.index)
    return seal_for(one_time_key, opening.encode(), purpose=_PURPOSE_RELEASE, context=context)


def rebuild_key(
    one_time_private: bytes, released: Mapping[int, bytes], *, claim: bytes, dealing: Dealing
) -> Rebuilt:
    """Combine released shares; a bad one is named and left out.

    Raises:
        RecoveryError: ``too_few_shares``: not enough good ones; ``key_mismatch``: good shares of a
            secret that is not the recovery key's, so the dealer cheated.
    """
    context, bad, shares = dealing.context, {}, []
    base, threshold = _released(context, claim), dealing.proof.threshold
    for index, sealed in sorted(released.items()):
        try:
            at = _at(base, index)
            args = (one_time_private, sealed, _PURPOSE_RELEASE, at, index, dealing, context)
            shares.append(_opened(*args).share)
        except ShareError as error:
            bad[index] = error.code
    if len(shares) < threshold:
        missing = threshold - len(shares)
        raise RecoveryError(
            f"{len(shares)} of {threshold} good shares are here",
            code="too_few_shares",
            mend=f"{missing} more of the holders must release theirs",
            bad=bad,
        )
    try:
        key = SigningKey(combine(shares, threshold=threshold))
    except InputError:
        key = None
    if key is None or key.public_key != dealing.recovery_key:
        raise RecoveryError(
            "the shares are those dealt, and not of the recovery key: the dealer cheated",
            code="key_mismatch",
            mend="recover with the shares of another dealing, or the offline recovery file",
            bad=bad,
        )
    return Rebuilt(key=key, bad=bad)


def endorse(key: SigningKey, claim: bytes) -> bytes:
    """Return the recovery key's signature over a claim, the only thing that it ever signs.

    Raises:
        ForbiddenError: ``purpose_refused``.
    """
    if not claim.startswith(PURPOSE_CLAIM) or len(claim) > MAX_CLAIM_BYTES:
        raise ForbiddenError("a recovery key endorses a root key alone", code="purpose_refused")
    return key.sign(claim)


def _opened(
    private: bytes,
    sealed: bytes,
    purpose: str,
    info: bytes,
    index: int,
    dealing: Dealing,
    context: bytes,
) -> Opening:
    try:
        data = open_sealed_for(private, sealed, purpose=purpose, context=info)
        opening = decode_opening(index, data)
    except (DecryptError, InputError) as error:
        raise ShareError(f"share {index} does not open", code="share_unopened") from error
    if not is_of(opening, dealing.proof, context):
        raise ShareError(f"share {index} is not the one dealt", code="share_forged")
    return opening


def _released(context: bytes, claim: bytes) -> bytes:
    return context + hashlib.sha256(claim).digest()


def _at(context: bytes, index: int) -> bytes:
    if len(context) % CONTEXT_BYTES or not 0 <= index <= 0xFF:
        raise ShareError(f"there is no share {index}", code="share_unopened")
    return context + bytes([index])
