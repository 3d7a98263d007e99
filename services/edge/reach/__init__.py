"""How servers reach those with whom they have no WireGuard session."""
