"""Catching up with a feed from far behind: whole tiles from several sources at once."""
