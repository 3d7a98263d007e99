"""``seipd tree``: nodes and grants."""

from __future__ import annotations

from typing import Any

import click

from seipd.cli.options import settings_of, wants_json
from seipd.cli.output import print_facts, print_json, print_table
from seipd.client.local import ask

CAPABILITIES = ("read", "operate", "admin")


def _post(context: click.Context, path: str, body: dict[str, Any]) -> None:
    answer = ask(settings_of(context), "POST", path, body)
    if wants_json(context):
        print_json(answer)
    else:
        print_facts(list(answer.items()))


@click.group()
def tree() -> None:
    """Customers and endpoints, and who may do what with them."""


@tree.command(name="ls")
@click.argument("node", required=False)
@click.pass_context
def list_nodes(context: click.Context, *, node: str | None) -> None:
    """List the nodes below one; below the root where none is named."""
    settings = settings_of(context)
    if node is None:
        node = ask(settings, "GET", "/api/tree/root")["node_id"]
    nodes: list[dict[str, Any]] = []
    cursor: str | None = ""
    while cursor is not None:
        page = ask(settings, "GET", f"/api/tree/children/{node}?cursor={cursor}")
        nodes += page["children"]
        cursor = page["cursor"]
    if wants_json(context):
        print_json(nodes)
        return
    columns = ("node_id", "kind", "name", "address", "server")
    print_table(columns, [[one.get(column) for column in columns] for one in nodes])


@tree.command()
@click.argument("node")
@click.pass_context
def show(context: click.Context, *, node: str) -> None:
    """Show one node."""
    found = ask(settings_of(context), "GET", f"/api/tree/node/{node}")
    if wants_json(context):
        print_json(found)
    else:
        print_facts(list(found.items()))


@tree.command()
@click.argument("name")
@click.option("--parent", default=None, metavar="NODE", help="below this customer [the root]")
@click.pass_context
def add(context: click.Context, *, name: str, parent: str | None) -> None:
    """Make a customer."""
    _post(context, "/api/tree/add", {"name": name, "parent": parent})


@tree.command(name="set")
@click.argument("node")
@click.option("--name", default=None, help="the new name")
@click.option("--parent", default=None, metavar="NODE", help="the new parent")
@click.pass_context
def set_node(context: click.Context, *, node: str, name: str | None, parent: str | None) -> None:
    """Rename or move a node."""
    _post(context, "/api/tree/set", {"node": node, "name": name, "parent": parent})


@tree.command()
@click.argument("node")
@click.pass_context
def rm(context: click.Context, *, node: str) -> None:
    """Remove a node; an endpoint's address is free again."""
    _post(context, "/api/tree/remove", {"node": node})


@tree.command()
@click.argument("node")
@click.argument("key")
@click.argument("capability", type=click.Choice(CAPABILITIES))
@click.pass_context
def grant(context: click.Context, *, node: str, key: str, capability: str) -> None:
    """Grant a key a capability at a node and below."""
    _post(context, "/api/tree/grant", {"node": node, "key": key, "capability": capability})


@tree.command()
@click.argument("node")
@click.argument("key")
@click.pass_context
def revoke(context: click.Context, *, node: str, key: str) -> None:
    """Take a key's grant at a node away."""
    _post(context, "/api/tree/grant", {"node": node, "key": key, "capability": None})


@tree.group()
def route() -> None:
    """Subnets behind endpoints and ways out: offered by them, approved here."""


@route.command(name="ls")
@click.pass_context
def list_routes(context: click.Context) -> None:
    """List what endpoints offer to carry, and what of it is approved."""
    routes = ask(settings_of(context), "GET", "/api/tree/routes")["routes"]
    if wants_json(context):
        print_json(routes)
        return
    columns = ("node_id", "name", "address", "customer", "route", "approved")
    print_table(columns, [[one[column] for column in columns] for one in routes])


@route.command()
@click.argument("node")
@click.argument("prefix")
@click.pass_context
def approve(context: click.Context, *, node: str, prefix: str) -> None:
    """Let NODE, a name, address or id, carry PREFIX; ``exit`` lets it carry everything."""
    _post(context, "/api/tree/routes/approve", {"node": node, "route": prefix})


@route.command()
@click.argument("node")
@click.argument("prefix")
@click.pass_context
def withdraw(context: click.Context, *, node: str, prefix: str) -> None:
    """Let NODE carry PREFIX no more."""
    _post(context, "/api/tree/routes/withdraw", {"node": node, "route": prefix})
