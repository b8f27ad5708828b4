"""The arms of a comparison: what is trained, on whom, and what it is compared with."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from shared_model.errors import SettingsError
from shared_model.schema import STATIC, Schema

Kind = Literal["federated", "pooled", "local", "held-out", "regression", "boosting", "points"]
FEDERATED, POOLED = "federated", "pooled"
PREOPERATIVE, INTRAOPERATIVE = "preoperative", "intraoperative"


@dataclass(frozen=True)
class Arm:
    """One way to predict.

    Attributes:
        name: of the arm, also of its folder.
        group: what question it belongs to.
        description: one line for the tables.
        kind: `federated`: hospitals together; `pooled`: all patients in one place; `local`: each hospital alone;
            `held-out`: each hospital predicted by a model of the others; the others are no networks.
        settings: that differ from those of the comparison, by kebab-case key.
    """

    name: str
    group: str
    description: str
    kind: Kind = "federated"
    settings: Mapping[str, str] = field(default_factory=dict)


GROUPS = {
    "training": "who trains with whom",
    "modality": "one modality alone",
    "without": "all modalities but one",
    "occasion": "before and during the operation",
    "fusion": "how modalities come together",
    "encoder": "how a modality is encoded",
    "strategy": "how hospitals' updates come together",
    "reference": "what a user would pick instead",
}


def list_arms(schema: Schema, *, occasions: Mapping[str, Sequence[str]] | None = None, points: bool) -> list[Arm]:
    """All arms that make sense for a study; two of the same settings appear once.

    Args:
        schema: the study.
        occasions: groups of modalities by name; by default what is known before the operation (static variables and
            images) and what is recorded during it (series and events).
        points: whether there is a points score.
    """
    found: list[Arm] = []
    for arm in _all_arms(schema, occasions if occasions is not None else default_occasions(schema), points=points):
        if all((arm.kind, dict(arm.settings)) != (other.kind, dict(other.settings)) for other in found):
            found.append(arm)
    return found


def default_occasions(schema: Schema) -> dict[str, tuple[str, ...]]:
    """What is known before the operation and what is recorded during it, where a study has both."""
    during = (*schema.series, *schema.events)
    return {PREOPERATIVE: (STATIC, *schema.images), INTRAOPERATIVE: during} if during else {}


def _all_arms(schema: Schema, occasions: Mapping[str, Sequence[str]], *, points: bool) -> Iterator[Arm]:
    names = schema.modalities
    yield Arm(FEDERATED, "training", "hospitals together, early fusion")
    yield Arm(POOLED, "training", "the same model on all patients in one place", "pooled")
    yield Arm("local", "training", "each hospital alone", "local")
    yield Arm("held-out", "training", "each hospital predicted by a model of the others", "held-out")
    if len(names) > 1:
        yield from (Arm(f"only-{name}", "modality", f"{name} alone", settings={"modalities": name}) for name in names)
        for name in names:
            rest = ",".join(other for other in names if other != name)
            yield Arm(f"without-{name}", "without", f"all but {name}", settings={"modalities": rest})
        for label, chosen in occasions.items():
            kept = ",".join(name for name in names if name in set(chosen))
            yield Arm(label, "occasion", kept.replace(",", ", "), settings={"modalities": kept})
        yield Arm("late-fusion", "fusion", "weighted mean of unimodal logits", settings={"fusion": "late"})
    yield from _encoder_arms(schema)
    yield from _strategy_arms(schema)
    yield Arm("regression", "reference", "penalised logistic regression on pooled summaries", "regression")
    yield Arm("boosting", "reference", "gradient boosting on pooled summaries", "boosting")
    if points:
        yield Arm("points", "reference", "a points score", "points")


TRAINED = {"image-training": "trained", "rounds-joint": "5"}
PERCEPTRON = {"strategy": "fedavg", "head": "32", "rounds-joint": "5"}


def _encoder_arms(schema: Schema) -> Iterator[Arm]:
    if schema.series:
        yield Arm("series-summaries", "encoder", "summaries of series, no LSTM", settings={"series-embedding": "0"})
        yield Arm("series-lstm", "encoder", "LSTM, no summaries of series", settings={"series-summaries": "false"})
    if schema.images:
        yield Arm("images-trained", "encoder", "ResNets trained end to end", settings=TRAINED)
        plain = {**TRAINED, "image-skip": "false"}
        yield Arm("images-plain", "encoder", "trained networks without skip connections", settings=plain)


def _strategy_arms(schema: Schema) -> Iterator[Arm]:
    one_penalty = {"adapt-penalty": "false"}
    yield Arm("one-penalty", "strategy", "Newton steps, one penalty for all modalities", settings=one_penalty)
    for name, title in (("fedavg", "FedAvg"), ("fedprox", "FedProx"), ("fedadam", "FedAdam"), ("fedyogi", "FedYogi")):
        yield Arm(name, "strategy", f"{title}, linear head", settings={"strategy": name})
    yield Arm("scaffold", "strategy", "SCAFFOLD, linear head", settings={"strategy": "scaffold"})
    yield Arm("perceptron", "strategy", "FedAvg, perceptron of width 32 trained to the end", settings=PERCEPTRON)
    yield Arm("local-head", "strategy", "FedPer: a head of its own at each hospital", settings={"local-head": "true"})
    trained = TRAINED if schema.images else {}
    by_modality = {**trained, "aggregation": "modalities"}
    yield Arm("by-modality", "strategy", "trained encoders averaged by who has the modality", settings=by_modality)
    if schema.images:
        yield Arm("fedbn", "strategy", "FedBN: BatchNorm stays home", settings={**TRAINED, "local-norm": "true"})


def choose_arms(arms: Sequence[Arm], wanted: Collection[str]) -> list[Arm]:
    """Those named, by name or group, in the order of `arms`; the federated arm always comes along.

    Raises:
        SettingsError: neither an arm nor a group has the name.
    """
    known = {arm.name for arm in arms} | {arm.group for arm in arms}
    for name in wanted:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"Did you mean {near[0]}?" if near else f"Known ones: {', '.join(sorted(known))}."
            raise SettingsError(f"--arms: expected arms or groups of this study, got {name!r}. {hint}")
    return [arm for arm in arms if not wanted or arm.name == FEDERATED or {arm.name, arm.group} & set(wanted)]
