"""Which endpoint may reach which, on which port."""
