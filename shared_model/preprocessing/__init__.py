"""One standardisation for all hospitals: means, deviations and medians from sums over their patients."""
