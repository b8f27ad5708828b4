"""Keys, certificates, addresses: who is at the other end of a connection."""
