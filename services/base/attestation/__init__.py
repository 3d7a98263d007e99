"""What a server's hardware says of it: quotes made, quotes verified, the talk about them."""
