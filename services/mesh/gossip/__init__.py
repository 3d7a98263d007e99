"""Gossip: who is where, how much of each feed everybody holds, and the entries that are missing."""
