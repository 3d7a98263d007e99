"""A server whose answer to a join is more than an answer gets nothing written on this machine."""

from __future__ import annotations

import copy
import json

import pytest
from aiohttp.test_utils import TestClient, TestServer
from hypothesis import given
from hypothesis import strategies as st

from seipd.agent.answer import check_answer
from seipd.agent.state import AgentKeys
from seipd.agent.tunnel import wg_quick_file
from seipd.config.load import load_settings
from services.base.crypto.agreement import generate_x25519
from services.base.crypto.signatures import generate_signing_key
from services.kernel.errors import ConfigError, WireError
from services.kernel.ids import b64u_encode
from tests.fakes.one_server import OneServer

KEY = b64u_encode(generate_signing_key().public_key)
WIREGUARD = b64u_encode(generate_x25519()[1])
GOOD = {
    "node_id": "00000000-0000-4000-8000-000000000001",
    "hostname": "laptop",
    "customer": "00000000-0000-4000-8000-000000000002",
    "domain": "mesh.internal",
    "tunnel_address": "10.64.0.10",
    "tunnel_address6": "fd00::10",
    "server": {
        "server_id": "server-0123456789abcdef",
        "key": KEY,
        "wireguard_key": WIREGUARD,
        "endpoint": "192.0.2.1:51940",
        "addresses": ["192.0.2.1:9100"],
    },
    "allowed_ips": ["10.64.0.0/10", "fd00::/64"],
    "gateway": "10.64.0.1",
    "private_port": 9101,
    "keepalive_seconds": 25,
    "record": {"server_id": "server-0123456789abcdef", "proof": "", "certificate": {}},
}
EVIL = [
    "\nPostUp = touch /tmp/owned",
    "#",
    ' = "x"',
    "\r\n[Peer]",
    ": {a: !!python/object}",
    "\x1b[2J",
    "$(id)",
    "%i",
    "'",
]
PATHS = [
    *((name,) for name, value in GOOD.items() if isinstance(value, str)),
    *(("server", name) for name, value in GOOD["server"].items() if isinstance(value, str)),
    ("allowed_ips", 0),
    ("server", "addresses", 0),
    ("record", "server_id"),
]


def changed(path, change):
    value = copy.deepcopy(GOOD)
    inner = value
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = change(inner[path[-1]])
    return value


def test_a_good_answer_passes_and_so_does_one_of_a_later_version() -> None:
    check_answer(GOOD)
    check_answer({**GOOD, "resolver": "10.64.0.1"})


@pytest.mark.parametrize("evil", EVIL)
@pytest.mark.parametrize("path", PATHS, ids=lambda path: str(path[-1]))
def test_cfg_08_no_field_brings_a_line_of_its_own(path, evil) -> None:
    for change in (lambda text: text + evil, lambda text: evil + text, lambda _: evil):
        with pytest.raises(WireError):
            check_answer(changed(path, change))


@pytest.mark.parametrize("name", ["keepalive_seconds", "private_port"])
@pytest.mark.parametrize("value", ["25\nPostUp = x", "25", -1, 65536, 25.5, None, True])
def test_cfg_08_numbers_are_numbers(name, value) -> None:
    with pytest.raises(WireError):
        check_answer({**GOOD, name: value})


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(sorted(GOOD)), inner),
    )
)
def test_any_other_answer_is_refused_and_breaks_nothing(value) -> None:
    with pytest.raises(WireError):
        check_answer(value)


def test_cfg_08_the_file_for_wg_quick_has_only_lines_that_we_wrote() -> None:
    keys = AgentKeys(identity=generate_signing_key(), wireguard_private=generate_x25519()[0])
    lines = wg_quick_file(GOOD, keys).splitlines()
    assert [line.partition(" = ")[0] for line in lines] == [
        "[Interface]",
        "PrivateKey",
        "Address",
        "",
        "[Peer]",
        "PublicKey",
        "Endpoint",
        "AllowedIPs",
        "PersistentKeepalive",
    ]


def test_the_file_tells_a_stock_client_an_mtu_only_where_one_was_chosen() -> None:
    keys = AgentKeys(identity=generate_signing_key(), wireguard_private=generate_x25519()[0])
    assert "MTU" not in wg_quick_file(GOOD, keys)
    assert "MTU = 1320\n" in wg_quick_file(GOOD, keys, mtu=1320)


async def test_what_our_own_server_answers_is_good(tmp_path) -> None:
    server = await OneServer.start(tmp_path)
    try:
        record = server.join_record(await server.token(), generate_signing_key(), "laptop")
        async with TestClient(TestServer(server.app("public"))) as client:
            answer = await client.post("/api/join", data=json.dumps({"record": record}))
            check_answer(json.loads(await answer.read()))
    finally:
        await server.stop()


@pytest.mark.parametrize("evil", EVIL)
async def test_cfg_08_a_server_takes_no_such_name_either(tmp_path, evil) -> None:
    server = await OneServer.start(tmp_path)
    try:
        record = server.join_record(await server.token(), generate_signing_key(), f"a{evil}")
        async with TestClient(TestServer(server.app("public"))) as client:
            answer = await client.post("/api/join", data=json.dumps({"record": record}))
            assert (answer.status, json.loads(await answer.read())["code"]) == (400, "bad_name")
    finally:
        await server.stop()


@pytest.mark.parametrize("evil", EVIL)
@pytest.mark.parametrize("name", ["domain", "region", "wireguard_interface"])
def test_cfg_08_nor_do_the_settings(name, evil) -> None:
    with pytest.raises(ConfigError):
        load_settings(flags={name: f"a{evil}"}, environment={})
