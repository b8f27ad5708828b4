"""Data quality: what is wrong with a hospital's images, recordings and columns although every value is in its range.

[measuring](measuring.py) turns patients into numbers, [comparison](comparison.py) and [images](images.py) judge them
against the other hospitals, [outcome](outcome.py) and [correlation](correlation.py) by themselves, and
[answer](answer.py) is the protocol's part. The limits are `shared_model.quality.checks`'s, the same for every hospital.
"""
