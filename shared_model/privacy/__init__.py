"""Small-cell suppression, and the questions from whose answers rows of few patients could be computed."""
