"""The multimodal model: one encoder a modality, then early fusion (the study's) or late fusion (for comparison)."""

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from shared_model.config import Phase, Settings
from shared_model.errors import SchemaError
from shared_model.modalities.registry import open_modality
from shared_model.model.batch import Batch
from shared_model.model.encoders import ImageEncoder
from shared_model.model.heads import FusionHead, LateFusionWeights
from shared_model.schema import Schema

Embeddings = Mapping[str, Float[Tensor, "batch _width"]]
Present = Mapping[str, Bool[Tensor, "batch"]]

HomePart = Literal["norms", "head"]


class MultimodalModel(nn.Module, ABC):
    """Encoders, a learned "absent" embedding and a linear unimodal head a modality; subclasses fuse.

    Attributes:
        modalities: names in schema order; the order in which embeddings are concatenated.
        fixed: those whose encoder stays as it starts.
        fusion_parts: prefixes of the parameters that fuse; they train in the phases `fusion` and `joint`.
    """

    fusion_parts: tuple[str, ...]

    def __init__(self, schema: Schema, settings: Settings) -> None:
        super().__init__()
        self.modalities = settings.chosen_modalities(schema)
        _refuse_reserved_names(self.modalities)
        self._owners = {name: open_modality(name, schema) for name in self.modalities}
        encoders = {name: owner.build_encoder(settings) for name, owner in self._owners.items()}
        self.encoders = nn.ModuleDict(encoders)
        self.fixed = tuple(self.image_encoders()) if settings.image_training == "fixed" else ()
        self.widths = {name: int(encoder.width) for name, encoder in encoders.items()}  # type: ignore[arg-type]
        self.absent = nn.ParameterDict({name: nn.Parameter(torch.zeros(width)) for name, width in self.widths.items()})
        self.unimodal = nn.ModuleDict({name: nn.Linear(width, 1) for name, width in self.widths.items()})
        self._local_norm, self._local_head = settings.local_norm, settings.local_head

    def encode(self, batch: Batch, known: Embeddings | None = None) -> dict[str, Tensor]:
        """Embedding of each modality for the patients who have it, zero for the others.

        Only present rows pass through an encoder: the blank image of a patient without an X-ray would bias
        BatchNorm's moments.

        Args:
            batch: the patients.
            known: embeddings of these patients that were computed before; their inputs are not read.
        """
        n = len(batch.outcome)
        embeddings = dict(known or {})
        for name in self.modalities:
            if name in embeddings:
                continue
            present = batch.present[name]
            embedding = batch.outcome.new_zeros(n, self.widths[name])
            if bool(present.any()):
                inputs = tuple(part[present] for part in self._owners[name].inputs(batch))
                embedding = embedding.masked_scatter(
                    present.unsqueeze(1), self.encoders[name](*inputs).to(embedding.dtype)
                )
            embeddings[name] = embedding
        return embeddings

    def unimodal_logits(self, embeddings: Embeddings) -> dict[str, Float[Tensor, "batch"]]:
        """Logit of each modality's own head; meaningless where the modality is absent."""
        return {name: self.unimodal[name](embeddings[name]).squeeze(1) for name in self.modalities}

    def mean_unimodal_logit(self, embeddings: Embeddings, present: Present) -> Float[Tensor, "batch"]:
        """Plain mean of the unimodal logits over the modalities that the patient has; 0 with none."""
        logits = torch.stack([self.unimodal_logits(embeddings)[name] for name in self.modalities], dim=1)
        here = torch.stack([present[name] for name in self.modalities], dim=1)
        return logits.where(here, 0.0).sum(dim=1) / here.sum(dim=1).clamp(min=1)

    @abstractmethod
    def fuse(self, embeddings: Embeddings, present: Present) -> Float[Tensor, "batch"]:
        """Logit of death from all embeddings."""

    @abstractmethod
    def fused_inputs(self, embeddings: Embeddings, present: Present) -> dict[str, Tensor]:
        """What of each modality enters the fusion: its embedding, or what stands for an absent one."""

    @abstractmethod
    def projection(self, name: str) -> Float[Tensor, "part width"]:
        """Linear map from a modality's fused input to its contribution."""

    @abstractmethod
    def offset(self, name: str) -> Float[Tensor, "part"]:
        """What having a modality adds to its contribution besides the projection of its embedding."""

    @abstractmethod
    def contributions(self, embeddings: Embeddings, present: Present) -> Float[Tensor, "batch modality part"]:
        """What each modality adds to the fusion: `read_out(contributions.sum(dim=1))` equals `fuse`.

        The fusion begins with a sum over modalities, so a coalition of modalities of two patients is a sum as well:
        Shapley values need the encoders once a patient, and no more than `read_out` for each coalition.
        """

    @property
    def is_linear(self) -> bool:
        """True if the logit is linear in the fused inputs, so that its attributions are known in closed form."""
        return False

    @abstractmethod
    def read_out(self, total: Float[Tensor, "*row part"]) -> Float[Tensor, "*row"]:
        """Logit of summed contributions."""

    def forward(self, batch: Batch) -> Float[Tensor, "batch"]:
        """Logit of death."""
        return self.fuse(self.encode(batch), batch.present)

    def image_encoders(self) -> dict[str, ImageEncoder]:
        """The encoders of images, by modality."""
        return {name: each for name, each in self.encoders.items() if isinstance(each, ImageEncoder)}

    def image_features(self) -> dict[str, int]:
        """How many features each fixed image encoder makes before its projection."""
        return {name: encoder.n_features for name, encoder in self.image_encoders().items() if name in self.fixed}

    def trained_in(self, phase: Phase) -> tuple[str, ...]:
        """Names of the parameters and BatchNorm moments that change in a phase, sorted."""
        parts = {
            "unimodal": ("encoders.", "unimodal."),
            "fusion": self.fusion_parts,
            "joint": ("encoders.", *self.fusion_parts),
        }[phase]
        stays = tuple(f"encoders.{name}." for name in self.fixed)
        return tuple(name for name in self.learned_names() if name.startswith(parts) and not name.startswith(stays))

    def frozen_encoders(self, phase: Phase) -> tuple[str, ...]:
        """The modalities whose embeddings do not change in a phase."""
        return self.modalities if phase == "fusion" else self.fixed

    def home_parts(self) -> dict[HomePart, frozenset[str]]:
        """What each hospital keeps: BatchNorm (FedBN, Li et al. 2021), the fusion (FedPer, Arivazhagan et al. 2019).

        It trains with the rest and never travels; the coordinator only has what it starts from.
        """
        head = frozenset(name for name in self.learned_names() if name.startswith(self.fusion_parts))
        parts: dict[HomePart, frozenset[str]] = {"norms": self.batch_norm_names()} if self._local_norm else {}
        return parts | {"head": head} if self._local_head else parts

    def travelling_in(self, phase: Phase) -> tuple[str, ...]:
        """What goes back and forth in each round of a phase: what trains, without what stays at home."""
        at_home = frozenset[str]().union(*self.home_parts().values())
        return tuple(name for name in self.trained_in(phase) if name not in at_home)

    def frozen_in(self, phase: Phase) -> tuple[str, ...]:
        """What a phase needs besides what travels and the fixed networks.

        That is encoders that it does not train, and a start of what stays at home.
        """
        travelling = set(self.travelling_in(phase))
        needed = {*self.trained_in(phase), *(name for name in self.learned_names() if name.startswith("encoders."))}
        return tuple(sorted(needed - travelling - set(self.fixed_networks())))

    def fixed_networks(self) -> tuple[str, ...]:
        """What never changes in a run, sorted: the residual networks of the image encoders that stay fixed."""
        parts = tuple(f"encoders.{name}.network." for name in self.fixed)
        return tuple(name for name in self.learned_names() if name.startswith(parts))

    @torch.no_grad()
    def set_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Put values into some parameters and BatchNorm moments; fixed networks get a place on the device first."""
        for name in self.fixed:
            encoder, prefix = self.image_encoders()[name], f"encoders.{name}.network."
            is_empty = any(parameter.is_meta for parameter in encoder.network.parameters())
            if is_empty and any(key.startswith(prefix) for key in weights):
                encoder.network = copy.deepcopy(encoder.network).to_empty(device=self.device)
                _forget(encoder.network)
        state = self.state_dict()
        for key, value in weights.items():
            state[key].copy_(value)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.unimodal.parameters()).device

    def changing_names(self) -> tuple[str, ...]:
        """All that is learned but the fixed networks, sorted."""
        fixed = frozenset(self.fixed_networks())
        return tuple(name for name in self.learned_names() if name not in fixed)

    def learned_names(self) -> tuple[str, ...]:
        """Names of all parameters and BatchNorm moments, sorted; BatchNorm's step counters are not learned."""
        return self._learned_names

    @cached_property
    def _learned_names(self) -> tuple[str, ...]:
        return tuple(sorted(name for name in self.state_dict() if not name.endswith(".num_batches_tracked")))

    def batch_norm_names(self) -> frozenset[str]:
        """Names of all that belongs to a BatchNorm layer."""
        return frozenset(
            f"{layer}.{part}"
            for layer, module in self.named_modules()
            if isinstance(module, nn.BatchNorm2d)
            for part in ("weight", "bias", "running_mean", "running_var")
        )


