"""What guards subnets behind endpoints on a server."""
