"""Which name servers a customer has for domains of its own."""
