"""A relay: WireGuard packets of two endpoints that can't reach each other, passed on unread."""
