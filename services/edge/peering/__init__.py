"""Which WireGuard peers and routes follow from the state."""
