"""Training on one hospital's patients: an epoch, a step, and where the step's inputs come from."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from shared_model.config import Phase, Settings
from shared_model.errors import SettingsError
from shared_model.model.batch import Batch
from shared_model.model.fusion import Embeddings, MultimodalModel, Present
from shared_model.training.losses import outcome_loss, unimodal_loss
from shared_model.training.scaffold import correct_gradients

Rows = Int64[np.ndarray, "row"]


@dataclass(frozen=True)
class Encoded:
    """Patients as the fusion sees them.

    Attributes:
        embeddings: per modality; zero for patients without it.
        present: per modality, whether the patient has it.
        outcome: 0.0 or 1.0.
    """

    embeddings: Embeddings
    present: Present
    outcome: Float[Tensor, "batch"]

    def select(self, rows: Rows) -> Encoded:
        """The given rows, in the given order."""
        index = torch.from_numpy(rows).to(self.outcome.device)
        return Encoded(
            {name: value[index] for name, value in self.embeddings.items()},
            {name: value[index] for name, value in self.present.items()},
            self.outcome[index],
        )

    def only(self, modalities: Collection[str]) -> Encoded:
        """The same patients with the embeddings of some modalities."""
        return Encoded({name: self.embeddings[name] for name in modalities}, self.present, self.outcome)


Source = Callable[[Rows], Encoded]


@dataclass(frozen=True)
class Objective:
    """What a phase minimises.

    Attributes:
        phase: unimodal heads, or the fused logit.
        event_weight: how often an event counts; 1 keeps probabilities calibrated.
        proximal_mu: FedProx's weight of the squared distance to `anchor`; 0 = none.
        anchor: the global parameters at the start of the round, by name.
    """

    phase: Phase
    event_weight: float
    proximal_mu: float
    anchor: dict[str, Tensor]

    def loss(self, model: MultimodalModel, encoded: Encoded) -> Float[Tensor, ""]:
        """Log loss of the phase's logit, plus mu / 2 * ||w - w_global||^2 (Li et al. 2020, eq. 2)."""
        if self.phase == "unimodal":
            logits = model.unimodal_logits(encoded.embeddings)
            loss = unimodal_loss(logits, encoded.present, encoded.outcome, event_weight=self.event_weight)
        else:
            logit = model.fuse(encoded.embeddings, encoded.present)
            loss = outcome_loss(logit, encoded.outcome, event_weight=self.event_weight)
        if self.proximal_mu:
            own = dict(model.named_parameters())
            distance = torch.stack([(own[name] - start).square().sum() for name, start in self.anchor.items()]).sum()
            loss = loss + self.proximal_mu / 2 * distance
        return loss


def train_one_epoch(
    model: MultimodalModel,
    source: Source,
    batches: Iterable[Rows],
    *,
    optimiser: torch.optim.Optimizer,
    objective: Objective,
    max_gradient_norm: float,
    corrections: Mapping[str, Tensor] | None = None,
) -> float:
    """One pass over the batches; the model is changed in place.

    Args:
        model: with what trains in the phase.
        source: gives a batch's embeddings.
        batches: rows of each batch.
        optimiser: takes the steps.
        objective: is minimised.
        max_gradient_norm: longer gradients are shortened to it.
        corrections: added to the gradients after that, by parameter name (SCAFFOLD).

    Returns:
        Sum over patients of the loss at the moment their batch was seen.
    """
    total, parameters = 0.0, dict(model.named_parameters())
    for rows in batches:
        encoded = source(rows)
        loss = objective.loss(model, encoded)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), max_gradient_norm)
        correct_gradients(parameters, corrections or {})
        optimiser.step()
        total += float(loss.detach()) * len(rows)
    return total


def prepare_phase(model: MultimodalModel, phase: Phase) -> dict[str, nn.Parameter]:
    """Freeze what the phase does not train, and put frozen encoders into eval mode, for their BatchNorm.

    Returns:
        The parameters that train, by name.
    """
    trained = frozenset(model.trained_in(phase))
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in trained)
    model.train()
    for name in model.frozen_encoders(phase):
        model.encoders[name].eval()
    return {name: parameter for name, parameter in model.named_parameters() if name in trained}


def build_optimiser(
    model: MultimodalModel, parameters: Mapping[str, nn.Parameter], settings: Settings, *, n_train: int
) -> torch.optim.Optimizer:
    """SGD: on small hospitals it beat Adam, and it leaves no state to keep between rounds.

    Heads have a penalty of their own: with some 70 deaths a linear head needs a strong one, which would stop an
    encoder from learning. It is that of a penalised regression on all patients, so it counts for less the more they
    are. Image encoders have a learning rate of their own: at the heads' they memorise the deaths. Biases and norms
    have no decay, so the mean risk stays calibrated.

    Args:
        model: whose parameters they are.
        parameters: what trains, by name.
        settings: of the run.
        n_train: training patients of all hospitals together.
    """
    images = tuple(f"encoders.{name}." for name in model.image_encoders())
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in parameters.items():
        of_head = name.startswith(("head.", "unimodal."))
        decay = settings.head_penalty / n_train if of_head else settings.weight_decay
        rate = settings.image_learning_rate if name.startswith(images) else settings.learning_rate
        groups.setdefault((rate, 0.0 if parameter.ndim < 2 else decay), []).append(parameter)
    return torch.optim.SGD(
        [{"params": group, "lr": rate, "weight_decay": decay} for (rate, decay), group in groups.items()],
        lr=settings.learning_rate,
        momentum=settings.momentum,
    )


