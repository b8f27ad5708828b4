"""One study run, step by step. Knows the protocol; knows nothing of Flower's app or of where hospitals are."""

import hashlib
import logging
import platform
from collections.abc import Collection, Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from server.idle_settings import refuse_unknown_names
from server.protocol.drift import describe_drift
from server.protocol.evaluation import evaluate_test
from server.protocol.explain import draw_background, explain_part
from server.protocol.explanations import describe_explanation
from server.protocol.hospitals import Hospitals
from server.protocol.image_components import fit_components
from server.protocol.link import Link
from server.protocol.plan import StudyPlan
from server.protocol.quality import (
    describe_quality,
    exclude_refused,
    judge_quality,
    require_hospitals,
    warn_of_quality,
)
from server.protocol.refits import refit_shares
from server.protocol.roster import Roster, shake_hands
from server.protocol.secure_sums import SecureSums
from server.protocol.statistics import gather_statistics
from server.protocol.training import train_phase
from server.protocol.whole_model import WholeModel
from server.run_folder.checkpoints import Progress, has_progress, load_progress, save_progress
from server.run_folder.folder import RunFolder
from server.run_folder.quality_findings import QUALITY_FILE
from server.run_folder.same_run import refuse_another_run, refuse_second_run, resumed_run_id
from server.settings_check import check_settings
from shared_model.config import Settings
from shared_model.evaluation.score_quantities import pack_scores
from shared_model.model.fusion import build_model, empty_model, load_image_weights, set_base_rate
from shared_model.preprocessing.standardisation import Preprocessing
from shared_model.protocol.messages import PROTOCOL_VERSION, StudyReference
from shared_model.protocol.used_extensions import used_extensions
from shared_model.schema import Schema
from shared_model.training.losses import balanced_event_weight
from shared_model.training.updates import hash_weights, to_arrays
from shared_model.version import own_version

log = logging.getLogger("hipfed.server")

_PACKAGES = ("flwr", "torch", "numpy", "pandas")


def run_study(
    link: Link,
    *,
    schema: Schema,
    settings: Settings,
    folder: RunFolder,
    resume: bool = False,
    enrolled: Mapping[int, str] | None = None,
) -> None:
    """Handshake, data quality, statistics, training, evaluation, explanation; what is kept goes to the run folder.

    Args:
        link: the way to the hospitals.
        schema: the study.
        settings: of the run.
        folder: where results go.
        resume: continue from the folder's checkpoint.
        enrolled: as `shake_hands` takes it.

    Raises:
        SettingsError: the settings do not fit the study.
        StudyError: no quorum, or nothing to learn from.
    """
    check_settings(schema, settings)
    study = _refer_to_study(schema, settings, folder, resume=resume)
    kept = load_progress(folder.checkpoints) if resume and has_progress(folder.checkpoints) else None
    everyone = Hospitals(link, study, schema, settings, names={})
    hospitals = choose_hospitals(everyone, folder=folder, training=kept is not None, enrolled=enrolled)
    # The weights of a checkpoint belong to its preprocessing, whoever takes part now.
    preprocessing = Preprocessing.from_json(kept.preprocessing) if kept else gather_statistics(hospitals)
    plan = StudyPlan(
        hospitals, preprocessing, event_weight=event_weight(settings, preprocessing), deployed=enrolled is not None
    )
    progress = kept or start_progress(plan)
    if not kept:
        fit_components(plan, progress)

    def keep(progress: Progress) -> None:
        folder.write_rounds(progress.rounds)
        save_progress(folder.checkpoints, progress)

    while progress.phase_index < len(settings.phases):
        train_phase(plan, progress, keep=keep)
    write_model(folder, plan, progress)
    final = WholeModel(plan, progress, phase=settings.phases[-1])
    test, scores = evaluate_test(final)
    folder.write_scores(pack_scores(scores))
    folder.write_json("metrics.json", {"test": test})
    if settings.explain != "none":
        explain_final(final, progress, folder, evaluated=list(test["sites"]))


def _refer_to_study(schema: Schema, settings: Settings, folder: RunFolder, *, resume: bool) -> StudyReference:
    """What every question repeats of a new run, or of the one that is resumed.

    Raises:
        SettingsError: the folder holds a run that is not resumed, or another one.
    """
    if resume:
        refuse_another_run(folder, settings, schema_sha256=schema.sha256)
    else:
        refuse_second_run(folder)
    return StudyReference(
        run_id=resumed_run_id(folder),
        protocol=PROTOCOL_VERSION,
        schema_sha256=schema.sha256,
        settings=settings.to_config(),
    )


