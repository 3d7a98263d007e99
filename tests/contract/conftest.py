"""What the suites of the key providers share."""

from __future__ import annotations

import contextlib

import pytest

from tests.fakes.key_providers import ALL


@pytest.fixture(params=ALL)
def opened(request, tmp_path, monkeypatch):
    """Return what opens the same keys again and again."""
    with contextlib.ExitStack() as stack:
        make = request.param(tmp_path, monkeypatch, stack)

        def opened():
            provider = make()
            stack.callback(provider.close)
            return provider

        yield opened
