"""The common subject of the benchmark's explainers: one model, patients, background, and the true values.

Nothing is trained: the time and the errors of an explainer depend on the model's layers, not on what it has learned.
All weights and BatchNorm moments are random; the image embeddings have variance 1 over the background and so has the
logit, so that every modality matters.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float64, UInt16
from torch import Tensor, nn
from torch.nn.functional import interpolate

from shared_model.config import Settings, parse_settings
from shared_model.errors import SettingsError
from shared_model.model.batch import Batch
from shared_model.model.encoders import ImageEncoder
from shared_model.model.fusion import EarlyFusionModel, MultimodalModel, build_model
from shared_model.patient_arrays import PatientArrays
from shared_model.preprocessing.standardisation import Preprocessing, pooled_preprocessing
from shared_model.schema import STATIC, Channel, Events, Images, Schema, Series, StaticColumn, StudyIdentity
from shared_model.training.epochs import encode_all, seeded_rng

N_NUMERIC, N_BINARY, N_CATEGORICAL = 20, 10, 10
N_STEPS, N_CHANNELS, N_ITEMS = 60, 6, 16
VITALS, ITEMS, IMAGES = "vitals", "medications", ("hip", "chest")
MISSING = 0.1  # of static values
UNMEASURED = 0.3  # of the cells of the vital signs
PATCHES = 8  # an image is smooth: this many random grays a side, interpolated

LONGEST_CHUNK = 32  # rows through an encoder at once

Phi = Float64[np.ndarray, "patient modality"]


@dataclass(frozen=True)
class Subject:
    """What is explained, and what is true of it.

    Attributes:
        schema: of the patients.
        preprocessing: of the model.
        settings: the model's; with `threads`, those of the whole benchmark.
        model: in eval mode.
        patients: who is explained; they have all modalities, and so has the background.
        background: against whom.
        logit: of each patient, by the model's own forward pass.
        base_logit: mean over the background, likewise.
        phi: Shapley values of the modalities by enumeration in float64.
    """

    schema: Schema
    preprocessing: Preprocessing
    settings: Settings
    model: EarlyFusionModel
    patients: Batch
    background: Batch
    logit: Float64[np.ndarray, "patient"]
    base_logit: float
    phi: Phi

    def save(self, path: Path) -> None:
        """Write to a file for the other processes."""
        torch.save(self, path)

    @classmethod
    def load(cls, path: Path) -> Subject:
        """Read what `save` wrote, and set this process to the settings' threads and seed."""
        subject: Subject = torch.load(path, weights_only=False)  # written by this benchmark a moment ago
        torch.set_num_threads(subject.settings.threads)
        torch.manual_seed(subject.settings.seed)
        return subject


def choose_settings(assignments: Mapping[str, str]) -> Settings:
    """Settings of the model.

    Raises:
        SettingsError: unknown, out of range, or not for this benchmark.
    """
    # A perceptron, where it is not set: every explainer is right on a linear head.
    settings = parse_settings({"head": "32", **assignments})
    if settings.fusion != "early" or settings.modalities:
        raise SettingsError(
            "bench explanations: expected early fusion of all modalities, got other settings of fusion or modalities. "
            "Leave them out."
        )
    return settings


def build_subject(*, image_size: int, patients: int, background: int, settings: Settings) -> Subject:
    """A random model and random patients; the same arguments give the same numbers.

    Args:
        image_size: pixels.
        patients: how many are explained.
        background: rows of it.
        settings: from `choose_settings`.
    """
    schema = study_schema(image_size=image_size)
    model = build_model(schema, settings).eval()
    assert isinstance(model, EarlyFusionModel)  # noqa: S101 - as the settings say
    torch.set_num_threads(settings.threads)
    arrays = draw_patients(schema, patients + background, rng=seeded_rng(settings.seed, "patients"), with_images=True)
    preprocessing = pooled_preprocessing(arrays, np.arange(patients, len(arrays)), schema)
    batch = preprocessing.batch(arrays, np.arange(len(arrays)), schema=schema, device=torch.device("cpu"))
    own, reference = select(batch, range(patients)), select(batch, range(patients, len(arrays)))
    _randomise(model, torch.Generator().manual_seed(settings.seed))
    _scale(model, reference)
    return Subject(
        schema=schema,
        preprocessing=preprocessing,
        settings=settings,
        model=model,
        patients=own,
        background=reference,
        logit=_predict(model, own),
        base_logit=float(_predict(model, reference).mean()),
        phi=enumerate_values(model, own, reference),
    )


