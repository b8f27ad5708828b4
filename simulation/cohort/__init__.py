"""Synthetic hospitals of hip-fracture patients whose truth is known.

`write_cohort` writes the folders that real hospitals would have (DICOM or PNG radiographs, tables, vital signs, drug
charts) and, beside them, truth.json and truth_patients.csv: the coefficients that decide who dies, the best AUC that
any model can reach, and the exact share of each modality. What a study finds can so be compared with what is there.
"""

from simulation.cohort.making import write_cohort
from simulation.cohort.truth import Coefficient, CohortTruth, HospitalTruth, parse_truth
from simulation.scenarios import SCENARIOS

__all__ = ["SCENARIOS", "Coefficient", "CohortTruth", "HospitalTruth", "parse_truth", "write_cohort"]
