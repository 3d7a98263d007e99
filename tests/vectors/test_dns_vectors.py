"""dnspython's zone and query: what we make of the same records."""

from __future__ import annotations

import dnslib
import pytest

from services.edge.dns.building import Body, RecordSet
from services.edge.dns.wire import Type, parse_query
from services.kernel.dnsdata import parse_data
from services.kernel.dnsnames import name_of, text_of
from services.kernel.errors import InputError
from tests.vectors.locate import vectors_dir

ORIGIN = "example"
WITH_NAME = {"CNAME", "MX", "SRV"}


def rows() -> list[tuple[str, int, str, str]]:
    """Return owner, TTL, type and data of the records of types that operators may set."""
    found = []
    for line in (vectors_dir("dns") / "example3.good").read_text().splitlines():
        owner, ttl, _, rtype, data = line.split(None, 4)
        if rtype not in ("A", "AAAA", "CNAME", "MX", "SRV", "CAA") or owner == "*":
            continue
        if rtype in WITH_NAME and not data.endswith("."):
            data = f"{data}.{ORIGIN}."
        found.append((owner, int(ttl), rtype, data))
    return found


def test_there_are_enough_of_them() -> None:
    assert {row[2] for row in rows()} == {"A", "AAAA", "CNAME", "MX", "SRV", "CAA"}
    assert len(rows()) > 30


@pytest.mark.parametrize(("owner", "ttl", "rtype", "data"), rows())
def test_a_record_of_the_zone_has_the_wire_format_that_the_oracle_gives_it(
    owner: str, ttl: int, rtype: str, data: str
) -> None:
    if data == "." and rtype == "CNAME":
        with pytest.raises(InputError):
            parse_data(rtype, data)
        return
    rdata = parse_data(rtype, data)
    name = name_of(f"{owner}.{ORIGIN}")
    body = Body(name)
    body.add(name, RecordSet(rtype=Type[rtype], ttl_s=ttl, rdatas=(rdata,)))
    question = name + int(Type[rtype]).to_bytes(2, "big") + b"\0\1"
    message = b"\0\1\x84\0\0\1\0\1\0\0\0\0" + question + bytes(body)
    (record,) = dnslib.DNSRecord.parse(message).rr
    (wanted,) = dnslib.RR.fromZone(f"{owner}.{ORIGIN}. {ttl} IN {rtype} {data}")
    assert record == wanted
    assert record.ttl == ttl


def test_the_query_is_read_as_it_is_written() -> None:
    lines = (vectors_dir("dns") / "query").read_text().splitlines()
    facts = dict(line.split(None, 1) for line in lines if " " in line and line[0] != ";")
    (question,) = (line for line in lines if line.endswith("IN A"))
    name = question.split()[0]
    head = int(facts["id"]).to_bytes(2, "big") + b"\1\0\0\1\0\0\0\0\0\1"
    opt = b"\0\0\x29" + int(facts["payload"]).to_bytes(2, "big") + b"\0\0\x80\0\0\0"
    query = parse_query(head + name_of(name) + b"\0\1\0\1" + opt)
    assert int.from_bytes(query.message_id, "big") == int(facts["id"])
    assert f"{text_of(query.name)}." == name
    assert query.edns is not None
    assert (query.edns.payload_bytes, query.edns.dnssec_ok) == (int(facts["payload"]), True)
