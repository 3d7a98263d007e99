"""1,000 rules over 10,000 endpoints in one transaction, one change, and the same by ``nft -f``.

Run as root: ``python tests/bench/bench_policy.py``; it takes a network namespace of its own. The
whole has to be there within a second; of the rest only the ratios travel.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from services.authority.policy.deciding import VIEW
from services.edge.policy.book import PolicyBook
from services.edge.policy.compiling import FAMILY, table_name, whole_table
from services.edge.policy.endpoint_table import InboundBook, Place
from services.edge.policy.inbound import inbound_of
from services.edge.policy.table import KernelTable
from services.kernel.addr import default_ranges
from services.kernel.ids import MeshId
from tests.fakes.policies import StillState

CUSTOMERS = 100
ENDPOINTS = 10_000
RULES = 1_000
CHANGES = 200
LIMIT_S = 1.0
MESH = MeshId("ab" * 32)
INSIDE = "SEIPD_BENCH_INSIDE"


def crowd() -> StillState:
    tree: dict[str, str | None] = {"root": None}
    tree |= {f"c{number}x": "root" for number in range(CUSTOMERS)}
    state = StillState(tree)
    for number in range(ENDPOINTS):
        offset = number // 4000 * 4096 + number % 4000 + 10
        state.tree[f"e{number}"] = {
            "kind": "endpoint",
            "parent": f"c{number % CUSTOMERS}x",
            "record": f"made {number}",
            "address": f"10.{64 + (offset >> 16)}.{offset >> 8 & 255}.{offset & 255}",
        }
    for number in range(RULES):
        source, target = f"c{number % CUSTOMERS}x", f"c{number * 7 // 10 % CUSTOMERS}x"
        if number % 10 == 0:
            target = f"e{number}"
        effect = "deny" if number % 5 == 0 else "allow"
        state.add(f"r{number}", effect, source, target, f"tcp/{1000 + number}-{1003 + number}")
    return state


def seconds(work) -> tuple[float, object]:
    began = time.perf_counter()
    done = work()
    return time.perf_counter() - began, done


def loaded(state: StillState) -> PolicyBook:
    book = PolicyBook(MESH)
    for view, key, value in state.scan("tree", VIEW):
        (book.put_node if view == "tree" else book.put_pair)(key, value)
    return book


def compiled(book: PolicyBook) -> str:
    return whole_table(book, interface="seip0", ranges=default_ranges(), mesh_id=MESH)


def changes(state: StillState, book: PolicyBook, table: KernelTable) -> list[float]:
    """Say and take away a rule, each time for other customers; return how long each took."""
    took = []
    for number in range(CHANGES // 2):
        key = f"c{number % CUSTOMERS}x/c{(number + 3) % CUSTOMERS}x"
        before = state.get(VIEW, key)
        target, source = key.split("/")
        state.add("extra", "allow", source, target, "tcp/443")
        for held in (state.get(VIEW, key), before):

            def change(held=held, key=key) -> int:
                book.put_pair(key, held)
                commands, count = book.elements.take_changes(f"{FAMILY} {table.name}")
                table.run(commands)
                return count

            took_s, count = seconds(change)
            # One element, and one more where nothing was said of that target before.
            assert count in (1, 2), count
            took.append(took_s)
        if before is None:
            del state.acl[key]
        else:
            state.acl[key] = before
    return took


def measure() -> bool:
    state, table = crowd(), KernelTable(table_name("seip0"))
    load_s, book = seconds(lambda: loaded(state))
    text_s, text = seconds(lambda: compiled(book))
    put_s, _ = seconds(lambda: table.replace(text))
    again_s, _ = seconds(lambda: table.replace(text))
    one_s = changes(state, book, table)
    # As ours the second time, it takes the place of a table that is there.
    plain_s, _ = seconds(
        lambda: subprocess.run(["nft", "-f", "-"], input=text, text=True, check=True)
    )
    whole_s, median_s = text_s + put_s, statistics.median(one_s)
    told_s, inbound = seconds(lambda: inbound_of(book, "e0"))
    place = Place(interface="seip1", tunnel_range=default_ranges().tunnel, mesh_id=MESH)
    agent, own = InboundBook(place), KernelTable(place.table)
    agent.put(inbound)
    agent_s, _ = seconds(lambda: own.replace(agent.whole()))
    lines = (
        f"endpoints {ENDPOINTS}, customers {CUSTOMERS}, rules {RULES}",
        f"nodes and rules to elements {load_s * 1e3:.0f} ms, to text {text_s * 1e3:.0f} ms",
        f"one transaction {put_s * 1e3:.0f} ms; in the place of another {again_s * 1e3:.0f} ms",
        f"one change {median_s * 1e3:.2f} ms; the whole to one change {whole_s / median_s:.0f}",
        f"the whole by nft -f {plain_s * 1e3:.0f} ms; ours to that {again_s / plain_s:.2f}",
        f"what may reach one endpoint {told_s * 1e3:.1f} ms; its table {agent_s * 1e3:.1f} ms",
    )
    sys.stdout.write("\n".join(lines) + "\n")
    return load_s + whole_s < LIMIT_S


def main() -> int:
    if os.environ.get(INSIDE):
        return 0 if measure() else 1
    command = ["unshare", "--net", sys.executable, __file__]
    environment = {**os.environ, INSIDE: "1"}
    return subprocess.run(command, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
