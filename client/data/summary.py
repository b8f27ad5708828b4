"""Count and describe what a hospital has, per modality, so that its staff can see a wrong export at a glance.

A summary quotes single values and small counts: it is for the hospital's own screen and never leaves it.
"""

from collections.abc import Callable
from dataclasses import dataclass

from client.data.kinds import find_reader
from client.data.variable_summary import VariableSummary, summarise_image, summarise_static
from shared_model.patient_arrays import PatientArrays
from shared_model.schema import STATIC, Schema


@dataclass(frozen=True)
class ModalitySummary:
    """One modality.

    Attributes:
        name: as in the schema.
        kind: static, series, events, images or another package's.
        present: patients that have it.
        events: of these, how many have outcome 1.
        variables: its columns, channels, items, or the image itself.
    """

    name: str
    kind: str
    present: int
    events: int
    variables: tuple[VariableSummary, ...]


@dataclass(frozen=True)
class HospitalSummary:
    """A whole hospital.

    Attributes:
        patients: how many.
        events: how many have outcome 1.
        modalities: one summary for each modality of the schema.
    """

    patients: int
    events: int
    modalities: tuple[ModalitySummary, ...]


def summarise(arrays: PatientArrays, schema: Schema) -> HospitalSummary:
    """What a hospital has.

    Args:
        arrays: its patients.
        schema: the study that they were read with.
    """
    modalities = tuple(
        ModalitySummary(
            name=name,
            kind=schema.kinds[name],
            present=int(arrays.present[name].sum()),
            events=int(arrays.outcome[arrays.present[name]].sum()),
            variables=_summarisers(schema.kinds[name])(arrays, schema, name),
        )
        for name in schema.modalities
    )
    return HospitalSummary(patients=len(arrays), events=int(arrays.outcome.sum()), modalities=modalities)


def _summarisers(kind: str) -> Callable[[PatientArrays, Schema, str], tuple[VariableSummary, ...]]:
    if kind == STATIC:
        return summarise_static
    return summarise_image if kind == "images" else find_reader(kind).summarise
