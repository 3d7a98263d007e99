"""The mesh's own name server: authoritative answers, made of the replicated state."""
