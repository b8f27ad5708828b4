"""Run settings: one frozen object, one place for the kebab-case keys, defaults and limits.

The same keys are used by `hipfed-sim run --set KEY=VALUE`, by Flower's run config (pyproject.toml) and by config.json.
"""

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from shared_model import extensions
from shared_model.errors import SettingsError
from shared_model.schema import Schema

Phase = Literal["unimodal", "fusion", "joint"]
PHASES: tuple[Phase, ...] = ("unimodal", "fusion", "joint")
Scalar = str | int | float | bool
MOST_REFITS = 1000
IMAGE_ENCODERS = ("resnet18", "resnet50")
STRATEGIES = ("fedavg", "fedprox", "fedadam", "fedyogi", "scaffold", "newton")


def _kebab(name: str) -> str:
    return name.replace("_", "-")


def _one_of(built_in: Sequence[str], group: str) -> Callable[[str], str]:
    """A check that a name is one of hipfed's or of an installed package's."""

    def check(name: str) -> str:
        if name not in built_in and name not in (known := extensions.known_names(group, built_in)):
            raise ValueError(f"expected one of {', '.join(known)}")
        return name

    return check


class Settings(BaseModel):
    """Everything that decides a run besides the data: model, optimisation, protocol, disclosure rule.

    Attributes are grouped as in this class; a key is the attribute's name with hyphens.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, alias_generator=_kebab, populate_by_name=True
    )

    seed: int = Field(
        0, ge=0, lt=2**31, description="of weights, batches, splits and samples: the same seed, the same run"
    )
    fold: int = Field(0, ge=0, description="the fold held out as test part; the next one is the validation part")
    folds: int = Field(5, ge=3, le=20, description="parts that patients are divided into")

    fusion: Literal["early", "late"] = Field(
        "early", description="early: embeddings side by side; late: mean of the modalities' own predictions, to compare"
    )
    modalities: str = Field("", description="comma-separated subset of the study's modalities; empty = all")
    image_encoder: Annotated[str, AfterValidator(_one_of(IMAGE_ENCODERS, extensions.IMAGE_ENCODERS))] = Field(
        "resnet18", description="network of X-rays; packages can add others"
    )
    image_weights: str = Field("", description="torchvision state dict on the coordinator's disk; empty = random start")
    image_training: Literal["fixed", "trained"] = Field(
        "fixed", description="of image encoders: stay as they start, ending in principal components, or train"
    )
    image_embedding: int = Field(16, ge=1, le=2048, description="columns of an image's embedding")
    image_skip: bool = Field(default=True, description="skip connections; false = a plain network, for comparison")
    series_embedding: int = Field(16, ge=0, le=512, description="state of the LSTM; 0 = none, only summaries")
    series_summaries: bool = Field(default=True, description="of each channel, beside the LSTM")
    head: str = Field("", description="comma-separated hidden widths of the fusion head; empty = a linear head")
    head_norm: Literal["none", "layer"] = Field(
        "none", description="layer: LayerNorm after each hidden layer of the head"
    )
    dropout: float = Field(0.0, ge=0, lt=1, description="in the hidden layers of the head")

    strategy: Annotated[str, AfterValidator(_one_of(STRATEGIES, extensions.STRATEGIES))] = Field(
        "newton",
        description="newton: Newton's steps where a linear head is fitted, fedavg elsewhere; packages can add others",
    )
    local_norm: bool = Field(default=False, description="FedBN: BatchNorm stays at the hospital")
    local_head: bool = Field(default=False, description="FedPer: the fusion head stays at the hospital")
    aggregation: Literal["patients", "modalities"] = Field(
        "patients", description="who counts in the average of a modality's encoder: all patients, or those who have it"
    )
    proximal_mu: float = Field(0.01, ge=0, description="fedprox: pull towards the round's first weights")
    server_learning_rate: float = Field(0.01, gt=0, description="fedadam, fedyogi: step size")
    server_beta_1: float = Field(0.9, ge=0, lt=1, description="fedadam, fedyogi: decay of the mean")
    server_beta_2: float = Field(0.99, ge=0, lt=1, description="fedadam, fedyogi: decay of the mean square")
    server_tau: float = Field(1e-3, gt=0, description="fedadam, fedyogi: added to the root of the mean square")
    rounds_unimodal: int = Field(
        5,
        ge=0,
        le=10_000,
        description="most rounds in which each modality's encoder trains on its own; 0 = no such phase",
    )
    rounds_fusion: int = Field(
        40,
        ge=0,
        le=10_000,
        description="most rounds in which the fusion trains on encoders that stay; 0 = no such phase",
    )
    rounds_joint: int = Field(
        0, ge=0, le=10_000, description="most rounds in which encoders and fusion train together; 0 = no such phase"
    )
    patience: int = Field(10, ge=1, description="rounds without a better validation log loss before a phase ends")
    local_epochs: int = Field(1, ge=1, le=100, description="passes over a hospital's patients in a round")
    batch_size: int = Field(32, ge=2, description="patients in a gradient step")
    learning_rate: float = Field(0.1, gt=0, description="of all but image encoders")
    image_learning_rate: float = Field(0.01, gt=0, description="of image encoders")
    momentum: float = Field(0.0, ge=0, lt=1, description="of the gradient steps")
    weight_decay: float = Field(1e-4, ge=0, description="of the weights, not the biases and norms, of all encoders")
    head_penalty: float = Field(
        70.0, ge=0, description="of the weights of all heads: half their squared norm, beside the summed log loss"
    )
    adapt_penalty: bool = Field(
        default=True,
        description="newton: a penalty for each modality, by evidence (with class-weight=none); else head-penalty",
    )
    max_gradient_norm: float = Field(5.0, gt=0, description="longer gradients are cut to it")
    class_weight: Literal["none", "balanced"] = Field(
        "none", description="balanced: deaths weigh in the loss as much as survivors; predictions are corrected for it"
    )

    explain: Literal["none", "modalities", "features"] = Field(
        "features", description="how far Shapley values are shared out"
    )
    explain_every: int = Field(0, ge=0, description="explain the model of every K-th round; 0 = the final model only")
    background_rows: int = Field(500, ge=2, le=10_000, description="synthetic reference patients")
    share_refits: int = Field(
        100, ge=0, le=MOST_REFITS, description="of the head on resampled patients, for ranges of shares; 0 = none"
    )
    strata: str = Field(
        "male,age_years:65:80", description="static columns to explain by; a numeric one with the edges of its bands"
    )

    min_sites: int = Field(3, ge=1, description="fewest hospitals in any aggregate, and the quorum of a round")
    expected_sites: int = Field(0, ge=0, description="hospitals to wait for at the start; 0 = min-sites")
    min_patients: int = Field(10, ge=1, description="fewest patients in any group of which something is told")
    min_events: int = Field(5, ge=1, description="fewest of them with the outcome")
    min_non_events: int = Field(5, ge=1, description="fewest of them without")
    accept_red: str = Field(
        "", description="comma-separated hospitals that take part although their data quality is red"
    )
    trust_coordinator: bool = Field(
        default=False,
        description="hospitals answer although the coordinator could compute the patients of small ones",
    )
    secure_sum: bool = Field(
        default=False, description="the coordinator learns hospitals' sums, and no hospital's own; in simulations"
    )
    colluding_hospitals: int = Field(
        1, ge=0, le=1000, description="of secure-sum: so many may collude with a coordinator that breaks the protocol"
    )
    wait_s: float = Field(120.0, gt=0, description="longest wait for hospitals to connect")
    deadline_s: float = Field(900.0, gt=0, description="longest wait for the answers to one question")

    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="of each hospital's training; auto = a GPU if there is one"
    )
    threads: int = Field(1, ge=1, le=256, description="CPU threads of each hospital's training")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.fold >= self.folds:
            raise ValueError(f"fold: expected 0..{self.folds - 1}, got {self.fold}")
        try:
            widths = self.head_widths
        except ValueError as error:
            raise ValueError(f"head: expected comma-separated widths such as 64,32, got {self.head!r}") from error
        if any(width < 1 for width in widths):
            raise ValueError(f"head: expected widths of 1 or more, got {self.head!r}")
        if not (self.series_embedding or self.series_summaries):
            raise ValueError("series: expected series-embedding of 1 or more, or series-summaries, got neither")
        if not (self.rounds_fusion or self.rounds_joint):
            raise ValueError("rounds: expected rounds-fusion or rounds-joint of 1 or more, else nothing fuses; got 0")
        if self.strategy == "scaffold":
            self._check_scaffold()
        return self

    def _check_scaffold(self) -> None:
        if self.momentum:
            raise ValueError(
                f"momentum: expected 0 with strategy=scaffold, whose control variates are mean gradients, "
                f"got {self.momentum}"
            )
        if self.aggregation != "patients":
            raise ValueError(
                f"aggregation: expected patients with strategy=scaffold, whose control variates are means over all "
                f"patients, got {self.aggregation}"
            )

    @property
    def head_widths(self) -> tuple[int, ...]:
        """Hidden widths of the fusion head."""
        return tuple(int(width) for width in self.head.split(",") if width.strip())

    def rounds(self, phase: Phase) -> int:
        """Most rounds of a phase; 0 = skipped."""
        return {"unimodal": self.rounds_unimodal, "fusion": self.rounds_fusion, "joint": self.rounds_joint}[phase]

    @property
    def phases(self) -> tuple[Phase, ...]:
        """The phases that have rounds."""
        return tuple(phase for phase in PHASES if self.rounds(phase))

    def chosen_modalities(self, schema: Schema) -> tuple[str, ...]:
        """The modalities that the model uses, in schema order.

        Raises:
            SettingsError: a name is not a modality of the study.
        """
        chosen = {name.strip() for name in self.modalities.split(",") if name.strip()} or set(schema.modalities)
        unknown = sorted(chosen - set(schema.modalities))
        if unknown:
            raise SettingsError(
                f"modalities: expected some of {', '.join(schema.modalities)}, got {', '.join(unknown)}."
            )
        return tuple(name for name in schema.modalities if name in chosen)

    def counted_modalities(self, schema: Schema) -> tuple[str, ...]:
        """The modalities whose training patients are counted in every round; none where all patients weigh alike."""
        return self.chosen_modalities(schema) if self.aggregation == "modalities" else ()

    def to_config(self) -> dict[str, Scalar]:
        """All settings by kebab-case key, as config.json and the messages carry them."""
        return self.model_dump(by_alias=True)


def parse_settings(values: Mapping[str, Scalar]) -> Settings:
    """Settings from kebab-case keys; what is not given keeps its default.

    Raises:
        SettingsError: an unknown key or a value out of range; the message lists every fault.
    """
    known = {_kebab(name) for name in Settings.model_fields}
    unknown = sorted(set(values) - known)
    faults = [f"{key}: unknown setting. {_suggest(key, known)}" for key in unknown]
    try:
        settings = Settings.model_validate({key: value for key, value in values.items() if key in known})
    except ValidationError as error:
        faults += [_describe_fault(fault) for fault in error.errors()]
    else:
        if not faults:
            return settings
    raise SettingsError("\n".join(faults))


def _suggest(key: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(_kebab(key.casefold()), known, n=1)
    return f"Did you mean {near[0]}?" if near else f"Known ones: {', '.join(sorted(known))}."


def _describe_fault(fault: ErrorDetails) -> str:
    message = fault["msg"].removeprefix("Value error, ")
    if not fault["loc"]:  # of several settings together; the message names them and what they are
        return f"{message}."
    return f"{'.'.join(str(part) for part in fault['loc'])}: {message}, got {fault['input']!r}."


def parse_assignments(assignments: Iterable[str]) -> dict[str, str]:
    """`KEY=VALUE` texts of a command line as a mapping; later ones win.

    Raises:
        SettingsError: a text without `=`, or without a key before it.
    """
    pairs = [assignment.partition("=") for assignment in assignments]
    for key, equals, value in pairs:
        if not equals:
            raise SettingsError(f"--set: expected KEY=VALUE, got {key!r}.")
        if not key.strip():
            raise SettingsError(f"--set: expected KEY=VALUE, got an empty key in {key + equals + value!r}.")
    return {key.strip(): value.strip() for key, _, value in pairs}
