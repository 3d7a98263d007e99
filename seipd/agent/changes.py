"""What can be new about the way of this machine to the network."""

from __future__ import annotations

import enum


class Change(enum.Enum):
    """What is new."""

    WAY = "the way to the server is another one"
    ADDRESSES = "this machine's addresses are others"
    MORE = "this machine has more addresses"
    AWAKE = "this machine slept"
