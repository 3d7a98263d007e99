"""Release manifests in the ledger: what one server took, all have."""
