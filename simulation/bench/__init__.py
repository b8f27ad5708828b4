"""Benchmarks: each measures hipfed and its peer in the same run, and writes what it found as JSON."""
