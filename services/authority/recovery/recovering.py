"""A lost root is followed by a new one: asked for here, vouched for by enough of the holders.

Three steps, each an operator's: a server asks (``begin``), holders release their shares to it
(``approve``), the server that asked has its signer endorse the new root key by them (``finish``).
With an offline file its owner has the signer endorse the claim; the daemon never sees the file.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from services.authority.governance import parameters
from services.authority.recovery.messages import (
    RELEASE_KIND,
    REQUEST_KIND,
    Head,
    Request,
    claim_bytes,
)
from services.authority.recovery.planning import dealing_of, released_shares, sealed_share
from services.authority.recovery.view import VIEW, head_of, usable
from services.base.crypto.signatures import verify
from services.base.ledger.author import sign_by_root
from services.base.ledger.rootchain import ROTATE_KIND, Link, fingerprint_of
from services.base.signing import recovery_wire as wire
from services.base.signing.dealing import open_share, release_share
from services.kernel import canonical
from services.kernel.errors import ConflictError, ForbiddenError, NotFoundError, UnavailableError
from services.kernel.ids import b64u_encode, parse_key

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from services.authority.ports import Json, Ledger
    from services.authority.recovery.ports import RecoverySigner, SignerHost
    from services.base.crypto.signatures import SigningKey
    from services.base.ledger.author import Author
    from services.base.signing.dealing import Dealing
    from services.kernel.clock import Clock
    from services.kernel.ids import ServerId

    KeyIds = Callable[[int], Sequence[str]]

logger = logging.getLogger(__name__)

DAY_MS = 86_400_000
WINDOW_MS = DAY_MS
_CLAIM_AT = len(b"seipd/root-recovery/v1\0") + 32


class RootRecovery:
    """What operators do about a lost root, one server at a time."""

    def __init__(
        self, *, ledger: Ledger, author: Author, key: SigningKey, host: SignerHost, clock: Clock
    ) -> None:
        self._ledger = ledger
        self._author = author
        self._key = key
        self._host = host
        self._clock = clock
        self._turn = asyncio.Lock()

    def requests(self) -> list[Json]:
        """Return who asks for shares now, for which key, and who released theirs."""
        found = []
        for server in self._ledger.charter.servers():
            request = self._ledger.state.get(VIEW, f"request/{server}")
            if request is not None and self._is_open(request):
                found.append(self._shown(server, request))
        return found

    async def begin(self, *, again: bool = False) -> Json:
        """Ask for shares, with a new root key of the signer here; asked again, go on with that.

        What the signer has forgotten, since it ended meanwhile, is begun anew.

        Args:
            again: though this server released its share to another one.

        Raises:
            ConflictError: ``root_here``, ``no_recovery_key``, or ``released_elsewhere``.
            UnavailableError: ``signer_unavailable``; the ledger takes no writes.
            ConfigError: there can't be a signer here.
        """
        async with self._turn:
            await self._require_lost()
            own = self._ledger.server_id
            number = self._number()
            link = await self._link()
            if not again:
                self._require_unreleased(number, own)
            desk = await self._host.desk()
            if not await self._goes_on(desk, own, link.public_key):
                data = link.claim(self._ledger.mesh_id)
                begun = await desk.begin(wire.BeginRequest(claim=b64u_encode(data)))
                body = Request(
                    number=number,
                    one_time_key=parse_key(begun.one_time_key),
                    claim=canonical.decode_object(data[_CLAIM_AT:]),
                ).body()
                await self._ledger.submit([self._author.record(REQUEST_KIND, body)])
                await self._release_own(own, fingerprint_of(link.public_key))
            return self._shown(own, self._request_of(own))

    async def _goes_on(self, desk: RecoverySigner, own: ServerId, root_key: bytes) -> bool:
        """Say whether what this server asked for can be finished still."""
        request = self._ledger.state.get(VIEW, f"request/{own}")
        if request is None or not self._is_open(request):
            return False
        if parse_key(request["claim"]["root"]["public_key"]) != root_key:
            return False
        claim = claim_bytes(request["claim"], self._ledger.mesh_id)
        begun = wire.BeginRequest(claim=b64u_encode(claim), one_time_key=request["one_time_key"])
        try:
            await desk.begin(begun)
        except NotFoundError:
            return False
        return True

    async def approve(self, server: ServerId, *, fingerprint: str, again: bool = False) -> Json:
        """Release the share of this server to one that asked, for the root key that was looked at.

        Args:
            server: the one that asked.
            fingerprint: of the root key that was looked at.
            again: though another one has this server's share for the same step.

        Raises:
            ConflictError: ``released_elsewhere``: another one has it, and may finish, too.
            ConflictError: ``another_key``: it asks for another root key by now.
            NotFoundError: ``no_request``, ``no_dealing``, or ``no_holder``.
            ConflictError: ``stale_dealing``: it asks by a key that another followed.
            ShareError: ``share_unopened`` or ``share_forged``: the share here is not good.
            RejectedError: ``duplicate_share``: it was released already.
        """
        request = self._request_of(server)
        if self._shown(server, request)["fingerprint"] != fingerprint:
            raise ConflictError(
                f"{server} asks for another root key by now",
                code="another_key",
                mend="look at it again",
            )
        if request["number"] != self._number():
            raise ConflictError(
                f"{server} asks for shares of a recovery key that another followed",
                code="stale_dealing",
                mend="begin again on that server",
            )
        if not again:
            self._require_unreleased(request["number"], server)
        dealing = self._dealing(request["number"])
        index = self._own_index(request["number"])
        opening = await asyncio.to_thread(self._opened, dealing, index)
        claim = claim_bytes(request["claim"], self._ledger.mesh_id)
        key = parse_key(request["one_time_key"])
        sealed = release_share(opening, one_time_key=key, claim=claim, dealing=dealing)
        body = {"server": server, "request": request["record"], "sealed": b64u_encode(sealed)}
        await self._ledger.submit([self._author.record(RELEASE_KIND, body)])
        logger.warning("this server's share was released to %s", server)
        return self._shown(server, self._request_of(server))

    async def finish(self) -> Json:
        """Follow the lost root by the new key, if enough good shares are here.

        Raises:
            NotFoundError: ``no_request``, or ``recovery_unknown``: the signer began anew.
            ConflictError: ``claim_stale``: the roster moved on since.
            UnavailableError: ``too_few_shares``, or ``signer_unavailable``.
            ConflictError: ``key_mismatch``: the dealer cheated.
        """
        async with self._turn:
            own = self._ledger.server_id
            request = self._request_of(own)
            self._require_fresh(request["claim"])
            claim = claim_bytes(request["claim"], self._ledger.mesh_id)
            desk = await self._host.desk()
            reply = await desk.finish(
                wire.FinishRequest(
                    one_time_key=request["one_time_key"],
                    claim=b64u_encode(claim),
                    dealing=wire.wire_of(self._dealing(request["number"])),
                    released=wire.released_wires(released_shares(self._ledger.state, own, request)),
                )
            )
            return await self._follow(request["claim"], reply, request["number"])

    async def claim_for_file(self) -> Json:
        """Return what an offline recovery file has to endorse; its owner brings it to the signer.

        Raises:
            ConflictError: ``root_here``, ``no_recovery_key``, or ``not_offline``.
            ConfigError: there can't be a signer here.
            UnavailableError: ``signer_unavailable``.
        """
        async with self._turn:
            await self._require_lost()
            head = self._offline_head()
            data = (await self._link()).claim(self._ledger.mesh_id)
            return {
                "claim": b64u_encode(data),
                "recovery_key": b64u_encode(head.recovery_key),
                "signer": self._host.address,
            }

    async def finish_with_endorsement(self, claim: bytes, endorsement: bytes) -> Json:
        """Follow the lost root by a key that an offline recovery file endorsed.

        Raises:
            ConflictError: ``not_offline``, ``claim_stale``, or ``no_recovery_key``.
            ForbiddenError: ``root_unendorsed``.
            UnavailableError: ``signer_unavailable``.
        """
        async with self._turn:
            head = self._offline_head()
            if not verify(head.recovery_key, claim, endorsement):
                raise ForbiddenError("the recovery key did not endorse it", code="root_unendorsed")
            value = canonical.decode_object(claim[_CLAIM_AT:])
            self._require_fresh(value)
            reply = wire.EndorseReply(endorsement=b64u_encode(endorsement))
            return await self._follow(value, reply, head.number)

    async def _follow(self, claim: Json, reply: wire.EndorseReply, number: int) -> Json:
        bad = self._named(number, reply.bad)
        if not reply.endorsement:
            told = ", ".join(f"{name}: {code}" for name, code in bad.items())
            kind = UnavailableError if reply.code == "too_few_shares" else ConflictError
            what = f"{reply.what}; not good: {told}" if told else reply.what
            raise kind(what, code=reply.code, mend=reply.mend)
        generation = claim["root"]["generation"]
        public_key = parse_key(claim["root"]["public_key"])
        record = await sign_by_root(
            await self._host.signer(),
            kind=ROTATE_KIND,
            body={**claim, "root": {**claim["root"], "endorsement": reply.endorsement}},
            key_id=key_id_of(generation),
            public_key=public_key,
            mesh_id=self._ledger.mesh_id,
            clock=self._clock,
        )
        await self._ledger.submit([record])
        await self._ledger.name_roster()
        await self._host.adopt()
        logger.warning("the root was recovered: generation %d", generation)
        return {
            "generation": generation,
            "public_key": b64u_encode(public_key),
            "fingerprint": fingerprint_of(public_key),
            "record": record.id,
            "bad": bad,
        }

    async def _require_lost(self) -> None:
        if await self._host.holds_root():
            raise ConflictError(
                "the root key is in the signer of this server",
                code="root_here",
                mend="seipd root rotate follows it by a new one",
            )

    def _offline_head(self) -> Head:
        head = head_of(self._ledger.state, self._number())
        if head is None or not head.is_offline:
            raise ConflictError(
                "the recovery key is shared among the servers, and in no file",
                code="not_offline",
                mend="seipd root recover, without --file",
            )
        return head

    async def _link(self) -> Link:
        charter = self._ledger.charter
        parent = charter.chain.newest
        now_ms = max(self._clock.now_ms(), parent.activated_ms)
        interval_ms = parameters.number(self._ledger.state, parameters.ROTATION) * DAY_MS
        generation = parent.generation + 1
        await self._host.ready(key_id_of(generation))
        signer = await self._host.signer()
        info = await signer.public_key(scope="platform", key_id=key_id_of(generation))
        return Link(
            number=charter.number + 1,
            prev=charter.head,
            witnesses=charter.witnesses_at(charter.number),
            generation=generation,
            parent=parent.fingerprint,
            public_key=info.public_key,
            activated_ms=now_ms,
            expires_ms=now_ms + 2 * interval_ms,
            closes_ms=now_ms + WINDOW_MS,
            endorser="recovery",
        )

    async def _release_own(self, own: ServerId, fingerprint: str) -> None:
        """Who asks agrees: its own share is the first."""
        head = head_of(self._ledger.state, self._number())
        if head is not None and own in head.holders:
            await self.approve(own, fingerprint=fingerprint, again=True)

    def _require_unreleased(self, number: int, server: ServerId) -> None:
        """More than half of the holders are needed: two can't finish while none says it twice."""
        head, own = head_of(self._ledger.state, number), self._ledger.server_id
        if head is None or own not in head.holders:
            return
        for other in self.requests():
            if other["server_id"] != server and own in other["released"]:
                raise ConflictError(
                    f"this server released its share to {other['server_id']}",
                    code="released_elsewhere",
                    mend="two that both finish fork the root for good: say --again only "
                    "if that one never can",
                )

    def _number(self) -> int:
        """Return the dealing whose key the chain of root keys names."""
        wanted = self._ledger.charter.chain.recovery_key
        for number in usable(self._ledger.state):
            head = head_of(self._ledger.state, number)
            if head is not None and head.recovery_key == wanted:
                return number
        raise ConflictError(
            "no recovery key was ever named that is known here",
            code="no_recovery_key",
            mend="without the root key and a recovery key, found a new mesh",
        )

    def _request_of(self, server: ServerId) -> Json:
        request: Json | None = self._ledger.state.get(VIEW, f"request/{server}")
        if request is None or not self._is_open(request):
            raise NotFoundError(
                f"{server} does not ask for shares",
                code="no_request",
                mend="seipd root recover begins, on the server that shall have the root",
            )
        return request

    def _is_open(self, request: Json) -> bool:
        claim, charter = request["claim"], self._ledger.charter
        return (claim.get("number"), claim.get("prev")) == (charter.number + 1, charter.head)

    def _require_fresh(self, claim: Json) -> None:
        if not self._is_open({"claim": claim}):
            raise ConflictError(
                "the roster moved on since this was begun", code="claim_stale", mend="begin again"
            )

    def _dealing(self, number: int) -> Dealing:
        charter = self._ledger.charter
        return dealing_of(self._ledger.state, number, self._ledger.mesh_id, charter.key_of)

    def _own_index(self, number: int) -> int:
        head, own = head_of(self._ledger.state, number), self._ledger.server_id
        if head is None or own not in head.holders:
            raise NotFoundError(
                "this server holds no share",
                code="no_holder",
                mend="seipd root shares lists the holders",
            )
        return head.holders.index(own) + 1

    def _opened(self, dealing: Dealing, index: int) -> Any:  # noqa: ANN401 (an Opening)
        sealed = sealed_share(self._ledger.state, dealing.number, index)
        return open_share(self._key.seed, sealed, index=index, dealing=dealing)

    def _named(self, number: int, bad: dict[str, str]) -> dict[str, str]:
        head = head_of(self._ledger.state, number)
        holders = head.holders if head else ()
        return {holders[int(index) - 1]: code for index, code in sorted(bad.items())}

    def _shown(self, server: ServerId, request: Json) -> Json:
        head = head_of(self._ledger.state, request["number"])
        holders = head.holders if head else ()
        key = parse_key(request["claim"]["root"]["public_key"])
        return {
            "server_id": server,
            "record": request["record"],
            "dealing": request["number"],
            "generation": request["claim"]["root"]["generation"],
            "public_key": b64u_encode(key),
            "fingerprint": fingerprint_of(key),
            "needed": head.threshold if head else 0,
            "released": [holders[at - 1] for at in request["released"]],
            "holders": list(holders),
        }


def key_ids(generation: int) -> tuple[str, ...]:
    """Return the names under which a signer may have the root key of a generation."""
    return tuple(dict.fromkeys((key_id_of(generation), key_id_of(1))))


def key_id_of(generation: int) -> str:
    """Return the name under which a signer keeps the root key of a generation."""
    return f"root-{generation}"
