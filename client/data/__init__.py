"""A hospital's data folder: check it, read it, keep it decoded.

Why a reader of our own: a hospital must learn everything that is wrong with its export at once, by file, line, column
and rule, and nothing about a patient may be read that the study does not need. `load_hospital` is what the rest of the
client calls; `read_hospital` is the reading itself, table by table; the cache stands between the two.
"""

from client.data.cache import CACHE_VARIABLE, chosen_cache_dir, cohort_cache_dir, load_hospital, open_hospital
from client.data.hospital import (
    HospitalData,
    Notes,
    find_schema,
    is_hospital,
    list_patient_images,
    named_folder,
    read_hospital,
)
from client.data.summary import HospitalSummary, ModalitySummary, summarise
from client.data.variable_summary import VariableSummary

__all__ = [
    "CACHE_VARIABLE",
    "HospitalData",
    "HospitalSummary",
    "ModalitySummary",
    "Notes",
    "VariableSummary",
    "chosen_cache_dir",
    "cohort_cache_dir",
    "find_schema",
    "is_hospital",
    "list_patient_images",
    "load_hospital",
    "named_folder",
    "open_hospital",
    "read_hospital",
    "summarise",
]
