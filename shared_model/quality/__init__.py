"""Data quality: checks and their limits, and the measures that they rest on."""
