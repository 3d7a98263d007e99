"""STUN: tells whoever asks by which address and port they are seen (RFC 8489)."""
