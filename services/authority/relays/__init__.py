"""Community relays: who runs which, where, for whom."""
