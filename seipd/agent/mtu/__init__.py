"""How large a packet this endpoint's tunnel takes."""