def study_schema(*, image_size: int) -> Schema:
    """40 static variables, 6 vital signs at 60 times, 16 medications, two X-rays."""
    numeric = [StaticColumn(name=f"numeric_{i}", kind="numeric", range=(0.0, 128.0)) for i in range(N_NUMERIC)]
    binary = [StaticColumn(name=f"binary_{i}", kind="binary") for i in range(N_BINARY)]
    levels = [tuple(f"level_{k}" for k in range(3 + i % 4)) for i in range(N_CATEGORICAL)]
    categorical = [StaticColumn(name=f"category_{i}", kind="categorical", levels=own) for i, own in enumerate(levels)]
    channels = tuple(Channel(name=f"channel_{i}", range=(0.0, 256.0)) for i in range(N_CHANNELS))
    return Schema(
        study=StudyIdentity(name="bench", title="Benchmark of explainers", outcome="died", patient_id="patient_id"),
        static=(*numeric, *binary, *categorical),
        series={VITALS: Series(time_unit="min", step=5.0, steps=N_STEPS, channels=channels)},
        events={ITEMS: Events(aggregate="any", items=tuple(f"item_{i}" for i in range(N_ITEMS)))},
        images={name: Images(size=image_size) for name in IMAGES},
    )


def draw_patients(schema: Schema, n: int, *, rng: np.random.Generator, with_images: bool) -> PatientArrays:
    """Random patients with missing values, who have all modalities.

    Args:
        schema: from `study_schema`.
        n: how many.
        rng: draws them.
        with_images: False gives images of no pixels, for who needs none.
    """
    numbers = np.concatenate([rng.uniform(0, 128, (n, N_NUMERIC)), rng.integers(0, 2, (n, N_BINARY))], axis=1)
    numbers[rng.random(numbers.shape) < MISSING] = np.nan
    levels = np.stack([rng.integers(0, len(column.levels), n) for column in schema.categories], axis=1)
    levels[rng.random(levels.shape) < MISSING] = -1
    vitals = rng.normal(rng.uniform(60, 120, (n, 1, N_CHANNELS)), 20.0, (n, N_STEPS, N_CHANNELS)).clip(0, 256)
    vitals[rng.random(vitals.shape) < UNMEASURED] = np.nan
    return PatientArrays(
        patient_ids=tuple(f"P{i}" for i in range(n)),
        outcome=(np.arange(n) % 2).astype(np.int8),
        numbers=numbers.astype(np.float64),
        levels=levels,
        raw={
            VITALS: vitals.astype(np.float64),
            ITEMS: rng.integers(0, 2, (n, N_ITEMS)).astype(np.float32),
            **{name: _draw_images(n, images.size if with_images else 0, rng) for name, images in schema.images.items()},
        },
        present={name: np.ones(n, dtype=bool) for name in schema.modalities},
    )


def select(batch: Batch, rows: Collection[int]) -> Batch:
    """Some rows of a batch, in the given order; a row may come more than once."""
    index = torch.tensor(list(rows), dtype=torch.int64)

    def chosen(parts: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: part[index] for name, part in parts.items()}

    return Batch(
        numbers=batch.numbers[index],
        levels=batch.levels[index],
        inputs=chosen(batch.inputs),
        present=chosen(batch.present),
        outcome=batch.outcome[index],
    )


def modality_inputs(batch: Batch, name: str) -> tuple[Tensor, ...]:
    """What a modality's encoder takes."""
    if name == STATIC:
        return batch.numbers, batch.levels
    return (batch.inputs[name],)


