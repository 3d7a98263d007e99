"""The DS of the mesh's zone: over the daemon's own socket, and by ``seipd dns ds``."""

from __future__ import annotations

import dns.dnssec
import dns.name
import dns.rdata
import pytest
from dns.rdatatype import DNSKEY, DS

from services.authority.dnskeys import view
from services.kernel.ids import b64u_encode

DAY_MS = 86_400_000


@pytest.fixture
async def signed(server):
    """A mesh whose zone is signed."""
    await server.ledger.submit([server.author.record("dns.claim", {"slot": 1})])
    await server.zone_keys.look()
    await server.zone_keys.look()
    return server


def keys(server) -> view.KeysWire:
    found = view.keys_in_force(server.ledger.state)
    assert found is not None
    return found


async def ds(operator):
    answer = await operator.get("/api/dns/ds")
    return answer.status, await answer.json()


async def test_there_is_no_ds_of_a_zone_that_is_not_signed(operator) -> None:
    status, said = await ds(operator)
    assert (status, said["code"]) == (404, "not_signed")


async def test_the_ds_is_that_of_the_entry_point_by_an_oracle(operator, signed) -> None:
    _, said = await ds(operator)
    owner, _, _, _, text = said["ds"].split(None, 4)
    apex = dns.name.from_text(owner)
    key = dns.rdata.from_text("IN", DNSKEY, said["dnskey"].split(None, 4)[4])
    assert dns.dnssec.make_ds(apex, key, "SHA256") == dns.rdata.from_text("IN", DS, text)
    assert key.flags == 257
    assert key.key == signed.signer.keys["dns-ksk-1"].public_key
    assert said["key_tag"] == dns.dnssec.key_id(key)


async def test_a_key_that_changes_is_in_the_next_set(signed) -> None:
    before = keys(signed)
    signed.zone_keys.key = signed.identity.signing_key
    await signed.zone_keys.look()
    await signed.zone_keys.look()
    assert keys(signed).zsks == [b64u_encode(signed.identity.public_key)] != before.zsks
    assert keys(signed).ksk == before.ksk


async def test_the_set_is_signed_anew_when_half_of_its_life_is_over(signed) -> None:
    before = keys(signed)
    signed.clock.shift_ms = 6 * DAY_MS
    await signed.zone_keys.look()
    assert keys(signed) == before
    signed.clock.shift_ms = 8 * DAY_MS
    await signed.zone_keys.look()
    assert keys(signed).expiration > before.expiration


async def test_it_says_so_where_the_set_is_about_to_end(signed) -> None:
    assert signed.zone_keys.health().detail == "1 name servers sign the zone"
    signed.clock.shift_ms = 12 * DAY_MS
    assert "48 hours more: the server that holds the root is away" in (
        signed.zone_keys.health().detail
    )


async def test_a_lost_entry_point_is_replaced_at_a_word_alone(operator, signed) -> None:
    before = keys(signed)
    _, first = await ds(operator)
    del signed.signer.keys["dns-ksk-1"]
    signed.clock.shift_ms = 8 * DAY_MS
    with pytest.raises(Exception, match="the signer has no key dns-ksk-1"):
        await signed.zone_keys.look()
    assert keys(signed) == before
    answer = await operator.post("/api/dns/rekey", data="{}")
    said = await answer.json()
    assert answer.status == 200
    assert said["ds"] != first["ds"]
    assert keys(signed).ksk != before.ksk


async def test_the_command_prints_the_ds_the_key_and_why_there_is_none(seipd, server) -> None:
    refused = await seipd("dns", "ds")
    assert refused.returncode != 0
    assert "the zone is not signed" in refused.stderr
    await server.ledger.submit([server.author.record("dns.claim", {"slot": 1})])
    await server.zone_keys.look()
    await server.zone_keys.look()
    assert (await seipd("dns", "ds")).stdout.startswith("mesh.internal. 3600 IN DS ")
    assert " DNSKEY 257 3 15 " in (await seipd("dns", "ds", "--anchor")).stdout
    assert (await seipd("dns", "rekey", "--yes")).stdout.startswith("mesh.internal. 3600 IN DS ")
