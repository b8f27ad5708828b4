"""The hospital as a service: supervised worker and SuperNode, and their separation."""
