"""Soft facts: what servers sign about themselves for a while. See ``envelope`` for the layout."""
