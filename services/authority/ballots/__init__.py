"""Ballots on new servers, where the mesh asks for tier 1's approval."""
