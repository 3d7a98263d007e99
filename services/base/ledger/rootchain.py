"""The root key chain: which key is the root, since when, and who says so. Pure; no clock.

``root.rotate`` is one link: a change of the roster that hands over to the next key. It has a number
in that hash chain, so it needs no agreement about its order; what has a higher number is signed by
the new key.

    root.rotate  {number, prev, removed: [], servers: [], witnesses,
                  root: {activated_ms, closes_ms, endorsement, endorser, expires_ms, generation,
                         parent, public_key, [recovery_key]}}

The new key signs the record, which shows that somebody has it. ``endorsement`` covers the *claim*,
the body without that field. It is by the key before it (``endorser`` ``root``), with the purpose of
records over {endorses: claim}, or by the recovery key that an earlier link named (``recovery``).
``parent`` is the fingerprint, the SHA-256, of the key that it follows. At ``closes_ms`` the window
ends in which what that key had signed stays good.
"""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec

from services.base.crypto.signatures import verify
from services.kernel import canonical
from services.kernel.errors import InputError, RejectedError
from services.kernel.ids import (
    ServerId,
    b64u_encode,
    parse_key,
    parse_mesh_id,
    parse_server_id,
    parse_signature,
)
from services.kernel.records import PURPOSE_RECORD

if TYPE_CHECKING:
    from services.kernel.ids import MeshId
    from services.kernel.records import Record

ROTATE_KIND: Final = "root.rotate"
PURPOSE_RECOVERY: Final = b"seipd/root-recovery/v1\0"
SIGNED_FOR_MS: Final = 3_600_000
"""How long before its ``not_after`` a record of the root was signed, as it claims itself."""
MAX_LIFETIME_MS: Final = 400 * 86_400_000
MAX_GENERATION: Final = 1 << 31

Endorser = Literal["root", "recovery"]


