"""The researcher's bench: synthetic hospitals with a known truth, and studies run on one machine."""
