"""What the daemon is made of, in tiers that import only downward."""

TIERS = ("kernel", "runtime", "base", "authority", "mesh", "edge")
