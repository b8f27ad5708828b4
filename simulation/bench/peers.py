"""The explainers of shap and captum, used as their documentation says, each for the values of the modalities.

Explainers that need only predictions get the modalities as players: a coalition is evaluated through the whole model,
encoders included, on hybrids of the patient and every background row. Explainers that need gradients get the tensors
that the model takes, and their attributions are summed to modalities.
"""

from collections.abc import Callable
from importlib.util import find_spec

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn
from torch.nn.functional import one_hot

from shared_model.errors import SettingsError
from shared_model.model.batch import Batch
from shared_model.model.encoders.resnet import BasicBlock, Bottleneck
from shared_model.model.fusion import EarlyFusionModel
from shared_model.schema import STATIC
from simulation.bench.explainer_model import Phi, Subject, modality_inputs, select

Explain = Callable[[], Phi]
Game = Callable[[Float64[np.ndarray, "coalition modality"]], Float64[np.ndarray, "coalition"]]
Row = Float64[np.ndarray, "modality"]


def require_captum() -> None:
    """Refuse to begin without captum; shap is there always.

    Raises:
        SettingsError: it is not installed.
    """
    if find_spec("captum") is None:
        raise SettingsError(
            "bench explanations: expected the package captum, got none. Install it with: pip install -e '.[bench]'"
        )


class MaskedModel:
    """Value of coalitions of modalities: mean logit over hybrids that take the others from each background row."""

    def __init__(self, model: EarlyFusionModel, patient: Batch, background: Batch) -> None:
        self._model, self._background = model, background
        self._patient = select(patient, [0] * len(background.outcome))

    @torch.no_grad()
    def __call__(self, coalitions: Float64[np.ndarray, "coalition modality"]) -> Float64[np.ndarray, "coalition"]:
        """Value of each row; 1 = the patient's."""
        return np.array([self._value(np.asarray(row) > 0.5) for row in coalitions])

    def _value(self, members: np.ndarray) -> float:
        taken = {name for name, member in zip(self._model.modalities, members, strict=True) if member}
        return float(self._model(mix(self._patient, self._background, taken)).double().mean())


def mix(own: Batch, other: Batch, taken: set[str]) -> Batch:
    """The modalities in `taken` of the first, the rest of the second."""

    def source(name: str) -> Batch:
        return own if name in taken else other

    return Batch(
        numbers=source(STATIC).numbers,
        levels=source(STATIC).levels,
        inputs={name: source(name).inputs[name] for name in other.inputs},
        present={name: source(name).present[name] for name in other.present},
        outcome=other.outcome,
    )


class RawModel(nn.Module):
    """The model on tensors that all have a gradient: a level comes as the one-hot row that its table is multiplied by.

    Attributes:
        owners: index of the modality that each input belongs to.
    """

    def __init__(self, model: EarlyFusionModel) -> None:
        super().__init__()
        self.model = model
        self.owners = (0, *range(len(model.modalities)))  # numbers and one-hots are both static

    def inputs(self, batch: Batch) -> list[Tensor]:
        """What `forward` takes."""
        tables = self.model.encoders[STATIC].tables
        levels = [
            one_hot(batch.levels[:, i], len(table.weight)).float()
            for i, table in enumerate(tables)  # type: ignore[arg-type]
        ]
        others = [modality_inputs(batch, name)[0] for name in self.model.modalities if name != STATIC]
        return [batch.numbers, torch.cat(levels, dim=1), *others]

    def forward(self, numbers: Tensor, levels: Tensor, *others: Tensor) -> Float[Tensor, "batch 1"]:
        """Logits."""
        weights = [table.weight for table in self.model.encoders[STATIC].tables]  # type: ignore[union-attr]
        parts = torch.split(levels, [len(weight) for weight in weights], dim=1)
        looked_up = [part @ weight for part, weight in zip(parts, weights, strict=True)]
        embeddings = {STATIC: torch.cat([numbers, *looked_up], dim=1)}
        names = [name for name in self.model.modalities if name != STATIC]
        embeddings |= {name: self.model.encoders[name](part) for name, part in zip(names, others, strict=True)}
        here = dict.fromkeys(embeddings, torch.ones(len(numbers), dtype=torch.bool))
        return self.model.fuse(embeddings, here).unsqueeze(1)


class PlainBlock(nn.Module):
    """A residual block with a ReLU of its own at each place and nothing in place: the same function."""

    def __init__(self, block: BasicBlock | Bottleneck) -> None:
        super().__init__()
        layers: list[nn.Module] = [block.conv1, block.bn1, nn.ReLU(), block.conv2, block.bn2]
        if isinstance(block, Bottleneck):
            layers += [nn.ReLU(), block.conv3, block.bn3]
        self.branch = nn.Sequential(*layers)
        self.shortcut = block.downsample or nn.Identity()
        self.last = nn.ReLU()

    def forward(self, maps: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch out h w"]:
        """Rectified sum of branch and short cut."""
        out: Tensor = self.last(self.branch(maps) + self.shortcut(maps))
        return out


def rewrite_blocks(model: nn.Module) -> None:
    """Change every residual block of a model into a `PlainBlock`, and its other ReLUs to work out of place."""
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, (BasicBlock, Bottleneck)):
                setattr(module, name, PlainBlock(child))
            elif isinstance(child, nn.ReLU):
                child.inplace = False


