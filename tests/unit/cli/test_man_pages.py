"""The man pages tell of every command that a program has."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import click
import pytest

from seipd.agent.main import seip_group
from seipd.cli.main import seipd_group
from seipd.cli.verify import cli as verify_group

if TYPE_CHECKING:
    from collections.abc import Iterator

MAN = Path(__file__).parents[3] / "man"


def paths_of(command: click.Command, context: click.Context) -> Iterator[tuple[str, ...]]:
    """Return the words of each command below one."""
    if not isinstance(command, click.Group):
        yield ()
        return
    for name in command.list_commands(context):
        found = command.get_command(context, name)
        assert found is not None
        if found.hidden:
            continue
        for rest in paths_of(found, click.Context(found, parent=context, info_name=name)):
            yield (name, *rest)


@pytest.mark.parametrize(
    ("page", "group"),
    [("seipd.1", seipd_group()), ("seip.1", seip_group()), ("seipd-verify.1", verify_group)],
)
def test_every_command_is_told_of(page: str, group: click.Group) -> None:
    told = set(re.findall(r"[a-z0-9-]+", (MAN / page).read_text().replace("\\-", "-")))
    paths = list(paths_of(group, click.Context(group, info_name=page)))
    assert len(paths) > 5
    assert [path for path in paths if not told.issuperset(path)] == []
