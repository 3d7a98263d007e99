"""Pure vocabulary that every tier shares: no I/O, no clock, no third-party framework."""
