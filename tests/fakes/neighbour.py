"""Further servers beside ``OneServer``: ledgers of their own, their feeds handed over by hand."""

from __future__ import annotations

from services.authority.ballots.service import BallotService
from services.authority.enroll.service import EnrollService, Wanted
from services.authority.ipam.service import IpamService
from services.authority.rootkeys.service import Candidate
from services.base.crypto.agreement import generate_x25519
from services.base.crypto.signatures import generate_signing_key
from services.base.ledger.author import Author
from services.base.ledger.service import LedgerService
from services.kernel.ids import server_id_of
from services.kernel.records import record_from_value
from tests.fakes.one_server import QUICK, OneServer
from tests.fakes.world import APPLIERS, key_of


class Neighbour:
    """A server that ``one`` let in."""

    def __init__(self, one: OneServer, folder) -> None:
        self.one = one
        self.folder = folder
        self.key = generate_signing_key()
        _, self.wireguard_key = generate_x25519()
        self.server_id = server_id_of(self.key.public_key)

    @classmethod
    async def join(cls, one: OneServer, folder) -> Neighbour:
        self = cls(one, folder)
        candidate = Candidate(
            key=self.key.public_key,
            wireguard_key=self.wireguard_key,
            tls_key_hash=bytes(32),
            region="eu-central",
        )
        certificate, change = await one.services.root_keys.prepare_admission(candidate)
        await one.ledger.submit([change])
        await one.ledger.name_roster()
        self.slices = certificate.slices
        self.ledger = LedgerService(
            folder=folder,
            signing_key=self.key,
            charter_records=one.ledger.charter.records,
            appliers=APPLIERS,
            clock=one.clock,
            on_fatal=one.fatal.append,
            settings=QUICK,
        )
        await self.ledger.start()
        self.author = Author(key=self.key, mesh_id=one.ledger.mesh_id, clock=one.clock)
        return self

    async def stop(self) -> None:
        await self.ledger.stop()

    def ballots(self) -> BallotService:
        return BallotService(ledger=self.ledger, author=self.author, clock=self.one.clock)

    def enroll(self, ipam: IpamService) -> EnrollService:
        return EnrollService(
            ledger=self.ledger,
            author=self.author,
            allocator=ipam,
            root_keys=self.one.services.root_keys,
            ballots=self.ballots(),
            clock=self.one.clock,
        )

    async def endpoint(self, name: str) -> str:
        """Let an endpoint in, hand the news to ``one``; return its address."""
        ipam = IpamService(ledger=self.ledger, author=self.author)
        await ipam.start()
        enroll = self.enroll(ipam)
        issued = await enroll.invite(Wanted(role="endpoint"), addresses=("127.0.0.1:9100",))
        record = self.one.join_record(issued.token, key_of(f"endpoint {name}"), name)
        node = await enroll.redeem_endpoint(record_from_value(record))
        await hand_over(self.ledger, self.one.ledger)
        return node["address"]


async def hand_over(source: LedgerService, target: LedgerService) -> None:
    """Give ``target`` what ``source`` has on its own feed."""
    name = source.server_id
    head = source.feeds()[name]
    known = target.feeds().get(name)
    start = known.size if known else 0
    if start < head.size:
        entries = source.read(name, head.epoch, start, head.size)
        checkpoint = source.checkpoint(name, head.epoch) or b""
        await target.ingest(name, head.epoch, start, entries, checkpoint)
