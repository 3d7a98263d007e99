"""This machine's names: the mesh's by the gateway, the others whatever happens to it."""

from __future__ import annotations

import asyncio
import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seipd.agent.hostdns import ways
from seipd.agent.hostdns.keeping import MISSED_COUNT, ResolverKeeper
from seipd.agent.hostdns.planning import (
    Way,
    Wish,
    nameservers_beside,
    owner_of,
    planned,
    resolved_commands,
    restored,
    way_of,
)
from seipd.agent.hostdns.ways import ChosenResolver, ResolvConf, Resolved, restore_file
from services.kernel.errors import ConflictError, UnavailableError

GATEWAY = "10.64.0.1"
FOLDER = "/var/lib/seip"
PLAIN = "# of the machine\nsearch example.org\nnameserver 192.0.2.53\nnameserver 192.0.2.54\n"


def plan(text: str, folder: str = FOLDER) -> str:
    return planned(text, gateway=GATEWAY, folder=folder)


def test_the_gateway_stands_first_and_the_machines_own_behind_it() -> None:
    text = plan(PLAIN)
    servers = [line.split()[1] for line in text.splitlines() if line.startswith("nameserver")]
    assert servers == [GATEWAY, "192.0.2.53", "192.0.2.54"]
    assert text.endswith(PLAIN)
    assert "options timeout:1" in text
    assert nameservers_beside(text, GATEWAY) == [("192.0.2.53", 53), ("192.0.2.54", 53)]


@given(
    st.text("nameserver 192.0.2.#\n options rotate\ufffd", max_size=80),
    st.booleans(),
)
def test_what_was_there_comes_back_word_for_word(text: str, twice: bool) -> None:
    set_text = plan(plan(text)) if twice else plan(text)
    assert restored(set_text, folder=FOLDER) == text
    assert plan(set_text) == set_text


def test_name_servers_are_not_asked_in_turn_meanwhile() -> None:
    text = "nameserver 192.0.2.53\noptions edns0 rotate\n"
    live = [line for line in plan(text).splitlines() if not line.startswith("#")]
    assert "options edns0 rotate" not in live
    assert restored(plan(text), folder=FOLDER) == text


def test_what_somebody_wrote_meanwhile_stays() -> None:
    assert restored(PLAIN, folder=FOLDER) == PLAIN
    edited = plan(PLAIN) + "nameserver 192.0.2.55\n"
    assert restored(edited, folder=FOLDER) == PLAIN + "nameserver 192.0.2.55\n"
    damaged = plan(PLAIN).replace("options timeout:1\n", "").replace("# seip end\n", "")
    assert restored(damaged, folder=FOLDER) == PLAIN


def test_another_endpoint_of_the_machine_is_told_apart() -> None:
    text = plan(PLAIN, "/srv/other")
    assert owner_of(text) == "/srv/other"
    assert owner_of(PLAIN) is None
    assert restored(text, folder=FOLDER) == text


@pytest.mark.parametrize(
    ("resolv_conf", "nsswitch", "has_resolvectl", "way"),
    [
        ("nameserver 127.0.0.53\n", "hosts: files dns\n", True, Way.RESOLVED),
        ("nameserver 127.0.0.53\n", "hosts: files dns\n", False, Way.FILE),
        (
            "nameserver 192.0.2.1\n",
            "hosts: files resolve [!UNAVAIL=return] dns\n",
            True,
            Way.RESOLVED,
        ),
        ("nameserver 192.0.2.1\n", "hosts: files dns\n", True, Way.FILE),
        ("nameserver 192.0.2.1\nnameserver 127.0.0.53\n", "", True, Way.FILE),
        ("", "", True, Way.FILE),
    ],
)
def test_the_way_is_the_one_by_which_the_machine_finds_names(
    resolv_conf: str, nsswitch: str, has_resolvectl: bool, way: Way
) -> None:
    assert way_of(resolv_conf, nsswitch, has_resolvectl=has_resolvectl) is way


