"""Looks up for endpoints, inside of the tunnel, what is not the mesh's own."""
