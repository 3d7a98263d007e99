"""A whole mesh on one machine: real daemons and real WireGuard in network namespaces."""
