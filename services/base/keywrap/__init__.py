"""Private keys at rest: sealed under an unlock secret that lies outside the data root."""
