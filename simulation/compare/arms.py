"""The arms of a comparison: what is trained, on whom, and what it is compared with."""

import difflib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from server.idle_settings import idle_settings
from shared_model.config import parse_settings
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
        against: the arm that it is compared with: one that differs in a single thing.
    """

    name: str
    group: str
    description: str
    kind: Kind = "federated"
    settings: Mapping[str, str] = field(default_factory=dict)
    against: str = FEDERATED


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


def list_arms(
    schema: Schema,
    *,
    assignments: Mapping[str, str] | None = None,
    occasions: Mapping[str, Sequence[str]] | None = None,
    points: bool,
) -> list[Arm]:
    """All arms that make sense for a study. Of two that would train the same, the first one is kept.

    Args:
        schema: the study.
        assignments: settings that all arms share; arms about modalities are about those that they choose.
        occasions: groups of modalities by name; by default what is known before the operation (static variables and
            images) and what is recorded during it (series and events).
        points: whether there is a points score.
    """
    shared = dict(assignments or {})
    names = parse_settings(shared).chosen_modalities(schema)
    chosen = default_occasions(schema, names) if occasions is None else occasions
    found: dict[str, Arm] = {}
    for arm in _all_arms(schema, names, chosen, points=points):
        if set(arm.settings) & set(idle_settings(schema, parse_settings({**shared, **arm.settings}))):
            continue  # what it differs in would do nothing
        identity = f"{arm.kind} {sorted(parse_settings({**shared, **arm.settings}).to_config().items())}"
        found.setdefault(identity, arm)
    kept = {arm.name for arm in found.values()}
    return [arm if arm.against in kept else replace(arm, against=FEDERATED) for arm in found.values()]


def default_occasions(schema: Schema, names: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """What is known before the operation and what is recorded during it, of some modalities, where there are both."""
    before = tuple(name for name in names if name == STATIC or name in schema.images)
    during = tuple(name for name in names if name not in before)
    return {PREOPERATIVE: before, INTRAOPERATIVE: during} if before and during else {}


def without(names: Sequence[str], left_out: str) -> dict[str, str]:
    """Settings of a model of all of these modalities but one."""
    return {"modalities": ",".join(name for name in names if name != left_out)}


def _all_arms(
    schema: Schema, names: Sequence[str], occasions: Mapping[str, Sequence[str]], *, points: bool
) -> Iterator[Arm]:
    yield Arm(FEDERATED, "training", "hospitals together, early fusion")
    yield Arm(POOLED, "training", "the same model on all patients in one place", "pooled")
    yield Arm("local", "training", "each hospital alone", "local")
    yield Arm("held-out", "training", "each hospital predicted by a model of the others", "held-out")
    if len(names) > 1:
        yield from (Arm(f"only-{name}", "modality", f"{name} alone", settings={"modalities": name}) for name in names)
        for name in names:
            yield Arm(f"without-{name}", "without", f"all but {name}", settings=without(names, name))
        for label, chosen in occasions.items():
            kept = ",".join(name for name in names if name in set(chosen))
            yield Arm(label, "occasion", kept.replace(",", ", "), settings={"modalities": kept})
        late = {"fusion": "late"}
        yield Arm("late-fusion", "fusion", "weighted mean of unimodal logits", settings=late, against="fedavg")
    yield from _encoder_arms(schema, names)
    yield from _strategy_arms(schema, names)
    yield Arm("regression", "reference", "penalised logistic regression on pooled summaries", "regression")
    yield Arm("boosting", "reference", "gradient boosting on pooled summaries", "boosting")
    if points:
        yield Arm("points", "reference", "a points score", "points")


TRAINED = {"image-training": "trained", "rounds-joint": "5"}
PERCEPTRON = {"strategy": "fedavg", "head": "32", "rounds-joint": "5"}


def _encoder_arms(schema: Schema, names: Sequence[str]) -> Iterator[Arm]:
    if set(names) & set(schema.series):
        yield Arm("series-summaries", "encoder", "summaries of series, no LSTM", settings={"series-embedding": "0"})
        yield Arm("series-lstm", "encoder", "LSTM, no summaries of series", settings={"series-summaries": "false"})
    if set(names) & set(schema.images):
        yield Arm("images-trained", "encoder", "ResNets trained end to end", settings=TRAINED)
        plain = {**TRAINED, "image-skip": "false"}
        described = "trained networks without skip connections"
        yield Arm("images-plain", "encoder", described, settings=plain, against="images-trained")


def _strategy_arms(schema: Schema, names: Sequence[str]) -> Iterator[Arm]:
    one_penalty = {"adapt-penalty": "false"}
    yield Arm("one-penalty", "strategy", "Newton steps, one penalty for all modalities", settings=one_penalty)
    yield Arm("fedavg", "strategy", "FedAvg, linear head", settings={"strategy": "fedavg"})
    others = {"fedprox": "FedProx", "fedadam": "FedAdam", "fedyogi": "FedYogi", "scaffold": "SCAFFOLD"}
    for name, title in others.items():
        yield Arm(name, "strategy", f"{title}, linear head", settings={"strategy": name}, against="fedavg")
    perceptron = "FedAvg, perceptron of width 32 trained to the end"
    yield Arm("perceptron", "strategy", perceptron, settings=PERCEPTRON, against="fedavg")
    own_head = {"local-head": "true", "strategy": "fedavg"}
    yield Arm("local-head", "strategy", "FedPer: a head at each hospital", settings=own_head, against="fedavg")
    if set(names) & set(schema.images):
        by_modality = {**TRAINED, "aggregation": "modalities"}
        described = "trained encoders averaged by who has the modality"
        yield Arm("by-modality", "strategy", described, settings=by_modality, against="images-trained")
        fedbn = {**TRAINED, "local-norm": "true"}
        yield Arm("fedbn", "strategy", "FedBN: BatchNorm stays home", settings=fedbn, against="images-trained")
    elif len(names) > 1:
        by_modality = {"aggregation": "modalities"}
        yield Arm("by-modality", "strategy", "encoders averaged by who has the modality", settings=by_modality)


def choose_arms(arms: Sequence[Arm], wanted: Collection[str]) -> list[Arm]:
    """Those named, by name or group, in the order of `arms`, with the arms that they are compared with.

    Raises:
        SettingsError: neither an arm nor a group has the name.
    """
    known = {arm.name for arm in arms} | {arm.group for arm in arms}
    for name in wanted:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"Did you mean {near[0]}?" if near else f"Known ones: {', '.join(sorted(known))}."
            raise SettingsError(f"--arms: expected arms or groups of this study, got {name!r}. {hint}")
    chosen = [arm for arm in arms if not wanted or {arm.name, arm.group} & set(wanted)]
    needed = {FEDERATED, *(arm.name for arm in chosen), *(arm.against for arm in chosen)}
    return [arm for arm in arms if arm.name in needed]
