"""SPIFFE: names of workloads, the certificates that carry them, and whom they are checked by."""
