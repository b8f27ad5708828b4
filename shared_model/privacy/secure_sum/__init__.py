"""Secure summation: a coordinator learns the sum of hospitals' integers, and nothing else of any hospital.

Bonawitz et al. 2017, "Practical secure aggregation for privacy-preserving machine learning", section 4 and figure 4.
"""
