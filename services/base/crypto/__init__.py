"""Typed wrappers around libsodium and ``cryptography``: no primitive of our own, no I/O."""
