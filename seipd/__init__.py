"""A WireGuard mesh control plane that its owners can prove honest."""

__version__ = "0.1.0"
