"""The name servers ns1 to ns9: which server has which name."""
