"""One patient's prediction and what made it: for the clinician who treats them. It never leaves the hospital.

Modalities and features are given against two backgrounds: the common one, which all hospitals share and the global
explanation uses, and other patients of this hospital, whom the run's split puts in training, where there are any. What
is inside images and series needs real recordings to compare with, so it is given against the hospital's own only.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64

from client.patient.case import Case, open_case
from client.patient.cohort_risks import CohortRisks, parts_of_run
from client.patient.details import describe_images, describe_series
from client.patient.reference import describe_reference, feature_kind
from client.patient.run_model import ExplainedRunModel
from client.site import Site
from shared_model.evaluation.score_sums import sigmoid
from shared_model.modalities.feature import Feature, is_known
from shared_model.modalities.registry import open_modality
from shared_model.schema import STATIC
from shared_model.shapley.exact import ModalityValues, check_additivity, explain_modalities
from shared_model.shapley.feature_values import share_out
from shared_model.shapley.features import list_features
from shared_model.shapley.game import Background

MAX_ROUNDS = 32
SMALLEST_SUM = 1e-9  # log odds: a patient whose |phi| sum to less has rounding, and no effects to share out
NOTICE = "Research use only; not a medical device. This file describes a patient and stays at the hospital."


def explain_patient(
    run: ExplainedRunModel,
    site: Site,
    patient_id: str,
    *,
    evidence: Mapping[str, Any],
    cohort: CohortRisks,
    image_references: int,
    series_references: int,
) -> dict[str, Any]:
    """Everything about one patient, as JSON.

    Args:
        run: the finished run.
        site: the hospital.
        patient_id: of the patient.
        evidence: from `gather_evidence`.
        cohort: risks of the hospital's patients, to set the patient's against.
        image_references: images of other patients to compare each image with.
        series_references: likewise for series.

    Raises:
        SettingsError: the hospital has no such patient.
        StudyError: values do not add up to the model's predictions.
    """
    case = open_case(run, site, patient_id)
    views = {name: _describe_view(case, background) for name, background in _backgrounds(case).items()}
    return {
        "notice": NOTICE,
        "study": site.schema.study.title,
        "outcome": site.schema.study.outcome,
        "site": site.name,
        "run_id": run.run_id,
        "model_hash": run.model_hash,
        "evidence": dict(evidence),
        "patient_id": case.patient_id,
        "part_of_run": _part_of_run(case),
        "cohort": cohort.describe(case.row),
        "prediction": {"probability": float(sigmoid(np.array([case.logit]))[0]), "logit": case.logit},
        "missing": _describe_missing(views["common"]),
        "views": views,
        "images": describe_images(case, n=image_references),
        "series": describe_series(case, n=series_references),
    }


def effect_sizes(phi: Float64[np.ndarray, "patient modality"]) -> Float64[np.ndarray, "patient modality"]:
    """|phi|; zero for a patient for whom all of them together are no more than rounding."""
    size = np.abs(phi)
    return np.where(size.sum(axis=1, keepdims=True) < SMALLEST_SUM, 0.0, size)


def _backgrounds(case: Case) -> dict[str, Background]:
    return {"common": case.run.background} | ({} if case.local is None else {"local": case.local})


def _describe_view(case: Case, background: Background) -> dict[str, Any]:
    """Modalities and their features against one background."""
    model = case.run.model
    values = explain_modalities(case.game, case.rows, background, correction=case.correction)
    with torch.no_grad():
        base = float(model.fuse(background.rows.embeddings, background.rows.present).double().mean())
    error = check_additivity(values, logit=np.array([case.logit]), base_logit=base + case.correction)
    features = list_features(model, case.site.schema, case.run.preprocessing)
    names = model.modalities
    return {
        "background_id": background.background_id,
        "rows": len(background.rows),
        "base_probability": values.base_probability,
        "base_logit": values.base_logit,
        "additivity_error": float(error[0]),
        "modalities": [_describe_modality(case, background, values, i, features[name]) for i, name in enumerate(names)],
        "interactions": [
            {"modalities": [names[i], names[j]], "value": float(values.interactions[0, i, j])}
            for i in range(len(names))
            for j in range(i + 1, len(names))
        ],
    }


def _describe_modality(
    case: Case, background: Background, values: ModalityValues, i: int, features: tuple[Feature, ...]
) -> dict[str, Any]:
    name = case.run.model.modalities[i]
    found = share_out(
        features,
        case.modality_game(name, background),
        projection=case.game.projection(name),
        own=case.game.fused_input(case.rows, name)[0],
        reference=case.game.fused_input(background.rows, name),
        rng=case.rng(name),
        max_rounds=MAX_ROUNDS,
    )
    described = [
        {
            "name": feature.name,
            "unit": feature.unit,
            "kind": feature_kind(feature),
            "value": _value(case, name, feature),
            "phi": float(found.phi[j]),
            "se": float(found.se[j]),
            "reference": describe_reference(
                case.run.model, case.site.schema, modality=name, feature=feature, rows=background.rows
            ),
        }
        for j, feature in enumerate(features)
    ]
    size = effect_sizes(values.phi)[0]
    return {
        "name": name,
        "kind": open_modality(name, case.site.schema).page_kind,
        "present": case.has(name),
        "meaning": "effect of the modality" if case.has(name) else "effect of not having it",
        "phi": float(values.phi[0, i]),
        "share": float(size[i] / size.sum()) if size.any() else None,
        "phi_probability": float(values.phi_probability[0, i]),
        "se_background": float(values.se_background[0, i]),
        "alone": float(values.alone[0, i]),
        "left_out": float(values.left_out[0, i]),
        "presence": found.presence,
        "orders": found.orders,
        "features": described if case.has(name) else [],
    }


def _value(case: Case, name: str, feature: Feature) -> float | str | None:
    """The patient's value in the feature's unit, or level; None where it is missing or there is none."""
    embedding = case.rows.embeddings[name].float().cpu().numpy()
    if not feature.has_value or not is_known(feature, embedding)[0]:
        return None
    z = embedding[:, feature.columns[0]].astype(np.float64)
    return open_modality(name, case.site.schema).value_of(feature, case.site.patients, case.row, z)


def _describe_missing(view: dict[str, Any]) -> list[dict[str, Any]]:
    """What the patient lacks, and what lacking it does to the prediction."""
    missing = []
    for modality in view["modalities"]:
        if not modality["present"]:
            missing.append({"modality": modality["name"], "feature": None, "phi": modality["phi"]})
        if modality["name"] == STATIC:
            missing += [
                {"modality": STATIC, "feature": feature["name"], "phi": feature["phi"]}
                for feature in modality["features"]
                if feature["value"] is None
            ]
    return missing


def _part_of_run(case: Case) -> str | None:
    """Part of the run that this patient was in; None where it cannot be known."""
    parts = parts_of_run(case.run, case.site)
    return None if parts is None else parts[case.row]
