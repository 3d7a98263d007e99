"""Direct and relayed tunnels between endpoints, beside the one to the server."""
