"""The table under the zone: names above names, and where the reverse zones begin."""

from __future__ import annotations

from services.edge.dns.innernames import reverse_apexes
from services.edge.dns.records import addresses, texts
from services.edge.dns.wire import Type
from services.edge.dns.zone import Source, Table
from services.kernel.addr import default_ranges
from services.kernel.dnsnames import name_of, text_of


def test_reverse_zones_begin_at_whole_octets() -> None:
    found = [text_of(one) for one in reverse_apexes("ab" * 32, default_ranges())]
    assert found[0] == "64.10.in-addr.arpa"
    assert found[63] == "127.10.in-addr.arpa"
    assert found[64:68] == [f"{n}.16.172.in-addr.arpa" for n in range(4)]
    assert found[68].endswith(".d.f.ip6.arpa")
    assert len(found) == 69


def test_a_name_above_others_is_there_as_long_as_they_are() -> None:
    changed: list[bytes] = []
    table = Table(changed.append)
    deep, above = name_of("a.b.c.d"), name_of("b.c.d")
    table.put(Source.MESH, deep, addresses(1, "192.0.2.1"))
    assert table.find(above) == {}
    table.put(Source.OPERATOR, deep, [texts(1, ["x"])])
    assert set(table.find(deep)) == {Type.A, Type.TXT}
    table.put(Source.MESH, deep, ())
    assert set(table.find(deep)) == {Type.TXT}
    table.put(Source.OPERATOR, deep, [texts(1, ["x"])])
    assert len(changed) == 3
    table.put(Source.OPERATOR, deep, ())
    assert table.find(above) is None
    assert table.find(deep) is None
    assert table.names(Source.MESH) == []
