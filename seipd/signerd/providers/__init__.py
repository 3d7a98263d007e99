"""Where private keys live, behind one port."""
