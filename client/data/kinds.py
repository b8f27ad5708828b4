"""Readers and summaries of modalities by kind: one table each, named after the modality.

Static columns and images have tables of their own for all together (`patients`, `image_table`). A package that adds a
kind of modality names its reader by an entry point of the group `hipfed.readers`: its name is the kind, its object a
`KindOfTable`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Shaped

from client.data.events import read_events
from client.data.series import read_series
from client.data.variable_summary import VariableSummary, summarise_events, summarise_series
from shared_model import extensions
from shared_model.patient_arrays import PatientArrays
from shared_model.schema import Schema

TableRead = tuple[Shaped[np.ndarray, "patient ..."], Bool[np.ndarray, " patient"], tuple[str, ...]]


@dataclass(frozen=True)
class KindOfTable:
    """A kind whose modalities have a table each.

    Attributes:
        read: from the table's path, the modality's name, the study, the rows of patients.* and a log for problems to
            the values of all patients, whether each has the modality, and columns that were not read.
        summarise: of the patients and the study, what the hospital's screen shows of one modality.
    """

    read: Callable[..., TableRead]
    summarise: Callable[[PatientArrays, Schema, str], tuple[VariableSummary, ...]]


_KINDS: Mapping[str, KindOfTable] = {
    "series": KindOfTable(read_series, summarise_series),
    "events": KindOfTable(read_events, summarise_events),
}


def find_reader(kind: str) -> KindOfTable:
    """How modalities of a kind are read.

    Raises:
        ExtensionError: no installed package reads them.
    """
    found: KindOfTable = _KINDS.get(kind) or extensions.load(extensions.READERS, kind)
    return found
