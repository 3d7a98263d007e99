"""Recovery: a lost root is followed by one that enough of the servers vouch for."""
