"""What is installed here, and whether those who make releases approved of it."""
