"""The tunnel: interface, addresses, routes and peers, kept as they are wanted."""
