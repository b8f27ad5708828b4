"""Flower at a hospital: its SuperNode, with what hipfed changes in it."""
