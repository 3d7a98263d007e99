"""Who is talked to, as nftables notes and lists it."""

from __future__ import annotations

from seipd.agent.paths.talking import Talkers, addresses_in, table_text


class Firewall:
    def __init__(self, listed=()) -> None:
        self.listed = list(listed)
        self.commands: list[str] = []

    def run(self, commands: str) -> str:
        self.commands.append(commands)
        return ""

    def read(self, command: str):
        self.commands.append(command)
        return self.listed


def test_the_table_notes_what_goes_into_the_tunnel_and_touches_no_packet():
    text = table_text("t", "wg-0", ("10.64.0.0/10", "172.16.0.0/22", "fd00::/64"))
    assert 'oifname "wg-0" ip daddr { 10.64.0.0/10, 172.16.0.0/22 } update @v4' in text
    assert 'oifname "wg-0" ip6 daddr { fd00::/64 } update @v6' in text
    assert "udp sport 51941 udp dport 51941 return" in text
    assert "drop" not in text
    assert "policy accept" in text


def test_without_ipv6_there_is_no_rule_for_it():
    assert "ip6 daddr" not in table_text("t", "wg0", ("10.64.0.0/10",))


def test_elements_are_read_with_and_without_their_timeouts():
    listed = [
        {"metainfo": {"version": "1.0.6"}},
        {
            "set": {
                "name": "v4",
                "elem": [{"elem": {"val": "10.64.0.12", "expires": 9}}, "10.64.0.13"],
            }
        },
        {"set": {"name": "v6"}},
    ]
    assert addresses_in(listed) == ["10.64.0.12", "10.64.0.13"]


def test_the_name_of_the_table_is_one_that_nftables_takes():
    firewall = Firewall()
    talkers = Talkers(firewall, "seip-1.x")
    talkers.begin(("10.64.0.0/10",))
    talkers.addresses()
    talkers.end()
    assert all("seip_talk_seip_1_x" in one for one in firewall.commands)