def shap_exact(subject: Subject) -> Explain:
    """All coalitions, in an order in which neighbours differ by one player."""
    import shap  # noqa: PLC0415 - slow, and only this explainer needs it

    def explain(value: Game, nobody: np.ndarray) -> Row:
        explainer = shap.ExactExplainer(value, shap.maskers.Independent(nobody))
        return np.asarray(explainer(1 - nobody, silent=True).values[0])

    explain(lambda coalitions: coalitions.sum(axis=1), np.zeros((1, 3)))  # numba compiles for some ten seconds
    return _for_each_patient(subject, explain)


def shap_kernel(subject: Subject) -> Explain:
    """Weighted regression on coalitions; so few players are enumerated."""
    import shap  # noqa: PLC0415 - slow, and only this explainer needs it

    def explain(value: Game, nobody: np.ndarray) -> Row:
        return np.asarray(shap.KernelExplainer(value, nobody).shap_values(1 - nobody, silent=True)[0])

    return _for_each_patient(subject, explain)


def shap_permutation(subject: Subject, *, n_orders: int) -> Explain:
    """Random orders, each followed by its reverse."""
    import shap  # noqa: PLC0415 - slow, and only this explainer needs it

    def explain(value: Game, nobody: np.ndarray) -> Row:
        explainer = shap.PermutationExplainer(value, shap.maskers.Independent(nobody), seed=subject.settings.seed)
        evaluations = n_orders * (2 * nobody.shape[1] + 1)
        return np.asarray(explainer(1 - nobody, max_evals=evaluations, silent=True).values[0])

    return _for_each_patient(subject, explain)


def captum_sampling(subject: Subject, *, n_orders: int) -> Explain:
    """Random orders."""
    from captum.attr import ShapleyValueSampling  # noqa: PLC0415 - an extra

    def explain(value: Game, nobody: np.ndarray) -> Row:
        def evaluate(coalitions: Tensor) -> Tensor:
            return torch.from_numpy(value(coalitions.numpy()))

        everybody, reference = torch.from_numpy(1 - nobody), torch.from_numpy(nobody)
        found = ShapleyValueSampling(evaluate).attribute(everybody, reference, n_samples=n_orders)
        return np.asarray(found.numpy()[0])

    return _for_each_patient(subject, explain)


def shap_deep(subject: Subject, *, rewritten: bool, check_additivity: bool) -> Explain:
    """DeepLIFT multipliers through module hooks.

    Args:
        subject: what is explained.
        rewritten: explains `PlainBlock`s, because the hooks fail on those of `shared_model`.
        check_additivity: lets shap raise where the sum is wrong.
    """
    import shap  # noqa: PLC0415 - slow, and only this explainer needs it

    def explain(model: RawModel, own: list[Tensor], reference: list[Tensor]) -> list[np.ndarray]:
        explainer = shap.DeepExplainer(model, reference)
        return list(explainer.shap_values(own, check_additivity=check_additivity))

    return _from_raw_inputs(subject, explain, rewritten=rewritten)


def shap_gradient(subject: Subject) -> Explain:
    """Expected gradients at shap's default of 200 random points between patient and background."""
    import shap  # noqa: PLC0415 - slow, and only this explainer needs it

    def explain(model: RawModel, own: list[Tensor], reference: list[Tensor]) -> list[np.ndarray]:
        return list(shap.GradientExplainer(model, reference).shap_values(own, rseed=subject.settings.seed))

    return _from_raw_inputs(subject, explain, rewritten=False)


def captum_deep(subject: Subject, *, rewritten: bool) -> Explain:
    """DeepLIFT multipliers through module hooks.

    Args:
        subject: what is explained.
        rewritten: explains `PlainBlock`s, because the hooks fail on those of `shared_model`.
    """
    from captum.attr import DeepLiftShap  # noqa: PLC0415 - an extra

    def explain(model: RawModel, own: list[Tensor], reference: list[Tensor]) -> list[np.ndarray]:
        found = DeepLiftShap(model).attribute(tuple(own), tuple(reference), target=0)
        return [part.detach().numpy() for part in found]

    return _from_raw_inputs(subject, explain, rewritten=rewritten)


def _for_each_patient(subject: Subject, explain: Callable[[Game, np.ndarray], Row]) -> Explain:
    nobody = np.zeros((1, len(subject.model.modalities)))

    def explain_all() -> Phi:
        patients = (select(subject.patients, [i]) for i in range(len(subject.patients.outcome)))
        return np.stack([explain(MaskedModel(subject.model, own, subject.background), nobody) for own in patients])

    return explain_all


def _from_raw_inputs(
    subject: Subject,
    explain: Callable[[RawModel, list[Tensor], list[Tensor]], list[np.ndarray]],
    *,
    rewritten: bool,
) -> Explain:
    if rewritten:
        rewrite_blocks(subject.model)
    model = RawModel(subject.model).eval()
    reference = model.inputs(subject.background)

    def explain_all() -> Phi:
        phi = np.zeros((len(subject.patients.outcome), len(subject.model.modalities)))
        for i in range(len(phi)):
            for owner, part in zip(
                model.owners, explain(model, model.inputs(select(subject.patients, [i])), reference), strict=True
            ):
                phi[i, owner] += float(np.asarray(part, dtype=np.float64).sum())
        return phi

    return explain_all