def choose_hospitals(
    everyone: Hospitals, *, folder: RunFolder, training: bool, enrolled: Mapping[int, str] | None
) -> Hospitals:
    """Steps 1 and 2: who takes part; config.json and quality.json say why the others do not.

    Args:
        everyone: of whom no name is known yet.
        folder: where results go.
        training: the run is resumed and has a model: who was refused then stays refused, and is not judged again.
        enrolled: as `shake_hands` takes it.

    Raises:
        SettingsError: a setting of a new run names a hospital that there is not.
        StudyError: no quorum, or fewer than `min-sites` hospitals are left.
    """
    schema, settings = everyone.schema, everyone.settings
    agreed = shake_hands(everyone, enrolled=enrolled)
    if enrolled is None and not folder.read_json("config.json"):
        _refuse_unknown(settings, agreed)
    for name, reason in agreed.excluded.items():
        log.warning("excluded %s: %s", name, reason)
    folder.write_json("config.json", describe_run(everyone, agreed))
    if settings.secure_sum:
        everyone = replace(everyone, sums=SecureSums(agreed.signing_keys, settings.colluding_hospitals))
    quality = folder.read_json(QUALITY_FILE) if training else {}
    if not quality:
        judged = judge_quality(replace(everyone, names=agreed.names))
        quality = describe_quality(judged, schema=schema, settings=settings)
        folder.write_json(QUALITY_FILE, quality)
    left = exclude_refused(agreed, quality)
    for name in left.excluded.keys() - agreed.excluded.keys():
        log.warning("excluded %s: %s", name, left.excluded[name])
    folder.write_json("config.json", describe_run(everyone, left))
    warn_of_quality(left, quality, settings=settings)
    require_hospitals(agreed, left, settings=settings)
    log.info("hospitals taking part: %s", ", ".join(left.names.values()))
    return replace(everyone, names=left.names)


def _refuse_unknown(settings: Settings, agreed: Roster) -> None:
    """Also where nobody knows the hospitals beforehand, as under a plain `flwr run`, a misspelt name is refused.

    Not where a hospital has not told its name: it may be the one that is meant. (Who is enrolled, the launcher knows.)

    Raises:
        SettingsError: a setting names a hospital that there is not.
    """
    if not any(name.startswith("node ") for name in agreed.excluded):
        refuse_unknown_names(settings, {*agreed.names.values(), *agreed.excluded})


def explain_final(final: WholeModel, progress: Progress, folder: RunFolder, *, evaluated: Collection[str]) -> None:
    """Step 6: explain the final model on the test part; explanations.json and the background it rests on.

    Raises:
        StudyError: no quorum.
    """
    plan = final.plan
    log.info("explaining the final model")
    background = draw_background(final, progress.weights)
    folder.write_background(background.embeddings, background.present)
    explained = explain_part(final, background, part="test", features=plan.settings.explain == "features")
    ranges = refit_shares(final, progress.weights, background, answered=explained.attendance.answered)
    shape = empty_model(plan.schema, plan.settings, device=torch.device("meta"))
    content = describe_explanation(
        plan, shape, background, explained, ranges=ranges, model_hash=final.sha256, evaluated=evaluated
    )
    folder.write_json("explanations.json", content | {"part": "test", "drift": describe_drift(progress.rounds)})


def event_weight(settings: Settings, preprocessing: Preprocessing) -> float:
    """Weight of an event in the loss: 1, or from the counts of all hospitals together."""
    if settings.class_weight == "balanced":
        return balanced_event_weight(n=preprocessing.n, events=preprocessing.events)
    return 1.0


def start_progress(plan: StudyPlan) -> Progress:
    """Fresh weights from the seed, image encoders from a file where one is set."""
    model = build_model(plan.schema, plan.settings)
    if plan.settings.image_weights:
        load_image_weights(model, Path(plan.settings.image_weights))
    # A weighted loss is least at weighted odds, and the logit is corrected for that afterwards.
    n_events = plan.preprocessing.events * plan.event_weight
    set_base_rate(model, odds=n_events / (plan.preprocessing.n - plan.preprocessing.events))
    state = model.state_dict()
    weights = to_arrays(state, model.changing_names())
    return Progress(
        networks=to_arrays(state, model.fixed_networks()),
        weights=weights,
        best_weights=weights,
        preprocessing=plan.preprocessing.to_json(),
    )


def describe_run(hospitals: Hospitals, roster: Roster) -> dict[str, Any]:
    """What config.json says: everything that decides the run."""
    study, schema, settings = hospitals.study, hospitals.schema, hospitals.settings
    further = dict(package.rsplit(" ", 1) for package in used_extensions(schema, settings).values())
    return {
        "run_id": study.run_id,
        "settings": settings.to_config(),
        "phases": list(settings.phases),
        "schema": schema.model_dump(mode="json"),
        "schema_sha256": schema.sha256,
        "protocol": PROTOCOL_VERSION,
        "roster": [
            {"site": name, "version": roster.versions[name], "modalities": roster.modalities[name]}
            for name in roster.names.values()
        ],
        "excluded": roster.excluded,
        "python": platform.python_version(),
        "packages": {"hipfed": own_version(), **{name: version(name) for name in _PACKAGES}, **further},
    }


def write_model(folder: RunFolder, plan: StudyPlan, progress: Progress) -> None:
    """model.safetensors and model.json: enough to predict elsewhere."""
    weights = progress.whole()
    content = folder.write_weights(weights)
    preprocessing = plan.preprocessing.to_json()
    folder.write_json(
        "model.json",
        {
            "file_sha256": hashlib.sha256(content).hexdigest(),
            "weights_sha256": hash_weights(weights),
            "rounds": progress.best_round,
            "discarded_rounds": progress.discarded,
            "settings": plan.settings.to_config(),
            "schema": plan.schema.model_dump(mode="json"),
            "schema_sha256": plan.schema.sha256,
            "preprocessing": preprocessing,
            "preprocessing_sha256": hashlib.sha256(preprocessing.encode()).hexdigest(),
            "event_weight": plan.event_weight,
            "trained_phases": progress.trained_phases(),
            "kept_by_hospitals": sorted(
                empty_model(plan.schema, plan.settings, device=torch.device("meta")).home_parts()
            ),
        },
    )
