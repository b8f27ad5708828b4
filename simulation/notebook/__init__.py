"""Runs and explanations in a notebook: objects that show themselves, tables for pandas, Explanations for shap's plots.

`open_results` reads a run folder; `results.explanations` is what the hospitals' sums say, and `results.explain` the
values of one hospital's own patients, where its data folder is at hand.
"""

from simulation.notebook.federation import FederationExplanations
from simulation.notebook.hospital import HospitalExplanations
from simulation.notebook.results import RunResults, open_results

__all__ = ["FederationExplanations", "HospitalExplanations", "RunResults", "open_results"]
