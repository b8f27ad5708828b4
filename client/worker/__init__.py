"""The worker's answers to the protocol's questions, computed from the hospital's patients."""
