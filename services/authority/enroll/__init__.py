"""Invitations and what redeems them."""
