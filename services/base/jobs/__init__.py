"""Durable work: what has to happen sooner or later, whatever stops meanwhile."""
