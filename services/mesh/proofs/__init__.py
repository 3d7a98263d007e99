"""What a client checks before it believes: pure, for the endpoint program and offline."""
