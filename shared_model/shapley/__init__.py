"""Shapley values of the fused model: exact for modalities, estimated with a stated error for what is inside them."""
