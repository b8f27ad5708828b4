"""Metrics and curves of all patients from score sums that add up over hospitals."""
