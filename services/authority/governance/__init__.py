"""Governance: what holds for the whole mesh and only its tier-1 servers change, by vote."""
