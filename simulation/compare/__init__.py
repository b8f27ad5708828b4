"""`hipfed-sim compare`: the experiments that a reviewer asks for, on the same folds and seeds."""

from simulation.compare.running import Plan, compare_cohort

__all__ = ["Plan", "compare_cohort"]
