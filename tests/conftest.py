"""What holds for every test."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

from tests.fakes.thoroughness import share

# A busy machine is no fault of what is tested.
settings.register_profile(
    "seipd",
    deadline=None,
    max_examples=share(100),
    suppress_health_check=[HealthCheck.too_slow],
    print_blob=True,
)
settings.load_profile("seipd")
