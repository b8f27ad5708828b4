"""Flower on the coordinator's side: the SuperLink, a run's submission, and messages over the Grid."""