class EarlyFusionModel(MultimodalModel):
    """Concatenated embeddings through a perceptron with a linear short cut (van de Beld et al. 2024, fig. 1).

    Absent modalities enter as their learned embedding. The short cut lets few deaths be fitted by what is in effect a
    logistic regression on the embeddings, while the perceptron adds interactions; we add it to the paper's head.
    """

    fusion_parts = ("absent.", "head.")

    def __init__(self, schema: Schema, settings: Settings) -> None:
        super().__init__(schema, settings)
        self.head = FusionHead(
            width=sum(self.widths.values()),
            hidden=settings.head_widths,
            norm=settings.head_norm,
            dropout=settings.dropout,
        )

    @property
    def is_linear(self) -> bool:
        """With no hidden layer beside the short cut."""
        return not len(self.head.perceptron)

    def fuse(self, embeddings: Embeddings, present: Present) -> Float[Tensor, "batch"]:
        """Logit of the concatenation, in the order of `modalities`."""
        logit: Tensor = self.head(torch.cat(list(self.fused_inputs(embeddings, present).values()), dim=1))
        return logit

    def fused_inputs(self, embeddings: Embeddings, present: Present) -> dict[str, Tensor]:
        """Embeddings, the learned one where the modality is absent."""
        return {
            name: torch.where(present[name].unsqueeze(1), embeddings[name], self.absent[name])
            for name in self.modalities
        }

    def projection(self, name: str) -> Float[Tensor, "part width"]:
        """The modality's columns of the head's first layer."""
        start = sum(self.widths[before] for before in self.modalities[: self.modalities.index(name)])
        return self.head.first_weight()[:, start : start + self.widths[name]]

    def offset(self, name: str) -> Float[Tensor, "part"]:
        """Nothing."""
        return self.head.linear.weight.new_zeros(len(self.projection(name)))

    def contributions(self, embeddings: Embeddings, present: Present) -> Float[Tensor, "batch modality part"]:
        """First layer without its bias, modality by modality."""
        inputs = self.fused_inputs(embeddings, present)
        return torch.stack([inputs[name] @ self.projection(name).T for name in self.modalities], dim=1)

    def read_out(self, total: Float[Tensor, "*row part"]) -> Float[Tensor, "*row"]:
        """The head from its first layer's bias on."""
        logit: Tensor = self.head.read_out(total)
        return logit


