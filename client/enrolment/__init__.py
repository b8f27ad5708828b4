"""A hospital's keys, and its approval of studies."""
