"""The root is lost: enough operators bring a new one, fewer do not, and a cheat is named."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from services.authority.recovery import recovering
from services.base.crypto.signatures import verify
from services.base.signing import recovery_wire as wire
from services.base.signing.dealing import PURPOSE_CLAIM, endorse
from services.kernel.errors import (
    ConflictError,
    ForbiddenError,
    NotFoundError,
    RejectedError,
    UnavailableError,
)
from services.kernel.ids import b64u_decode, b64u_encode
from tests.fakes.recovering import NewSigner, SharedMesh, recovery_of, service_of
from tests.fakes.world import key_of
from tests.unit.authority.test_recovery_service import running, services_of, until

if TYPE_CHECKING:
    from services.authority.recovery.recovering import RootRecovery


class LostRoot:
    """Five servers with a recovery key in force; the signer of the first is gone."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.mesh = SharedMesh(5)
        self.host = NewSigner(folder / "new")
        self.recovering = recovery_of(self.mesh, 1, self.host)
        self.ids = [one.id for one in self.mesh.world.servers]

    async def dealt(self, count: int = 1) -> LostRoot:
        services = services_of(self.mesh, self.folder)
        async with running(services):
            await until(lambda: services[0].describe()["named"])
            for _ in range(count - 1):
                number = (await services[0].deal())["number"]
                await until(
                    lambda: (
                        services[0].describe()["in_force"]["number"] == number  # noqa: B023
                        and services[0].describe()["named"]
                    )
                )
        return self

    def holder(self, at: int) -> RootRecovery:
        return recovery_of(self.mesh, at, NewSigner(self.folder))

    async def approve(self, at: int, to: int = 1, *, again: bool = False) -> dict[str, Any]:
        asked = {one["server_id"]: one["fingerprint"] for one in self.holder(at).requests()}
        fingerprint = asked[self.ids[to]]
        return await self.holder(at).approve(self.ids[to], fingerprint=fingerprint, again=again)

    @property
    def root(self) -> Any:
        return self.mesh.world.charter.chain.newest


async def test_four_of_five_operators_bring_a_new_root_and_three_do_not(tmp_path: Path) -> None:
    lost = await LostRoot(tmp_path).dealt()
    begun = await lost.recovering.begin()
    assert (begun["needed"], begun["released"]) == (4, [lost.ids[1]])
    for at in (2, 3):
        await lost.approve(at)
    with pytest.raises(UnavailableError) as caught:
        await lost.recovering.finish()
    assert (caught.value.code, lost.root.generation) == ("too_few_shares", 1)
    assert "1 more" in caught.value.mend
    await lost.approve(4)
    found = await lost.recovering.finish()
    assert (found["generation"], found["bad"]) == (2, {})
    assert lost.root.public_key == lost.host.key.public_key
    assert lost.root.endorser == "recovery"
    assert lost.root.expires_ms - lost.root.activated_ms == 14 * 86_400_000
    assert lost.host.adopted


async def test_beginning_twice_goes_on_with_the_same_request(tmp_path: Path) -> None:
    lost = await LostRoot(tmp_path).dealt()
    begun = await lost.recovering.begin()
    await lost.approve(3)
    again = await lost.recovering.begin()
    assert again["record"] == begun["record"]
    assert len(again["released"]) == 2


async def test_rkc_10_a_bad_share_is_named_by_its_holder_and_the_rest_suffice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = await LostRoot(tmp_path).dealt()
    await lost.recovering.begin()
    for at in (0, 2, 3):
        await lost.approve(at)
    honest = recovering.release_share

    def forged(opening: Any, **details: Any) -> bytes:
        share = dataclasses.replace(opening.share, data=bytes(48))
        return honest(dataclasses.replace(opening, share=share), **details)

    monkeypatch.setattr(recovering, "release_share", forged)
    await lost.approve(4)
    found = await lost.recovering.finish()
    assert found["bad"] == {lost.ids[4]: "share_forged"}
    assert lost.root.generation == 2


async def test_rkc_10_with_too_few_good_shares_the_bad_holder_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = await LostRoot(tmp_path).dealt()
    await lost.recovering.begin()
    for at in (2, 3):
        await lost.approve(at)
    monkeypatch.setattr(recovering, "release_share", lambda *_, **__: bytes(128))
    await lost.approve(4)
    with pytest.raises(UnavailableError, match=f"{lost.ids[4]}: share_unopened") as caught:
        await lost.recovering.finish()
    assert caught.value.code == "too_few_shares"


async def test_rkc_10_a_share_is_released_once(tmp_path: Path) -> None:
    lost = await LostRoot(tmp_path).dealt()
    await lost.recovering.begin()
    await lost.approve(2)
    with pytest.raises(RejectedError) as doubled:
        await lost.approve(2)
    assert doubled.value.code == "duplicate_share"


