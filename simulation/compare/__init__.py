"""`hipfed-sim compare`: the experiments that a reviewer asks for, on the same folds and seeds."""
