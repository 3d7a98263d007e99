"""What health says to whoever watches a server from outside."""

from __future__ import annotations

import json
import shutil

import pytest

from seipd.config.model import Settings
from seipd.daemon.doctor import examine
from services.base.storage.root import DataRoot
from services.base.storage.service import StorageService
from services.kernel.service import Health, HealthState


async def health(public):
    answer = await public.get("/api/health")
    return answer.status, json.loads(await answer.read())


def shown(name: str, said: Health) -> dict[str, str]:
    return {"name": name, "state": said.state.value, "detail": said.detail}


async def test_sto_12_a_data_root_that_vanished_is_503_until_it_is_back(
    server, public, tmp_path
) -> None:
    root = DataRoot(tmp_path / "data")
    storage = StorageService(root=root)
    await storage.start()
    try:
        server.services.mesh.services = [shown("storage", storage.health())]
        assert (await health(public))[0] == 200
        aside = tmp_path / "aside"
        shutil.move(root.location, aside)
        server.services.mesh.services = [shown("storage", storage.health())]
        status, said = await health(public)
        assert (status, said["status"], said["healthy"]) == (503, "not_ready", False)
        shutil.move(aside, root.location)
        server.services.mesh.services = [shown("storage", storage.health())]
        assert (await health(public))[0] == 200
    finally:
        await storage.stop()


async def test_sto_12_a_request_for_a_file_that_vanished_breaks_nothing(server, public) -> None:
    server.ledger.log(server.ledger.server_id).publish()
    path = "/ledger/feed/checkpoint"
    assert (await public.get(path)).status == 200
    (server.folder / "ledger").rename(server.folder / "gone")
    try:
        assert (await public.get(path)).status in (404, 503)
        assert (await health(public))[0] == 200
    finally:
        (server.folder / "gone").rename(server.folder / "ledger")
    assert (await public.get(path)).status == 200


@pytest.mark.parametrize(
    ("state", "status"), [("ok", 200), ("degraded", 200), ("starting", 503), ("failed", 503)]
)
async def test_health_is_503_while_a_service_is_not_usable(server, public, state, status) -> None:
    one = Health(state=HealthState(state), detail="why")
    server.services.mesh.services = [shown("gossip", one)]
    code, said = await health(public)
    assert (code, said["healthy"]) == (status, status == 200)
    assert "why" not in json.dumps(said)


class TestInsecureSwitches:
    def test_cfg_05_all_are_off_unless_said(self) -> None:
        assert Settings().insecure == []
        assert Settings(allow_insecure_same_user=True).insecure == ["allow_insecure_same_user"]

    def test_cfg_05_every_switch_that_weakens_says_so_by_its_name(self) -> None:
        switches = {
            name for name, value in Settings.__annotations__.items() if value in ("bool", bool)
        }
        # Whoever adds a switch says here what it is.
        assert switches == {"allow_insecure_same_user", "relay_enabled"}

    async def test_cfg_05_health_shows_what_is_on(self, server, public) -> None:
        assert (await health(public))[1]["insecure"] == []
        server.services.mesh.insecure = Settings(allow_insecure_same_user=True).insecure
        assert (await health(public))[1]["insecure"] == ["allow_insecure_same_user"]

    def test_cfg_05_doctor_names_the_flag(self) -> None:
        settings = Settings(allow_insecure_same_user=True)
        (found,) = examine({"services": [], "insecure": settings.insecure}, [], [])
        assert found["level"] == "warning"
        assert "--allow-insecure-same-user" in found["mend"]
        assert examine({"services": [], "insecure": Settings().insecure}, [], []) == []
