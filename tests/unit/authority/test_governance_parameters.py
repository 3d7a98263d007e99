"""What a vote may set: what can't even be said, and the value where nobody voted."""

from __future__ import annotations

import pytest

from services.authority.governance import parameters
from services.kernel.errors import WireError
from tests.fakes.world import World


@pytest.mark.parametrize("value", [0.51, 1.01, float("nan")])
def test_gov_04_a_share_that_is_not_whole_can_t_even_be_written(value) -> None:
    world = World(1)
    body = {"parameter": parameters.SHARE_QUORUM, "old_value": 75, "new_value": value}
    with pytest.raises(WireError):
        world.signed(world.servers[0].key, "governance.propose", body)


@pytest.mark.parametrize("name", list(parameters.PARAMETERS))
def test_every_parameter_has_a_default_that_it_allows(name) -> None:
    one = parameters.PARAMETERS[name]
    assert one.allows(one.default)
    assert parameters.value(World(1).folded().state, name) == one.default