class LateFusionModel(MultimodalModel):
    """Weighted mean of the unimodal logits over the modalities that the patient has; the weights are learned."""

    fusion_parts = ("unimodal.", "head.")

    def __init__(self, schema: Schema, settings: Settings) -> None:
        super().__init__(schema, settings)
        self.head = LateFusionWeights(len(self.modalities))

    def fuse(self, embeddings: Embeddings, present: Present) -> Float[Tensor, "batch"]:
        """Weighted mean over present modalities; 0 with none."""
        logits = torch.stack([self.unimodal_logits(embeddings)[name] for name in self.modalities], dim=1)
        here = torch.stack([present[name] for name in self.modalities], dim=1)
        fused: Tensor = self.head(logits, here)
        return fused

    def fused_inputs(self, embeddings: Embeddings, present: Present) -> dict[str, Tensor]:  # noqa: ARG002
        """Embeddings; an absent one is zero and has no weight."""
        return {name: embeddings[name] for name in self.modalities}

    def projection(self, name: str) -> Float[Tensor, "part width"]:
        """The modality's weighted unimodal head, and nothing to the sum of weights."""
        weight: Tensor = self.unimodal[name].weight  # type: ignore[assignment]
        row = self.head.log_weights[self.modalities.index(name)].exp() * weight
        return torch.cat([row, torch.zeros_like(row)])

    def offset(self, name: str) -> Float[Tensor, "part"]:
        """The weighted bias of the modality's head, and its weight."""
        weight = self.head.log_weights[self.modalities.index(name)].exp()
        bias: Tensor = self.unimodal[name].bias  # type: ignore[assignment]
        return torch.stack([weight * bias.squeeze(0), weight])

    def contributions(self, embeddings: Embeddings, present: Present) -> Float[Tensor, "batch modality part"]:
        """Weighted logit and weight of each modality that the patient has."""
        logits = torch.stack([self.unimodal_logits(embeddings)[name] for name in self.modalities], dim=1)
        weights = self.head.log_weights.exp() * torch.stack([present[name] for name in self.modalities], dim=1)
        return torch.stack([weights * logits, weights], dim=2)

    def read_out(self, total: Float[Tensor, "*row part"]) -> Float[Tensor, "*row"]:
        """Weighted mean; 0 with no modality."""
        return total[..., 0] / total[..., 1].clamp(min=torch.finfo(total.dtype).tiny)


