"""Which relays there are, how good they are, and which one two endpoints are offered."""
