from collections.abc import Mapping, Sequence

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from shared_model.errors import ProtocolError
from shared_model.evaluation.score_quantities import pack_scores
from shared_model.evaluation.score_sums import ScoreSums
from shared_model.protocol.quantities import check_arrays
from shared_model.training.updates import (
    check_reply,
    count_patients,
    hash_weights,
    is_moment,
    mean_change,
    pack_update,
    round_quantities,
    to_arrays,
    to_tensors,
)

MEAN, VARIANCE = "norm.running_mean", "norm.running_var"
Weights = dict[str, np.ndarray]


def array(*values: float) -> np.ndarray:
    return np.array(values, dtype=np.float32)


def patients(n: int, **having: int) -> Weights:
    """Counts of one hospital, or of all: n patients, of whom so many have each modality."""
    return {"n-train": np.array(float(n))} | {f"n-train/{name}": np.array(float(k)) for name, k in having.items()}


def total_of(updates: Sequence[Mapping[str, np.ndarray]], *, n: int) -> Weights:
    names = updates[0]
    return {name: np.sum([update[name].astype(np.float64) for update in updates], axis=0) for name in names} | {
        "n-train": np.array(float(n))
    }


def test_mean_change_weighs_hospitals_by_their_patients() -> None:
    before = {"head.weight": array(1, 2)}
    updates = [
        pack_update(before, {"head.weight": array(2, 2)}, counts=patients(30)),  # +1, 0
        pack_update(before, {"head.weight": array(0, 6)}, counts=patients(10)),  # -1, +4
    ]
    # The first moves by 30 - 10 of 40 patients, the second by 10 times 4 of 40.
    assert mean_change(total_of(updates, n=40), before)["head.weight"].tolist() == [0.5, 1.0]


def test_update_is_the_change_times_the_patients() -> None:
    packed = pack_update({"w": array(1, 1)}, {"w": array(1.5, 0)}, counts=patients(4))
    assert list(packed) == ["update/w"]
    assert packed["update/w"].dtype == np.float32
    assert packed["update/w"].tolist() == [2, -4]


@given(
    sizes=st.lists(st.integers(1, 50), min_size=1, max_size=5),
    seed=st.integers(0, 2**32 - 1),
    shift=st.floats(-3, 3),
)
def test_pooled_moments_are_those_of_all_values_together(sizes: list[int], seed: int, shift: float) -> None:
    rng = np.random.default_rng(seed)
    values = [rng.normal(shift * site, 1 + site, size) for site, size in enumerate(sizes)]
    before = {MEAN: array(0.25), VARIANCE: array(4)}
    updates = [
        pack_update(before, {MEAN: array(here.mean()), VARIANCE: array(here.var())}, counts=patients(len(here)))
        for here in values
    ]
    change = mean_change(total_of(updates, n=sum(sizes)), before)
    together = np.concatenate(values)
    scale = 1 + np.square(together).mean()  # the square of a mean of float32 is off by some 1e-7 of itself
    assert before[MEAN] + change[MEAN] == pytest.approx(together.mean(), abs=1e-6 * scale)
    assert before[VARIANCE] + change[VARIANCE] == pytest.approx(together.var(), abs=1e-6 * scale)


def test_pooled_variance_is_larger_than_the_mean_variance_when_hospitals_differ() -> None:
    before = {MEAN: array(0), VARIANCE: array(1)}
    updates = [pack_update(before, {MEAN: array(mean), VARIANCE: array(1)}, counts=patients(10)) for mean in (-2, 2)]
    assert (before[VARIANCE] + mean_change(total_of(updates, n=20), before)[VARIANCE]).tolist() == [5]


def test_pooled_variance_is_never_negative() -> None:
    # In float32 the mean square of a constant 0.1 can come out below the square of its mean.
    before = {MEAN: array(0), VARIANCE: array(1)}
    total = {"update/" + MEAN: np.array([3.0]), "update/" + VARIANCE: np.array([2.999999]), "n-train": np.array(3.0)}
    assert (before[VARIANCE] + mean_change(total, before)[VARIANCE]).tolist() == [0]


def test_moments_are_those_of_batch_norm_only() -> None:
    layer = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    assert {name for name in layer.state_dict() if is_moment(name)} == {"1.running_mean", "1.running_var"}


def test_round_quantities_allow_an_update_and_nothing_else() -> None:
    before = {"w": array(0, 0), MEAN: array(0), VARIANCE: array(1)}
    reply = {
        **pack_update(before, {"w": array(1, -1), MEAN: array(-5), VARIANCE: array(2)}, counts=patients(100)),
        "n-train": np.array(100.0),
        "train-loss-sum": np.array(42.0),
        **pack_scores(ScoreSums.from_scores(np.array([-1.0, 0.5, 2.0]), np.array([0, 1, 1]))),
    }
    check_arrays(reply, round_quantities(before), where="train")
    quantities = round_quantities(before)
    assert {name for name in quantities if name.startswith("update/")} == {f"update/{name}" for name in before}
    assert {name for name, quantity in quantities.items() if quantity.lowest < 0} == {
        f"update/{name}" for name in before
    }


HIP = {
    "encoders.hip.filter": array(1),
    "unimodal.hip.weight": array(1),
    "absent.hip": array(0),
    "encoders.static.table": array(1),
    "head.weight": array(1),
}