def learning_rates(optimiser: torch.optim.Optimizer, parameters: Mapping[str, nn.Parameter]) -> dict[str, float]:
    """The learning rate of each parameter, by name."""
    rates = {id(parameter): group["lr"] for group in optimiser.param_groups for parameter in group["params"]}
    return {name: rates[id(parameter)] for name, parameter in parameters.items()}


def shuffled_batches(n: int, *, batch_size: int, rng: np.random.Generator) -> Iterator[Rows]:
    """All rows 0..n-1 once, in random order, cut into batches; a last batch of one row joins the one before."""
    order = rng.permutation(n)
    starts = list(range(0, n, batch_size))
    if len(starts) > 1 and n - starts[-1] == 1:
        starts.pop()
    for start, stop in zip(starts, [*starts[1:], n], strict=True):
        yield order[start:stop]


def seeded_rng(*parts: str | int) -> np.random.Generator:
    """A generator that depends on every part and on nothing else, e.g. (seed, site, phase, round)."""
    digest = hashlib.sha256("\x1f".join(str(part) for part in parts).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "big"))


def choose_device(wanted: str) -> torch.device:
    """The device to train on: `auto` takes the GPU if there is one.

    Raises:
        SettingsError: `cuda` was asked for and is not there; falling back to a 100 times slower CPU would be silent.
    """
    if wanted == "cuda" and not torch.cuda.is_available():
        raise SettingsError("device: expected a CUDA GPU as asked for, got none. Set device to cpu or auto.")
    return torch.device("cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu")


def mixed_precision(device: torch.device) -> AbstractContextManager[object]:
    """Let a GPU that has bfloat16 use it."""
    mixed = device.type == "cuda" and torch.cuda.is_bf16_supported()
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=mixed)


def encode(model: MultimodalModel, batch: Batch, *, device: torch.device, known: Embeddings | None = None) -> Encoded:
    """Embeddings of a batch, in mixed precision (bfloat16, channels last) on a GPU that has it.

    Args:
        model: in the mode that it is to be used in.
        batch: the patients.
        device: of both.
        known: embeddings that were computed before.
    """
    with mixed_precision(device):
        embeddings = model.encode(batch, known)
    return Encoded(embeddings, batch.present, batch.outcome)


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Eval mode for a while; afterwards every module is in the mode it was in (frozen encoders stay in eval)."""
    was_training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in was_training.items():
            module.training = training


@torch.no_grad()
def encode_all(
    model: MultimodalModel,
    batch_of: Callable[[Rows], Batch],
    rows: Rows,
    *,
    device: torch.device,
    known: Embeddings | None = None,
    batch_size: int = 128,
) -> Encoded:
    """Embeddings of many patients in eval mode, encoded in chunks so that memory stays flat; the mode is restored.

    Args:
        model: in any mode.
        batch_of: inputs of chosen patients.
        rows: the patients.
        device: of the model.
        known: embeddings of these rows that were computed before.
        batch_size: patients at a time.
    """
    with eval_mode(model):
        chunks = []
        for start in range(0, len(rows), batch_size):
            span = slice(start, start + batch_size)
            before = {name: value[span] for name, value in (known or {}).items()}
            chunks.append(encode(model, batch_of(rows[span]), device=device, known=before))
    return Encoded(
        {name: torch.cat([chunk.embeddings[name] for chunk in chunks]) for name in model.modalities},
        {name: torch.cat([chunk.present[name] for chunk in chunks]) for name in chunks[0].present},
        torch.cat([chunk.outcome for chunk in chunks]),
    )


@torch.no_grad()
def predict_logits(
    model: MultimodalModel, encoded: Encoded, *, phase: Phase, correction: float
) -> Float[np.ndarray, "patient"]:
    """Logits of a phase's prediction, the event weight taken out: the fused one; in phase `unimodal`, the mean of all.

    Args:
        model: in any mode, which is restored.
        encoded: from `encode_all`.
        phase: which prediction.
        correction: added to every logit (`losses.logit_correction`).
    """
    with eval_mode(model):
        if phase == "unimodal":
            logit = model.mean_unimodal_logit(encoded.embeddings, encoded.present)
        else:
            logit = model.fuse(encoded.embeddings, encoded.present)
    return logit.double().cpu().numpy() + correction