def test_resolved_is_sent_the_domains_alone() -> None:
    wish = Wish(gateway=GATEWAY, interface="seip1", domains=("mesh.example", "corp.example"))
    assert resolved_commands(wish) == [
        ["resolvectl", "dns", "seip1", GATEWAY],
        ["resolvectl", "domain", "seip1", "~mesh.example", "~corp.example"],
        ["resolvectl", "default-route", "seip1", "no"],
    ]


def test_resolved_is_told_and_told_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = tmp_path / "said"
    program = tmp_path / "resolvectl"
    program.write_text(f'#!/bin/sh\necho "$@" >> {said}\n[ "$1" != revert ]\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    index = 7
    monkeypatch.setattr("socket.if_nametoindex", lambda _: index)
    resolver = Resolved(Wish(gateway=GATEWAY, interface="seip1", domains=("mesh.example",)))

    async def work() -> list[bool]:
        nonlocal index
        found = [await resolver.is_set()]
        await resolver.point()
        found.append(await resolver.is_set())
        index = 8  # The interface went, and another one came.
        found.append(await resolver.is_set())
        await resolver.point()
        found.append(await resolver.is_set())
        await resolver.take_back()
        return [*found, await resolver.is_set()]

    assert asyncio.run(work()) == [False, True, False, True, False]
    pointed = [f"dns seip1 {GATEWAY}", "domain seip1 ~mesh.example", "default-route seip1 no"]
    assert said.read_text().splitlines() == [*pointed, *pointed, "revert seip1"]


def resolv_conf(tmp_path: Path, text: str = PLAIN) -> tuple[Path, ResolvConf]:
    path = tmp_path / "resolv.conf"
    path.write_text(text)
    path.chmod(0o644)
    return path, ResolvConf(GATEWAY, Path(FOLDER), path)


def test_a_file_is_set_and_put_back_in_its_place(tmp_path: Path) -> None:
    real, _ = resolv_conf(tmp_path)
    link = tmp_path / "link"
    link.symlink_to(real)
    inode = real.stat().st_ino
    resolver = ResolvConf(GATEWAY, Path(FOLDER), link)
    asyncio.run(resolver.point())
    assert real.read_text() == plan(PLAIN)
    assert asyncio.run(resolver.is_set())
    asyncio.run(resolver.take_back())
    asyncio.run(resolver.take_back())
    assert real.read_text() == PLAIN
    assert link.is_symlink()
    assert (real.stat().st_ino, stat.S_IMODE(real.stat().st_mode)) == (inode, 0o644)


def test_after_a_crash_the_next_one_takes_it_back(tmp_path: Path) -> None:
    path, resolver = resolv_conf(tmp_path)
    asyncio.run(resolver.point())
    assert restore_file(Path(FOLDER), path)
    assert path.read_text() == PLAIN
    assert not restore_file(Path(FOLDER), path)


def test_the_folder_is_the_same_by_whatever_path_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, _ = resolv_conf(tmp_path)
    asyncio.run(ResolvConf(GATEWAY, tmp_path / "state", path).point())
    monkeypatch.chdir(tmp_path)
    assert restore_file(Path("state"), path)
    assert path.read_text() == PLAIN


def test_a_machine_without_name_servers_of_its_own_is_left_alone(tmp_path: Path) -> None:
    _, resolver = resolv_conf(tmp_path, "")
    with pytest.raises(UnavailableError):
        asyncio.run(resolver.point())
    missing = ResolvConf(GATEWAY, Path(FOLDER), tmp_path / "none")
    with pytest.raises(UnavailableError):
        asyncio.run(missing.point())
    assert not (tmp_path / "none").exists()


def test_another_endpoint_has_the_file(tmp_path: Path) -> None:
    path, resolver = resolv_conf(tmp_path, plan(PLAIN, "/srv/other"))
    with pytest.raises(ConflictError) as caught:
        asyncio.run(resolver.point())
    assert caught.value.code == "resolver_taken"
    assert path.read_text() == plan(PLAIN, "/srv/other")


class Gateway:
    def __init__(self) -> None:
        self.is_up = True

    async def answers(self) -> bool:
        return self.is_up


def test_a_gateway_that_falls_silent_is_left_and_taken_again_when_it_answers(
    tmp_path: Path,
) -> None:
    path, resolver = resolv_conf(tmp_path)
    gateway = Gateway()
    keeper = ResolverKeeper(resolver=resolver, gateway=gateway)

    def look(count: int = 1) -> str:
        for _ in range(count):
            asyncio.run(keeper.look())
        return keeper.facts()["state"]

    assert keeper.facts() == {"way": "resolv.conf", "state": "waiting", "why": ""}
    assert look() == "set"
    gateway.is_up = False
    assert look(MISSED_COUNT - 1) == "set"
    assert look() == "failed"
    assert path.read_text() == PLAIN
    gateway.is_up = True
    assert look() == "set"
    assert path.read_text() == plan(PLAIN)
    path.write_text("nameserver 192.0.2.99\n")
    assert look() == "set"
    assert path.read_text() == plan("nameserver 192.0.2.99\n")
    asyncio.run(keeper.end())
    assert path.read_text() == "nameserver 192.0.2.99\n"
    assert keeper.facts()["state"] == "off"


def test_what_could_not_be_taken_back_is_taken_back_as_soon_as_it_can_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, resolver = resolv_conf(tmp_path)
    gateway = Gateway()
    keeper = ResolverKeeper(resolver=resolver, gateway=gateway)
    asyncio.run(keeper.look())

    async def refuses() -> None:
        raise UnavailableError("read-only", code="resolver_refuses")

    gateway.is_up = False
    with monkeypatch.context() as patched:
        patched.setattr(resolver, "take_back", refuses)
        for _ in range(MISSED_COUNT):
            asyncio.run(keeper.look())
    assert path.read_text() == plan(PLAIN)
    asyncio.run(keeper.look())
    assert path.read_text() == PLAIN


def test_one_that_is_set_already_is_told_to_be(tmp_path: Path) -> None:
    path, resolver = resolv_conf(tmp_path)
    path.write_text(plan(PLAIN))
    keeper = ResolverKeeper(resolver=resolver, gateway=Gateway())
    asyncio.run(keeper.look())
    assert keeper.facts()["state"] == "set"


def test_before_the_gateway_answers_nothing_is_touched(tmp_path: Path) -> None:
    path, resolver = resolv_conf(tmp_path)
    gateway = Gateway()
    gateway.is_up = False
    keeper = ResolverKeeper(resolver=resolver, gateway=gateway)
    for _ in range(MISSED_COUNT):
        asyncio.run(keeper.look())
    assert path.read_text() == PLAIN
    assert keeper.facts()["state"] == "failed"


async def test_a_machine_whose_resolver_comes_late_is_told_the_way_it_has_then(
    tmp_path, monkeypatch
) -> None:
    """At boot the link leads nowhere yet; a network may bring systemd-resolved, or none."""
    ran: list[list[str]] = []
    path = tmp_path / "resolv.conf"
    monkeypatch.setattr(ways, "RESOLV_CONF", path)
    monkeypatch.setattr(ways, "NSSWITCH", tmp_path / "nsswitch.conf")
    monkeypatch.setattr(ways.shutil, "which", lambda _: "/usr/bin/resolvectl")
    monkeypatch.setattr(ways, "run_program", ran.append)
    monkeypatch.setattr(ways.ResolvConf.__init__, "__defaults__", (path,))
    monkeypatch.setattr(ways.restore_file, "__defaults__", (path,))
    wish = Wish(gateway=GATEWAY, interface="seip1", domains=("mesh.example.org",))
    chosen = ChosenResolver(wish, tmp_path)
    with pytest.raises(UnavailableError, match="names no name server"):
        await chosen.point()
    path.write_text("nameserver 127.0.0.53\n")
    await chosen.point()
    assert chosen.way is Way.RESOLVED
    assert ran == resolved_commands(wish)
    assert path.read_text() == "nameserver 127.0.0.53\n", "of all names the mesh's alone"
    path.write_text(PLAIN)
    await chosen.point()
    assert chosen.way is Way.FILE
    assert ran[-1] == ["resolvectl", "revert", "seip1"]
    assert path.read_text() == planned(PLAIN, gateway=GATEWAY, folder=str(tmp_path))
    await chosen.take_back()
    assert path.read_text() == PLAIN
