"""Rendezvous: a server tells two endpoints of each other, so that they find a path of their own."""