def _add(*parts: Mapping[str, np.ndarray]) -> Weights:
    return {name: np.sum([part[name].astype(np.float64) for part in parts], axis=0) for name in parts[0]}


def test_branch_is_averaged_by_the_patients_who_have_its_modality_and_absence_by_those_who_lack_it() -> None:
    """East: 10 patients, 4 have a hip film. North: 30, nobody has. East moves everything by 8, north by 4."""
    east, north = patients(10, hip=4), patients(30, hip=0)
    total = _add(
        pack_update(HIP, {name: value + 8 for name, value in HIP.items()}, counts=east) | east,
        pack_update(HIP, {name: value + 4 for name, value in HIP.items()}, counts=north) | north,
    )

    change = {name: float(value[0]) for name, value in mean_change(total, HIP).items()}

    assert change == {
        "encoders.hip.filter": 8,  # by the four at east alone
        "unimodal.hip.weight": 8,
        "absent.hip": pytest.approx((6 * 8 + 30 * 4) / 36),
        "encoders.static.table": 5,  # (10 * 8 + 30 * 4) / 40: static is not counted here
        "head.weight": 5,
    }


def test_counts_change_nothing_where_everyone_has_everything() -> None:
    def change(*sites: Weights) -> Weights:
        after = [{name: value + step for name, value in HIP.items()} for step in (3, -1)]
        packed = [pack_update(HIP, end, counts=site) | site for end, site in zip(after, sites, strict=True)]
        return mean_change(_add(*packed), HIP)

    plain, aware = change(patients(7), patients(5)), change(patients(7, hip=7), patients(5, hip=5))

    assert aware.pop("absent.hip").tolist() == [0]  # nobody lacks it
    for name, value in aware.items():
        np.testing.assert_array_equal(value, plain[name])


def test_moments_are_pooled_over_the_patients_who_have_the_modality() -> None:
    mean, variance = "encoders.hip.bn.running_mean", "encoders.hip.bn.running_var"
    before = {mean: array(0.5), variance: array(2)}
    values = {2: np.array([1.0, 5.0]), 3: np.array([-2.0, 0.0, 8.0])}
    total = _add(
        *(
            pack_update(before, {mean: array(x.mean()), variance: array(x.var())}, counts=patients(n, hip=k))
            | patients(n, hip=k)
            for n, (k, x) in zip((10, 20), values.items(), strict=True)
        ),
        # 50 patients without a film, so the moments stayed as they came
        pack_update(before, before, counts=patients(50, hip=0)) | patients(50, hip=0),
    )

    change = mean_change(total, before)

    together = np.concatenate(list(values.values()))
    assert before[mean] + change[mean] == pytest.approx(together.mean(), rel=1e-6)
    assert before[variance] + change[variance] == pytest.approx(together.var(), rel=1e-6)


def test_branch_that_nobody_has_does_not_change() -> None:
    site = patients(10, hip=0)
    total = pack_update(HIP, {name: value + 1 for name, value in HIP.items()}, counts=site) | site

    change = mean_change(total, HIP)

    assert (change["encoders.hip.filter"].tolist(), change["absent.hip"].tolist()) == ([0], [1])


def test_patients_are_counted_in_the_counted_modalities_only() -> None:
    present = {"hip": np.array([True, False, True]), "chest": np.ones(3, dtype=bool)}

    counts = count_patients(present, n=3, counted=["hip"])

    assert {name: float(count) for name, count in counts.items()} == {"n-train": 3, "n-train/hip": 2}
    assert set(counts) <= set(round_quantities(HIP, counted=["hip"]))
    assert not [name for name in round_quantities(HIP) if name.startswith("n-train/")]


def test_reply_with_more_films_than_patients_is_refused() -> None:
    scores = pack_scores(ScoreSums.from_scores(np.array([-1.0, 0.5]), np.array([0, 1])))

    check_reply(scores | patients(10, hip=10))
    with pytest.raises(ProtocolError, match="n-train: expected at least"):
        check_reply(scores | patients(10, hip=11))


def test_arrays_and_tensors_turn_into_each_other_without_sharing_memory() -> None:
    layer = nn.Linear(3, 2)
    arrays = to_arrays(layer.state_dict(), ["weight"])
    assert list(arrays) == ["weight"]
    tensors = to_tensors(arrays)
    assert torch.equal(tensors["weight"], layer.weight)
    with torch.no_grad():
        layer.weight.fill_(7)
    assert not (arrays["weight"] == 7).any()
    arrays["weight"][:] = 8
    assert not (tensors["weight"] == 8).any()


def test_hash_does_not_depend_on_the_order_or_layout() -> None:
    first, second = np.arange(6, dtype=np.float32).reshape(2, 3), array(1)
    assert hash_weights({"a": first, "b": second}) == hash_weights({"b": second, "a": np.asfortranarray(first)})


@pytest.mark.parametrize(
    "other",
    [
        {"a": array(1, 2, 3, 5)},
        {"b": array(1, 2, 3, 4)},
        {"a": array(1, 2, 3, 4).reshape(2, 2)},
        {"a": array(1, 2), "b": array(3, 4)},
        {},
    ],
    ids=["value", "name", "shape", "split", "nothing"],
)
def test_hash_differs_when_the_weights_do(other: Weights) -> None:
    assert hash_weights(other) != hash_weights({"a": array(1, 2, 3, 4)})
