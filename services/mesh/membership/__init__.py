"""Who is there: SWIM with suspicion, incarnations and Lifeguard's refinements."""
