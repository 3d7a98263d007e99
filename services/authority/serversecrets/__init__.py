"""Secrets for servers: credentials handed out, sealed, to servers of tier 1 alone."""
