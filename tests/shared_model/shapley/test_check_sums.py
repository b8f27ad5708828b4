"""Sums of an explanation that contradict each other are refused, each rule by itself; real ones pass."""

from collections.abc import Callable

import numpy as np
import pytest

from client.site import Site
from client.worker.answering import Worker
from shared_model.errors import ProtocolError
from shared_model.protocol.messages import EXPLAIN, ExplainReply
from shared_model.shapley.summary import MAX_PHI, MAX_Z, check_sums
from tests.server.small_cohort import explain_request, small_settings, write_small_cohort

Arrays = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def sums(tmp_path_factory: pytest.TempPathFactory) -> Arrays:
    """Of a hospital of 60 patients, 12 of them in the test part."""
    folder = tmp_path_factory.mktemp("sums")
    cohort = write_small_cohort(folder / "cohort", hospitals=1, series=True)
    site = Site("east", cohort / "east", folder / "cache")
    answer = Worker(site).answer(EXPLAIN, explain_request(site, small_settings(strata="male")).to_record())
    return dict(ExplainReply.from_record(answer).arrays)


def test_sums_of_a_hospital_and_of_two_of_its_kind_agree(sums: Arrays) -> None:
    check_sums(sums)
    check_sums({name: 2 * array for name, array in sums.items()})


def _put(name: str, value: Callable[[Arrays], float], place: tuple[int, ...] = (0,)) -> Callable[[Arrays], None]:
    def spoil(arrays: Arrays) -> None:
        arrays[name][place if arrays[name].ndim else ()] = value(arrays)

    return spoil


def _n(arrays: Arrays) -> float:
    return float(arrays["n"][0])


FAULTS: dict[str, Callable[[Arrays], None]] = {
    "half a patient": _put("events", lambda a: a["events"][0] + 0.5),
    "half a hospital": _put("between/k", lambda _: 0.5),
    "more events than patients": _put("events", lambda a: _n(a) + 1),
    "a stratum of more than all": _put("n", lambda a: _n(a) + 1, (1,)),
    "more with a modality than patients": _put("present", lambda a: _n(a) + 1, (0, 0)),
    "larger than so many patients have": _put("abs", lambda a: _n(a) * MAX_PHI + 1, (0, 0)),
    "sum beyond the sum of sizes": _put("phi", lambda a: a["abs"][0, 0] + 1, (0, 0)),
    "negative sum beyond it": _put("phi", lambda a: -a["abs"][0, 0] - 1, (0, 0)),
    "those who have it beyond all": _put("abs-present", lambda a: a["abs"][0, 0] + 1, (0, 0)),
    "squares beyond": _put("outer", lambda a: _n(a) * MAX_PHI**2 + 1, (0, 0, 0)),
    "shares of more than one a patient": _put("local", lambda a: _n(a) + 1, (0, 0)),
    "squared shares beyond shares": _put("local-square", lambda a: a["local"][0, 0] + 1, (0, 0)),
    "probabilities beyond": _put("abs-probability", lambda a: _n(a) + 1, (0, 0)),
    "weighted share beyond its weight": _put("between/wy", lambda a: a["between/w"][0] + 1),
    "weighted square beyond": _put("between/wyy", lambda a: a["between/wy"][0] + 1),
    "weight without a hospital": _put("between/w", lambda _: 1e9),
    "half a count": _put("static/histogram", lambda a: a["static/histogram"][0, 0, 0] + 0.5, (0, 0, 0)),
    "counts of others than the patients": _put("static/n", lambda a: a["static/n"][0] - 1),
    "more explained than there are": _put("feature-patients", lambda a: _n(a) + 1),
    "fewer explained than counted": _put("feature-patients", lambda a: a["static/n"].max() - 1),
    "known of more than there are": _put("static/known", lambda a: a["static/n"][0] + 1),
    "a feature's values beyond": _put("static/abs", lambda a: a["static/n"][0] * MAX_PHI + 1),
    "a feature's sum beyond": _put("static/phi", lambda a: -a["static/abs"][0] - 1),
    "a group's sum beyond": _put("static/group-phi", lambda a: a["static/group-abs"][0, 0] + 1, (0, 0)),
    "groups beyond the feature": _put("static/group-abs", lambda a: a["static/abs"][0] + 1, (0, 0)),
    "a feature's squares beyond": _put("static/square", lambda a: a["static/n"][0] * MAX_PHI**2 + 1),
    "values beyond the scale": _put("static/z", lambda a: a["static/known"][0] * MAX_Z + 1),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_sums_that_contradict_each_other_are_refused(sums: Arrays, fault: str) -> None:
    arrays = {name: np.array(array, dtype=np.float64) for name, array in sums.items()}
    FAULTS[fault](arrays)

    with pytest.raises(ProtocolError, match="expected sums that fit the number of patients"):
        check_sums(arrays)


@pytest.mark.parametrize("name", ["events", "present", "abs-probability"])
def test_all_patients_may_be_counted(sums: Arrays, name: str) -> None:
    arrays = {key: np.array(array, dtype=np.float64) for key, array in sums.items()}
    arrays[name][0] = _n(arrays)

    check_sums(arrays)
