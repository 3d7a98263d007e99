"""Dynamic DNS: tells whoever runs the zone above where this server is."""
