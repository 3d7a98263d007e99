"""The names of the mesh on this machine: its resolver is pointed at the gateway, and back."""