def build_model(schema: Schema, settings: Settings) -> MultimodalModel:
    """The study's model with random weights drawn from `settings.seed`; the global random state is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        return _make_model(schema, settings)


def empty_model(schema: Schema, settings: Settings, *, device: torch.device) -> MultimodalModel:
    """The study's model with NaN in every weight: for weights that come with a message.

    Drawing the random weights of two ResNets takes longer than a round of the fusion phase. On the device "meta" it
    has names and shapes only; so have, on any device, the fixed networks until they are set.
    """
    shape = _shape(schema.model_dump_json(), settings)
    networks = [shape.image_encoders()[name].network for name in shape.fixed]
    model = copy.deepcopy(shape, {id(network): network for network in networks})  # shared until they are set
    if device.type == "meta":
        return model
    fixed = {module for network in networks for module in network.modules()}
    for module in model.modules():
        if module not in fixed:
            module.to_empty(device=device, recurse=False)
    _forget(model)
    return model


@torch.no_grad()
def _forget(module: nn.Module) -> None:
    """NaN in every weight, so that one which is forgotten shows; BatchNorm's step counters are not weights."""
    for tensor in module.state_dict().values():
        tensor.fill_(math.nan) if tensor.is_floating_point() else tensor.zero_()


@lru_cache(maxsize=8)
def _shape(schema: str, settings: Settings) -> MultimodalModel:
    """The model of a study, given as JSON, without values; made once, for it is asked for in each round."""
    with torch.device("meta"):
        model = _make_model(Schema.model_validate_json(schema), settings)
    model.learned_names()  # kept with the copies
    return model


def _make_model(schema: Schema, settings: Settings) -> MultimodalModel:
    return EarlyFusionModel(schema, settings) if settings.fusion == "early" else LateFusionModel(schema, settings)


def set_base_rate(model: MultimodalModel, *, odds: float) -> None:
    """Start every output at the cohort's odds of death, so that no round is spent on learning the prevalence."""
    with torch.no_grad():
        for head in model.unimodal.values():
            if isinstance(head, nn.Linear):
                head.bias.fill_(math.log(odds))
        if isinstance(model, EarlyFusionModel):
            model.head.linear.bias.fill_(math.log(odds))


def load_image_weights(model: MultimodalModel, path: Path) -> None:
    """Start every image encoder from a torchvision state dict.

    Raises:
        SettingsError: the file does not fit.
    """
    for encoder in model.image_encoders().values():
        encoder.load_pretrained(path)


def _refuse_reserved_names(modalities: tuple[str, ...]) -> None:
    """Modalities name attributes of PyTorch's containers, which have some of their own, such as `items`."""
    reserved = [name for name in modalities if hasattr(nn.ModuleDict(), name) or hasattr(nn.ParameterDict(), name)]
    if reserved:
        raise SchemaError(
            f"modalities: expected names that PyTorch does not use itself, got {', '.join(reserved)}. "
            "Rename them in schema.toml."
        )
