"""A port of the router at home, asked for by PCP, NAT-PMP or UPnP: one more way to be reached."""
