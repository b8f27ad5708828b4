"""Small-cell suppression, questions from whose answers rows of few patients could be computed, and secure sums."""
