"""Holds endpoints to what may reach what, by nftables."""