@torch.no_grad()
def enumerate_values(model: EarlyFusionModel, patients: Batch, background: Batch) -> Phi:
    """Shapley values by their definition: the mean marginal contribution over all orders, in float64.

    It shares with our engine that a modality is encoded once (an encoder sees nothing else), and no more: coalitions go
    through `fuse`, and the orders are written out.
    """
    exact = copy.deepcopy(model).double().eval()
    own, reference = _encode_exactly(exact, patients), _encode_exactly(exact, background)
    n, names = len(background.outcome), model.modalities
    here = dict.fromkeys(names, torch.ones(n, dtype=torch.bool))
    phi = np.zeros((len(patients.outcome), len(names)))
    orders = list(permutations(range(len(names))))
    for i, total in enumerate(phi):
        worth = {}
        for mask in range(2 ** len(names)):
            members = frozenset(m for m in range(len(names)) if mask >> m & 1)
            hybrid = {
                name: own[name][i].expand(n, -1) if m in members else reference[name] for m, name in enumerate(names)
            }
            worth[members] = float(exact.fuse(hybrid, here).mean())
        for order in orders:
            for k, player in enumerate(order):
                total[player] += worth[frozenset(order[: k + 1])] - worth[frozenset(order[:k])]
    return phi / len(orders)


def _encode_exactly(exact: EarlyFusionModel, batch: Batch) -> dict[str, Tensor]:
    embeddings = {}
    for name, encoder in exact.encoders.items():
        inputs = [part.double() if part.is_floating_point() else part for part in modality_inputs(batch, name)]
        chunks = zip(*(torch.split(part, LONGEST_CHUNK) for part in inputs), strict=True)
        embeddings[name] = torch.cat([encoder(*chunk) for chunk in chunks])
    return embeddings


def _draw_images(n: int, size: int, rng: np.random.Generator) -> UInt16[np.ndarray, "patient height width"]:
    if not size:
        return np.zeros((n, 0, 0), dtype=np.uint16)
    patches = torch.from_numpy(rng.uniform(0, 65_535, (n, 1, PATCHES, PATCHES)))
    smooth = interpolate(patches, size=(size, size), mode="bilinear")[:, 0].numpy()
    return np.asarray((smooth + rng.normal(0, 2_000, smooth.shape)).clip(0, 65_535), dtype=np.uint16)


@torch.no_grad()
def _randomise(model: EarlyFusionModel, generator: torch.Generator) -> None:
    """Random values where a new model has constants: BatchNorm, absent embeddings and the head's output layers."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None  # noqa: S101 - torchvision's ResNet tracks moments
            assert module.running_var is not None  # noqa: S101
            module.weight.uniform_(0.5, 1.5, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
            module.bias.normal_(0.0, 0.1, generator=generator)
            module.running_mean.normal_(0.0, 0.1, generator=generator)
    for embedding in model.absent.values():
        embedding.normal_(generator=generator)
    for module in model.head.modules():
        if isinstance(module, nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
            module.bias.normal_(0.0, 0.1, generator=generator)


@torch.no_grad()
def _scale(model: EarlyFusionModel, background: Batch) -> None:
    """Give image embeddings mean 0 and standard deviation 1 over the background, and the logit standard deviation 1."""
    for name in IMAGES:
        encoder = model.encoders[name]
        assert isinstance(encoder, ImageEncoder)  # noqa: S101 - as the schema says
        embedding = torch.cat([encoder(chunk) for chunk in torch.split(background.inputs[name], LONGEST_CHUNK)])
        last: nn.Linear = encoder.projection
        sd = embedding.std(dim=0)
        last.bias.copy_((last.bias - embedding.mean(dim=0)) / sd)
        last.weight.div_(sd.unsqueeze(1))
    sd_logit = float(_predict(model, background).std())
    for layer in (model.head.linear, *model.head.perceptron[-1:]):
        layer.weight.div_(sd_logit)
        layer.bias.div_(sd_logit)


@torch.no_grad()
def _predict(model: MultimodalModel, batch: Batch) -> Float64[np.ndarray, "patient"]:
    encoded = encode_all(
        model,
        lambda rows: select(batch, rows),
        np.arange(len(batch.outcome)),
        device=torch.device("cpu"),
        batch_size=32,
    )
    return np.asarray(model.fuse(encoded.embeddings, encoded.present).double().numpy())
