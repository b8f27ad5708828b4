"""A simulated study over Flower's simulation engine."""
