"""Every door that a root key chain comes in by: the same wrong chains are refused at each.

The roster of a running server, its fold, ``seipd join``, a start, ``seip``, and ``seipd-verify``.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from seipd.cli.verify import cli
from seipd.client.trust import KnownRoot, UntrustedServerError, trust_server
from seipd.daemon.genesis import load_charter, verify_charter
from services.base.ledger.rootwalk import shown_chain
from services.base.ledger.seenroot import SeenRoot
from services.kernel import canonical
from services.kernel.errors import CorruptError, InputError, RejectedError, SeipdError
from services.mesh.proofs.byroot import shown_walk
from services.mesh.proofs.errors import RefusedError
from services.mesh.proofs.removal import RosterWalk
from tests.fakes.rootlinks import link_after, rotate, rotation
from tests.fakes.world import Server, World, key_of

if TYPE_CHECKING:
    from services.kernel.records import Record

Links = Sequence["Record"]
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


class Door:
    """A chain is shown at one door: what comes of it is ``good``, or the code of the refusal."""

    def __init__(self, world: World, tmp_path, caplog) -> None:
        self.world, self.folder, self.caplog = world, tmp_path, caplog
        self.roster = list(world.charter.records)

    def roster_of_a_running_server(self, links: Links) -> str:
        charter = self.world.charter
        for record in links:
            try:
                charter.offer(record)
            except (RejectedError, InputError) as error:
                return error.code
        return "good"

    def fold(self, links: Links) -> str:
        """Have a server of the mesh bring the links in its feed, as a broken one might."""
        server = self.world.servers[0]
        for record in links:
            self.world.write(server, record)
        with self.caplog.at_level(logging.WARNING):
            fold = self.world.updated(self.world.folded())
        codes = [one.code for one in self.caplog.records if hasattr(one, "code")]
        held = fold.charter.chain.of_key(links[-1].actor) is not None
        assert held == (codes == [])
        return codes[0] if codes else "good"

    def join(self, links: Links) -> str:
        try:
            verify_charter([*self.roster, *links], self.world.mesh_id)
        except SeipdError as error:
            return error.code
        return "good"

    def start(self, links: Links) -> str:
        path = self.folder / "root_chain.json"
        path.write_bytes(canonical.encode([one.value() for one in [*self.roster, *links]]))
        path.chmod(0o600)
        try:
            load_charter(self.folder)
        except CorruptError as error:
            return cause_of(error)
        return "good"

    def seip_join(self, links: Links) -> str:
        shown = {
            "server_id": self.world.servers[0].id,
            "authority_pem": "",
            "chain": [one.value() for one in [self.world.genesis, *links]],
            "certificate": self.roster[1].value(),
        }
        with pytest.raises(UntrustedServerError) as refused:
            trust_server(shown, mesh_id=self.world.mesh_id, server_id=None)
        code = cause_of(refused.value)
        # The chain was followed to its end: what is missed next is the TLS authority.
        return code if code.startswith("root_") else "good"

    def seip_proofs(self, links: Links) -> str:
        chain = [one.value() for one in [self.world.genesis, *links]]
        try:
            shown_walk(chain, mesh_id=self.world.mesh_id)
        except RefusedError as error:
            return cause_of(error)
        return "good"

    def seipd_verify(self, links: Links) -> str:
        path = self.folder / "chain.json"
        path.write_bytes(canonical.encode([one.value() for one in [self.world.genesis, *links]]))
        words = ["chain", str(path), "--root", self.world.mesh_id, "--json"]
        done = CliRunner().invoke(cli, words, standalone_mode=False)
        told = canonical.decode_object(done.stdout.encode())
        return "good" if told["good"] else told["code"]


DOORS = [name for name in vars(Door) if not name.startswith("_")]


def cause_of(error: BaseException) -> str:
    cause = error.__cause__
    return cause.code if isinstance(cause, SeipdError) else type(cause).__name__


@pytest.fixture
def world() -> World:
    return World(1)


@pytest.fixture(params=DOORS)
def shown(request, world, tmp_path, caplog) -> Callable[[Links], str]:
    return getattr(Door(world, tmp_path, caplog), request.param)


def test_a_chain_that_is_as_it_should_be_comes_in(shown, world) -> None:
    assert shown([rotation(world, world.charter, world.root, key_of("root 2"))]) == "good"


def test_rkc_01_a_fork_is_refused(shown, world) -> None:
    link = rotation(world, world.charter, world.root, key_of("root 2"))
    rival = rotation(world, world.charter, world.root, key_of("thief"))
    assert shown([link, rival]) == "root_fork"


def test_rkc_03_a_generation_that_was_skipped_is_refused(shown, world) -> None:
    link = rotation(world, world.charter, world.root, key_of("root 3"), generation=3)
    assert shown([link]) == "root_skipped"


def test_a_link_that_nobody_endorsed_is_refused(shown, world) -> None:
    bare = link_after(world, world.charter, key_of("root 2"))
    assert shown([world.signed(key_of("root 2"), "root.rotate", bare.value())]) == "root_unendorsed"


def test_a_link_endorsed_by_a_key_that_is_not_the_root_is_refused(shown, world) -> None:
    link = rotation(world, world.charter, key_of("stranger"), key_of("root 2"))
    assert shown([link]) == "root_unendorsed"


def test_rkc_07_the_recovery_key_s_word_does_not_pass_for_the_root_s(shown, world) -> None:
    link = link_after(world, world.charter, key_of("root 2"))
    by_recovery = dataclasses.replace(link, endorser="recovery").claim(world.mesh_id)
    signed = dataclasses.replace(link, endorsement=world.root.sign(by_recovery))
    record = world.signed(key_of("root 2"), "root.rotate", signed.value())
    assert shown([record]) == "root_unendorsed"


@pytest.mark.parametrize("name", ["endorsement", "public_key"])
def test_rkc_07_an_endorsement_has_one_spelling(shown, world, name) -> None:
    link = link_after(world, world.charter, key_of("root 2"))
    signed = dataclasses.replace(link, endorsement=world.root.sign(link.claim(world.mesh_id)))
    body = signed.value()
    text = body["root"][name]
    # The bits of the last letter that no byte has are set: it stands for the same bytes.
    other = text[:-1] + LETTERS[LETTERS.index(text[-1]) + 1]
    record = world.signed(
        key_of("root 2"), "root.rotate", {**body, "root": {**body["root"], name: other}}
    )
    assert shown([record]) in {"bad_field", "bad_key", "bad_signature", "root_malformed"}


class TestRollback:
    """The mesh is at generation 2; somebody has the first key and goes on from there."""

    @pytest.fixture
    def stolen(self, world) -> Record:
        """Return a change by the first key that names a server of the thief's, in the old place."""
        certificate = world.certificate(Server("thief"), ("10.64.64.0/20",))
        body = {
            "number": world.charter.number + 1,
            "prev": world.charter.head,
            "servers": [certificate.value()],
            "removed": [],
            "witnesses": [world.servers[0].id],
        }
        record = world.signed(world.root, "roster.change", body)
        world.thief = Server("thief").id
        return record

    def test_rkc_04_rkc_05_the_roster_takes_nothing_from_it(self, world, stolen) -> None:
        rotate(world, "root 2")
        with pytest.raises(RejectedError):
            world.charter.offer(stolen)
        assert world.charter.server(world.thief) is None

    def test_rkc_04_a_newcomer_whose_token_names_the_newer_key_does_not_join(
        self, world, stolen
    ) -> None:
        old = [*world.charter.records, stolen]
        rotate(world, "root 2")
        newest = world.charter.chain.newest
        known = KnownRoot(generation=2, fingerprint=newest.fingerprint)
        assert verify_charter(world.charter.records, world.mesh_id, known).number == newest.number
        with pytest.raises(RejectedError) as refused:
            verify_charter(old, world.mesh_id, known)
        assert refused.value.code == "root_old"

    def test_rkc_04_an_endpoint_that_saw_the_newer_key_believes_no_older_chain(self, world) -> None:
        old = [one.value() for one in shown_chain(world.charter)]
        rotate(world, "root 2")
        seen = SeenRoot.of_chain(world.charter.chain)
        newer = [one.value() for one in shown_chain(world.charter)]
        assert shown_walk(newer, mesh_id=world.mesh_id, seen=seen)
        for chain in (old, []):
            with pytest.raises(RefusedError) as refused:
                shown_walk(chain, mesh_id=world.mesh_id, seen=seen)
            assert refused.value.code == "root_old"

    def test_rkc_04_nobody_is_told_by_the_older_key_that_a_server_was_removed(self, world) -> None:
        gone = world.servers[0]
        body = {
            "number": world.charter.number + 1,
            "prev": world.charter.head,
            "servers": [],
            "removed": [world.removal(gone)],
            "witnesses": [gone.id],
        }
        records = [one.value() for one in world.charter.records[1:]]
        forged = [*records, world.signed(world.root, "roster.change", body).value()]
        rotate(world, "root 2")
        seen = SeenRoot.of_chain(world.charter.chain)
        assert RosterWalk(world.mesh_id).shows_removal(forged, gone.id)
        assert not RosterWalk(world.mesh_id, seen).shows_removal(forged, gone.id)
        link = [one.value() for one in world.charter.records[1:]]
        assert not RosterWalk(world.mesh_id, seen).shows_removal(link, gone.id)

    def test_rkc_04_an_auditor_who_knows_the_newer_key_is_not_shown_the_older_chain(
        self, world, tmp_path, caplog
    ) -> None:
        door = Door(world, tmp_path, caplog)
        rotate(world, "root 2")
        path = tmp_path / "old.json"
        path.write_bytes(canonical.encode([one.value() for one in door.roster]))
        words = ["chain", str(path), "--root", world.charter.chain.newest.fingerprint, "--json"]
        done = CliRunner().invoke(cli, words, standalone_mode=False)
        assert canonical.decode_object(done.stdout.encode())["code"] == "root_other"
