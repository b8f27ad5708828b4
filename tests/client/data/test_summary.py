from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from client.data import ModalitySummary, VariableSummary, read_hospital, summarise

if TYPE_CHECKING:
    from tests.client.conftest import SmallHospital


@pytest.fixture
def modalities(hospital: SmallHospital) -> dict[str, ModalitySummary]:
    summary = summarise(read_hospital(hospital.folder, hospital.schema).arrays, hospital.schema)
    assert (summary.patients, summary.events) == (4, 1)
    return {modality.name: modality for modality in summary.modalities}


def test_summarise_counts_who_has_each_modality(modalities: dict[str, ModalitySummary]) -> None:
    assert {name: (part.kind, part.present, part.events) for name, part in modalities.items()} == {
        "static": ("static", 4, 1),
        "vitals": ("series", 2, 1),
        "drugs": ("events", 3, 1),
        "procedures": ("events", 2, 0),
        "hip": ("images", 2, 1),
        "chest": ("images", 1, 0),
    }


def test_summarise_describes_static_columns(modalities: dict[str, ModalitySummary]) -> None:
    age, male, asa = modalities["static"].variables

    assert (age.name, age.unit, age.missing) == ("age", "years", 1)
    assert age.quantiles == pytest.approx((71.1, 81, 91.35))  # of 70, 81, 92.5
    assert male == VariableSummary(name="male", missing=1, counts={"0": 1, "1": 2})
    assert asa == VariableSummary(name="asa", missing=1, counts={"1": 1, "2": 1, "3": 1})


def test_summarise_describes_channels_of_patients_who_have_the_series(modalities: dict[str, ModalitySummary]) -> None:
    heart_rate, saturation = modalities["vitals"].variables

    assert heart_rate.missing == 0
    assert heart_rate.quantiles == pytest.approx((61, 70, 83.5))  # of 60, 70, 85
    assert (saturation.missing, saturation.unit) == (1, "%")


def test_summarise_counts_who_got_each_item(modalities: dict[str, ModalitySummary]) -> None:
    opioid, insulin = modalities["drugs"].variables
    assert (opioid.counts, opioid.quantiles) == ({"given": 1}, (7.5, 7.5, 7.5))
    assert insulin.counts == {"given": 1}
    nail, _ = modalities["procedures"].variables
    assert (nail.counts, nail.quantiles) == ({"given": 1}, None)


def test_summarise_has_no_quantiles_without_patients(hospital: SmallHospital) -> None:
    for name in ("vitals.csv", "images.csv"):
        (hospital.folder / name).unlink()

    summary = summarise(read_hospital(hospital.folder, hospital.schema).arrays, hospital.schema)

    quantiles = {part.name: part.variables[0].quantiles for part in summary.modalities if not part.present}
    assert quantiles == {"vitals": None, "hip": None, "chest": None}