class RootChainError(RejectedError):
    """A link, or what a root key signed, is not good; ``code`` says why."""

    default_code = "root_unendorsed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """One link: a key that follows another as the root, and its place in the roster."""

    number: int
    prev: str
    witnesses: tuple[ServerId, ...]
    generation: int
    parent: str
    public_key: bytes
    activated_ms: int
    expires_ms: int
    closes_ms: int
    endorser: Endorser
    endorsement: bytes = bytes(64)
    recovery_key: bytes | None = None

    def claim(self, mesh_id: MeshId) -> bytes:
        """Return the bytes that the endorser signs."""
        claim = self._body(self._root())
        if self.endorser == "recovery":
            return PURPOSE_RECOVERY + bytes.fromhex(mesh_id) + canonical.encode(claim)
        # A root key signs records; nothing that has this one field passes for one.
        return PURPOSE_RECORD + bytes.fromhex(mesh_id) + canonical.encode({"endorses": claim})

    def value(self) -> dict[str, Any]:
        """Return the body of the record."""
        return self._body({**self._root(), "endorsement": b64u_encode(self.endorsement)})

    def _body(self, root: dict[str, Any]) -> dict[str, Any]:
        return {
            "number": self.number,
            "prev": self.prev,
            "servers": [],
            "removed": [],
            "witnesses": list(self.witnesses),
            "root": root,
        }

    def _root(self) -> dict[str, Any]:
        value: dict[str, Any] = {
            "generation": self.generation,
            "parent": self.parent,
            "public_key": b64u_encode(self.public_key),
            "activated_ms": self.activated_ms,
            "expires_ms": self.expires_ms,
            "closes_ms": self.closes_ms,
            "endorser": self.endorser,
        }
        if self.recovery_key is not None:
            value["recovery_key"] = b64u_encode(self.recovery_key)
        return value


class _RootWire(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    generation: int
    parent: str
    public_key: str
    activated_ms: int
    expires_ms: int
    closes_ms: int
    endorser: Endorser
    endorsement: str
    recovery_key: str | None = None


class _LinkWire(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    number: int
    prev: str
    servers: list[str]
    removed: list[str]
    witnesses: list[str]
    root: _RootWire


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """A key of the chain, and how it stands."""

    generation: int
    public_key: bytes
    number: int
    """Of its link in the roster: what has a higher number is signed by it, or by a later one."""
    activated_ms: int
    expires_ms: int
    endorser: Endorser | None = None
    closes_ms: int | None = None
    """When what it signed stops to count; None while it is the newest."""
    is_closed: bool = False

    @property
    def fingerprint(self) -> str:
        """The SHA-256 of the key, in hex."""
        return fingerprint_of(self.public_key)


def fingerprint_of(public_key: bytes) -> str:
    """Return the SHA-256 of a root key, in hex; that of the genesis key is the mesh id."""
    return hashlib.sha256(public_key).hexdigest()


def link_from_record(record: Record) -> Link:
    """Check the form of ``root.rotate``.

    Raises:
        InputError: malformed, or not signed by the key that it names.
    """
    try:
        wire = msgspec.convert(record.body, _LinkWire)
    except msgspec.ValidationError as error:
        raise InputError(f"{ROTATE_KIND}: {error}") from error
    root = wire.root
    if not 1 <= wire.number < 1 << 40 or not 2 <= root.generation < MAX_GENERATION:
        raise InputError(f"{ROTATE_KIND}: number or generation out of range")
    if wire.servers or wire.removed:
        raise InputError(f"{ROTATE_KIND} changes no server")
    key = parse_key(root.public_key)
    if key != record.actor:
        raise InputError(f"{ROTATE_KIND} is signed by the key that it names")
    link = Link(
        number=wire.number,
        prev=wire.prev,
        witnesses=tuple(parse_server_id(text) for text in wire.witnesses),
        generation=root.generation,
        parent=parse_mesh_id(root.parent),
        public_key=key,
        activated_ms=root.activated_ms,
        expires_ms=root.expires_ms,
        closes_ms=root.closes_ms,
        endorser=root.endorser,
        endorsement=parse_signature(root.endorsement),
        recovery_key=parse_key(root.recovery_key) if root.recovery_key is not None else None,
    )
    if link.value() != record.body:
        raise InputError(f"{ROTATE_KIND}: a field is there that says nothing")
    return link


def is_recovery(record: Record) -> bool:
    """Say whether a record is a link that claims the recovery key for it."""
    root = record.body.get("root") if record.kind == ROTATE_KIND else None
    return isinstance(root, dict) and root.get("endorser") == "recovery"


class RootChain:
    """The generations from the genesis key to the newest; a value."""

    def __init__(
        self,
        mesh_id: MeshId,
        generations: tuple[Generation, ...],
        recovery_keys: tuple[tuple[int, bytes], ...] = (),
    ) -> None:
        self.mesh_id = mesh_id
        self.generations = generations
        self.recovery_keys = recovery_keys
        self._by_key = {one.public_key: one for one in generations}
        self._all = frozenset(self._by_key)

    @classmethod
    def of_genesis(
        cls, mesh_id: MeshId, root_key: bytes, *, activated_ms: int, expires_ms: int
    ) -> RootChain:
        """Return the chain of one generation that a mesh begins with."""
        first = Generation(
            generation=1,
            public_key=root_key,
            number=0,
            activated_ms=activated_ms,
            expires_ms=expires_ms,
        )
        return cls(mesh_id, (first,))

    @property
    def newest(self) -> Generation:
        """The generation in force."""
        return self.generations[-1]

    def of_key(self, key: bytes) -> Generation | None:
        """Return the generation of a key."""
        return self._by_key.get(key)

    def of_fingerprint(self, fingerprint: str) -> Generation | None:
        """Return the generation of a fingerprint."""
        return next((one for one in self.generations if one.fingerprint == fingerprint), None)

    def at(self, number: int) -> Generation:
        """Return the generation that signs the roster change of a number."""
        return next(
            (one for one in reversed(self.generations) if one.number < number), self.generations[0]
        )

    def successor(self, generation: int) -> Generation | None:
        """Return the generation that follows one."""
        return self.generations[generation] if generation < len(self.generations) else None

    @property
    def recovery_key(self) -> bytes | None:
        """The recovery key in force."""
        return self.recovery_keys[-1][1] if self.recovery_keys else None

    def recovery_key_at(self, number: int) -> bytes | None:
        """Return the recovery key that was named by a number of the roster."""
        named = (key for at, key in reversed(self.recovery_keys) if at <= number)
        return next(named, None)

    def before(self, link: Link) -> Generation:
        """Return the generation that a link follows, once the link was checked against it.

        Raises:
            RootChainError: ``root_orphan`` (it follows none of this chain), ``root_skipped``,
                ``root_window`` (its times are out of order), ``root_repeated`` (an old key comes
                back), or ``root_unendorsed``.
        """
        parent = self.of_fingerprint(link.parent)
        if parent is None:
            raise RootChainError("it follows no key of this chain", code="root_orphan")
        if link.generation != parent.generation + 1:
            raise RootChainError(
                f"generation {link.generation} can't follow {parent.generation}",
                code="root_skipped",
            )
        if self.is_used(link.public_key, parent):
            raise RootChainError("a key is the root once", code="root_repeated")
        lifetime_ms = link.expires_ms - link.activated_ms
        in_order = parent.activated_ms <= link.activated_ms <= link.closes_ms <= link.expires_ms
        if not in_order or not 0 < lifetime_ms <= MAX_LIFETIME_MS:
            raise RootChainError("its times are out of order", code="root_window")
        self._require_endorsed(link, parent)
        return parent

    def is_used(self, key: bytes, until: Generation) -> bool:
        """Say whether a key was the root up to a generation."""
        used = self.of_key(key)
        return used is not None and used.generation <= until.generation

    def _require_endorsed(self, link: Link, parent: Generation) -> None:
        # That of the place where the link stands: all judge alike, whatever they heard first.
        recovery_key = self.recovery_key_at(link.number - 1)
        endorser = recovery_key if link.endorser == "recovery" else parent.public_key
        if endorser is None or not verify(endorser, link.claim(self.mesh_id), link.endorsement):
            raise RootChainError(
                f"generation {link.generation} is not endorsed by the {link.endorser} key before it"
            )

    def with_link(self, link: Link) -> RootChain:
        """Return the chain that a link makes longer; it was checked, and follows the newest."""
        parent = self.newest
        fresh = Generation(
            generation=link.generation,
            public_key=link.public_key,
            number=link.number,
            activated_ms=link.activated_ms,
            expires_ms=link.expires_ms,
            endorser=link.endorser,
        )
        ended = dataclasses.replace(parent, closes_ms=link.closes_ms)
        chain = RootChain(self.mesh_id, (*self.generations[:-1], ended, fresh), self.recovery_keys)
        if link.recovery_key is None:
            return chain
        return chain.with_recovery_key(link.recovery_key, link.number)

    def with_recovery_key(self, key: bytes, number: int) -> RootChain:
        """Return the chain with a recovery key that is named at a number of the roster."""
        keys = (*self.recovery_keys, (number, key))
        return RootChain(self.mesh_id, self.generations, keys)

    def with_closed(self, generation: int) -> RootChain:
        """Return the chain with the window of a generation closed, and of all before it."""
        return RootChain(
            self.mesh_id,
            tuple(
                dataclasses.replace(one, is_closed=True) if one.generation <= generation else one
                for one in self.generations
            ),
            self.recovery_keys,
        )

    def require_change(self, record: Record, number: int, *, closed: int | None = None) -> None:
        """Check that a roster change is signed by the key that its number belongs to.

        Args:
            record: the change; its signature was checked.
            number: its number.
            closed: the generation whose window it closes.

        Raises:
            RootChainError: ``root_retired``: by a key that another followed by then;
                ``root_expired``; ``root_window``: it closes a window that is open still, or no
                window; ``rejected_unauthorised``: by no root key, or by one that was none yet.
        """
        wanted = self.at(number)
        signer = self.of_key(record.actor)
        if signer is None or signer.generation > wanted.generation:
            raise RootChainError("only the root changes the roster", code="rejected_unauthorised")
        if signer.generation < wanted.generation:
            raise RootChainError(
                f"root generation {signer.generation} was followed by another before this number",
                code="root_retired",
            )
        signed_ms = record.not_after - SIGNED_FOR_MS
        if signed_ms > signer.expires_ms:
            raise RootChainError(
                f"root generation {signer.generation} had expired", code="root_expired"
            )
        if closed is not None:
            self._require_over(closed, signer, signed_ms)

    def _require_over(self, closed: int, signer: Generation, now_ms: int) -> None:
        if not 1 <= closed == signer.generation - 1:
            raise RootChainError("a key closes the window of the one before", code="root_window")
        closes_ms = self.generations[closed - 1].closes_ms
        if closes_ms is None or now_ms < closes_ms:
            raise RootChainError("this window is open still", code="root_window")

    def speaks(self, record: Record, *, number: int, time_ms: int) -> frozenset[bytes]:
        """Return the keys that are the root where a record stands in the order.

        Args:
            record: the record.
            number: of the roster that its feed had named.
            time_ms: when it was settled; its stamp as long as it is not.
        """
        signed_ms = record.not_after - SIGNED_FOR_MS
        if len(self.generations) == 1 and signed_ms <= self.newest.expires_ms:
            return self._all
        return frozenset(
            one.public_key
            for one in self.generations
            if one.number <= number
            and signed_ms <= one.expires_ms
            and (one.closes_ms is None or time_ms <= one.closes_ms)
        )
