"""The update of a training round: parameter changes that are added over hospitals.

Parameters travel as n * (w_local - w_global), so the total over hospitals divided by the total n is the average change
weighted by patients (McMahan et al. 2017). BatchNorm's moments travel as n * mean and n * (variance + mean^2), so the
pooled variance includes the spread between hospitals; averaging variances would lose it.

With `aggregation=modalities` n is that of the branch: encoder and unimodal head of a modality count the training
patients who have it, its "absent" embedding those who lack it, and everything else counts all. So a hospital without
chest X-rays, whose chest encoder did not move, does not hold back the others'.
"""

import hashlib
from collections.abc import Iterable, Mapping

import numpy as np
import torch
from torch import Tensor

from shared_model.errors import ProtocolError
from shared_model.evaluation.score_quantities import score_quantities, unpack_scores
from shared_model.protocol.quantities import MAX_PATIENTS, Quantities, Quantity

PREFIX = "update/"
N_TRAIN = "n-train"
_MEAN, _VARIANCE = ".running_mean", ".running_var"

Weights = Mapping[str, np.ndarray]
Counts = Mapping[str, np.ndarray]

_CHANGE = MAX_PATIENTS * 100.0  # no parameter moves by more than 100 in a round of a healthy training
_MOMENT = 1e9


def round_quantities(weights: Weights, *, counted: Iterable[str] = ()) -> Quantities:
    """The arrays of a train reply: the update of each weight, patients, loss, and the validation score sums.

    Args:
        weights: what travels in the phase.
        counted: modalities whose patients are counted (`Settings.counted_modalities`).
    """
    quantities = {
        PREFIX + name: Quantity(value.shape, _MOMENT if name.endswith((_MEAN, _VARIANCE)) else _CHANGE)
        for name, value in weights.items()
    }
    quantities[N_TRAIN] = Quantity((), MAX_PATIENTS, 1)
    quantities |= {_count_name(modality): Quantity((), MAX_PATIENTS, 0) for modality in counted}
    quantities["train-loss-sum"] = Quantity((), MAX_PATIENTS * 1000.0, 0)
    return quantities | dict(score_quantities())


def count_patients(present: Mapping[str, np.ndarray], *, n: int, counted: Iterable[str]) -> dict[str, np.ndarray]:
    """One hospital's training patients, and how many of them have each counted modality.

    Args:
        present: per modality, whether each training patient has it.
        n: training patients.
        counted: as in `round_quantities`.
    """
    counts = {_count_name(modality): np.array(float(np.count_nonzero(present[modality]))) for modality in counted}
    return {N_TRAIN: np.array(float(n)), **counts}


def check_reply(arrays: Mapping[str, np.ndarray]) -> None:
    """Arrays of a train reply that are well formed do not contradict each other.

    Raises:
        ProtocolError: they do.
    """
    unpack_scores(arrays)
    if any(arrays[name] > arrays[N_TRAIN] for name in arrays if name.startswith(_count_name(""))):
        raise ProtocolError("n-train: expected at least the patients who have any one modality, got fewer.")


def _count_name(modality: str) -> str:
    return f"{N_TRAIN}/{modality}"


def _patients_behind(name: str, counts: Counts) -> float:
    """Training patients by whom a weight is averaged; all of them where its modality is not counted."""
    part, _, rest = name.partition(".")
    everyone, having = float(counts[N_TRAIN]), counts.get(_count_name(rest.partition(".")[0]))
    if having is not None and part in {"encoders", "unimodal"}:
        return float(having)
    if having is not None and part == "absent":
        return everyone - float(having)
    return everyone


def pack_update(before: Weights, after: Weights, *, counts: Counts) -> dict[str, np.ndarray]:
    """One hospital's contribution, float32.

    Args:
        before: weights at the start of the round.
        after: the same names after local training.
        counts: of the hospital, from `count_patients`.
    """
    packed = {}
    for name, start in before.items():
        end = after[name].astype(np.float64)
        if name.endswith(_MEAN):
            value = end
        elif name.endswith(_VARIANCE):
            value = end + np.square(after[name.removesuffix(_VARIANCE) + _MEAN].astype(np.float64))
        else:
            value = end - start
        packed[PREFIX + name] = (_patients_behind(name, counts) * value).astype(np.float32)
    return packed


def mean_change(total: Mapping[str, np.ndarray], before: Weights) -> dict[str, np.ndarray]:
    """Average change of every weight, BatchNorm moments included, from the total over hospitals.

    A weight behind which there is no patient of those that answered does not change.
    """
    change = {}
    for name, start in before.items():
        n = _patients_behind(name, total)
        if not n:
            change[name] = np.zeros_like(start, dtype=np.float64)
            continue
        value = total[PREFIX + name] / n
        if name.endswith(_MEAN):
            value = value - start
        elif name.endswith(_VARIANCE):
            mean = total[PREFIX + name.removesuffix(_VARIANCE) + _MEAN] / n
            value = np.maximum(value - np.square(mean), 0.0) - start
        change[name] = value
    return change


def is_moment(name: str) -> bool:
    """True if a weight is a BatchNorm moment, which is pooled and never optimised."""
    return name.endswith((_MEAN, _VARIANCE))


def to_arrays(state: Mapping[str, Tensor], names: Iterable[str]) -> dict[str, np.ndarray]:
    """Some entries of a state dict as float32 arrays."""
    return {name: state[name].detach().to("cpu", torch.float32).numpy().copy() for name in names}


def to_tensors(weights: Weights) -> dict[str, Tensor]:
    """Arrays as tensors for `load_state_dict`."""
    return {name: torch.from_numpy(np.array(value, dtype=np.float32)) for name, value in weights.items()}


def hash_weights(weights: Weights) -> str:
    """SHA-256 over names, shapes and values, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        value = np.ascontiguousarray(weights[name], dtype="<f4")
        digest.update(f"{name}{value.shape}".encode())
        digest.update(value.tobytes())
    return digest.hexdigest()
