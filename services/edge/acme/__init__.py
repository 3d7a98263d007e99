"""Certificates that browsers accept, by ACME (RFC 8555): for this server and its endpoints."""