async def test_an_operator_approves_the_key_that_was_looked_at_and_no_other(
    tmp_path: Path,
) -> None:
    lost = await LostRoot(tmp_path).dealt()
    await lost.recovering.begin()
    with pytest.raises(ConflictError) as caught:
        await lost.holder(2).approve(lost.ids[1], fingerprint="ab" * 32)
    assert caught.value.code == "another_key"
    with pytest.raises(NotFoundError) as nobody:
        await lost.holder(2).approve(lost.ids[3], fingerprint="ab" * 32)
    assert nobody.value.code == "no_request"


async def test_where_the_root_is_it_is_rotated_and_not_recovered(tmp_path: Path) -> None:
    lost = await LostRoot(tmp_path).dealt()
    lost.host.root_here = True
    with pytest.raises(ConflictError) as caught:
        await lost.recovering.begin()
    assert caught.value.code == "root_here"


async def test_without_a_recovery_key_nobody_can_begin(tmp_path: Path) -> None:
    lost = LostRoot(tmp_path)
    with pytest.raises(ConflictError) as caught:
        await lost.recovering.begin()
    assert caught.value.code == "no_recovery_key"


async def test_a_signer_that_ended_since_asks_to_begin_again(tmp_path: Path) -> None:
    lost = await LostRoot(tmp_path).dealt()
    await lost.recovering.begin()
    for at in (2, 3, 4):
        await lost.approve(at)
    lost.host.calls = NewSigner(tmp_path / "new").calls
    with pytest.raises(NotFoundError) as caught:
        await lost.recovering.finish()
    assert caught.value.code == "recovery_unknown"
    # Begun again, it asks anew; the others approve again, and all is well.
    assert (await lost.recovering.begin())["released"] == [lost.ids[1]]
    for at in (2, 3, 4):
        await lost.approve(at)
    assert (await lost.recovering.finish())["generation"] == 2


async def test_rkc_01_two_servers_can_t_both_get_enough_shares_unless_a_holder_says_it_again(
    tmp_path: Path,
) -> None:
    lost = await LostRoot(tmp_path).dealt()
    await lost.recovering.begin()
    await lost.approve(2)
    with pytest.raises(ConflictError) as caught:
        await lost.holder(2).begin()
    assert caught.value.code == "released_elsewhere"
    assert lost.ids[1] in str(caught.value)
    await lost.holder(3).begin()
    with pytest.raises(ConflictError) as caught:
        await lost.approve(2, to=3)
    assert caught.value.code == "released_elsewhere"
    with pytest.raises(ConflictError):
        await lost.approve(3)
    # The first one is gone for good, says the operator.
    assert len((await lost.approve(2, to=3, again=True))["released"]) == 2


async def test_rkc_15_the_key_that_was_used_is_followed_by_another(tmp_path: Path) -> None:
    lost = await LostRoot(tmp_path).dealt()
    await lost.recovering.begin()
    for at in (2, 3, 4):
        await lost.approve(at)
    await lost.recovering.finish()
    used = lost.mesh.world.charter.chain.recovery_key
    lost.mesh.world.root = lost.host.key
    services = [service_of(lost.mesh, at, lost.folder, holds_root=at == 1) for at in range(5)]
    async with running(services):
        await until(lambda: lost.mesh.world.charter.chain.recovery_key != used)
    assert services[0].describe()["in_force"]["number"] == 2


async def test_an_offline_file_brings_a_small_mesh_its_root(tmp_path: Path) -> None:
    mesh = SharedMesh(2)
    services = services_of(mesh, tmp_path)
    async with running(services):
        path = Path((await services[0].deal())["path"])
        await until(lambda: services[0].describe()["named"])
    host = NewSigner(tmp_path / "new")
    lost = recovery_of(mesh, 1, host)
    asked = await lost.claim_for_file()
    reply = await host.calls.endorse(
        wire.EndorseRequest(
            claim=asked["claim"],
            recovery_key=asked["recovery_key"],
            file=b64u_encode(path.read_bytes()),
        )
    )
    claim, signature = b64u_decode(asked["claim"]), b64u_decode(reply.endorsement)
    assert claim.startswith(PURPOSE_CLAIM)
    with pytest.raises(ForbiddenError) as caught:
        await lost.finish_with_endorsement(claim, endorse(key_of("another"), claim))
    assert caught.value.code == "root_unendorsed"
    found = await lost.finish_with_endorsement(claim, signature)
    assert found["generation"] == 2
    newest = mesh.world.charter.chain.newest
    assert newest.public_key == host.key.public_key
    assert verify(mesh.world.charter.chain.recovery_key_at(newest.number - 1), claim, signature)


async def test_a_shared_key_is_in_no_file(tmp_path: Path) -> None:
    lost = await LostRoot(tmp_path).dealt()
    with pytest.raises(ConflictError) as caught:
        await lost.recovering.claim_for_file()
    assert caught.value.code == "not_offline"
