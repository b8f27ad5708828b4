"""Our engine in `hipfed-sim bench explanations`: beside the libraries' explainers, and at the sizes of its targets."""

import copy
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from shared_model.model.batch import Batch
from shared_model.schema import STATIC
from shared_model.shapley.exact import check_additivity, explain_modalities
from shared_model.shapley.feature_values import attribute_features, share_out
from shared_model.shapley.features import list_features
from shared_model.shapley.game import Background, FusionGame, ModalityGame, Rows, modality_game
from shared_model.shapley.owen import OwenValues, owen_values
from shared_model.shapley.pixels import pixel_values
from shared_model.shapley.segments import Recordings, SwitchedCells
from shared_model.training.epochs import Encoded, encode_all, predict_logits, seeded_rng
from simulation.bench.explainer_model import IMAGES, ITEMS, VITALS, Phi, Subject, draw_patients, modality_inputs, select

N_PATIENTS, N_BACKGROUND = 1000, 500
REPETITIONS = 21
N_SEGMENTS = 6
N_RECORDINGS = 50  # that a patient's vital signs are compared with
N_PIXEL_REFERENCES = 10
MOST_ROUNDS = 256
CPU = torch.device("cpu")


def modality_values(subject: Subject) -> Callable[[], Phi]:
    """Exact values from the same inputs as the libraries get, the additivity check included."""
    return lambda: _explain(subject, _encode(subject, subject.patients), _encode(subject, subject.background))


def cached_modality_values(subject: Subject) -> Callable[[], Phi]:
    """The same where patients and background are encoded already."""
    own, reference = _encode(subject, subject.patients), _encode(subject, subject.background)
    return lambda: _explain(subject, own, reference)


def feature_values(subject: Subject) -> Callable[[], Phi]:
    """Owen values of every feature, summed to modalities again."""

    def explain() -> Phi:
        own, reference = _encode(subject, subject.patients), _encode(subject, subject.background)
        tables = attribute_features(
            FusionGame(subject.model),
            _rows(own),
            Background(_rows(reference), ""),
            features=list_features(subject.model, subject.schema, subject.preprocessing),
            seeds=[str(i) for i in range(len(own.outcome))],
        )
        return np.stack([table.phi.sum(axis=1) + table.presence for table in tables.values()], axis=1)

    return explain


def thousand_patients(subject: Subject) -> Callable[[], dict[str, Any]]:
    """Values of the modalities of 1,000 patients against 500 rows, all embeddings at hand."""
    _, rows = _population(subject, N_PATIENTS + N_BACKGROUND)
    patients, background = rows.select(slice(N_PATIENTS)), rows.select(slice(N_PATIENTS, None))
    game = FusionGame(subject.model)

    def explain() -> dict[str, Any]:
        values = explain_modalities(game, patients, Background(background, ""))
        return {"patients": len(values), "background": len(background)}

    return explain


def explaining_over_predicting(subject: Subject) -> Callable[[], dict[str, Any]]:
    """What the values of the modalities of one patient cost on top of the prediction, as a multiple of it.

    Medians over repetitions. The prediction encodes the patient; its embeddings are what the explanation begins with,
    and the embeddings of the 500 background rows are at hand.
    """
    _, rows = _population(subject, N_BACKGROUND)
    game, background, patient = FusionGame(subject.model), Background(rows, ""), select(subject.patients, [0])

    def compare() -> dict[str, Any]:
        predicting, explaining = [], []
        for _ in range(REPETITIONS):
            start = time.perf_counter()
            encoded = _encode(subject, patient)
            predict_logits(subject.model, encoded, phase="joint", correction=0.0)
            middle = time.perf_counter()
            explain_modalities(game, _rows(encoded), background)
            predicting.append(middle - start)
            explaining.append(time.perf_counter() - middle)
        prediction_s, explanation_s = statistics.median(predicting), statistics.median(explaining)
        return {
            "background": len(rows),
            "repetitions": REPETITIONS,
            "prediction_s": prediction_s,
            "explanation_s": explanation_s,
            "ratio": explanation_s / prediction_s,
        }

    return compare


def patient_features(subject: Subject) -> Callable[[], dict[str, Any]]:
    """Owen values of one patient: static variables and medications against 500 rows, segments of vitals against 50.

    Returns:
        For each modality the rounds that were drawn and the largest standard error over the mean |value|.
    """
    batch, rows = _population(subject, N_BACKGROUND + 1)
    game, features = FusionGame(subject.model), list_features(subject.model, subject.schema, subject.preprocessing)
    patient, background = rows.select(slice(1)), rows.select(slice(1, None))

    def own_features(name: str) -> OwenValues:
        return share_out(
            features[name],
            _modality_game(game, name, patient, background),
            projection=game.projection(name),
            own=game.fused_input(patient, name)[0],
            reference=game.fused_input(background, name),
            rng=seeded_rng(subject.settings.seed, name),
            max_rounds=MOST_ROUNDS,
        )

    def segments() -> OwenValues:
        compared = _modality_game(game, VITALS, patient, background.select(slice(N_RECORDINGS)))
        recordings = Recordings.from_inputs(batch.inputs[VITALS][: N_RECORDINGS + 1])
        players = SwitchedCells(
            compared,
            copy.deepcopy(subject.model.encoders[VITALS]).double(),  # type: ignore[arg-type]
            start=recordings.select(torch.arange(1, N_RECORDINGS + 1)),
            end=recordings.select(torch.zeros(N_RECORDINGS, dtype=torch.int64)),
            n_segments=N_SEGMENTS,
        )
        rng = seeded_rng(subject.settings.seed, VITALS)
        return owen_values(compared, players, rng=rng, max_rounds=MOST_ROUNDS)

    def explain() -> dict[str, Any]:
        modalities = {}
        for name, work in ((STATIC, own_features), (ITEMS, own_features), (VITALS, lambda _: segments())):
            start = time.perf_counter()
            found = work(name)
            modalities[name] = {
                "features": len(found.phi),
                "seconds": time.perf_counter() - start,
                "rounds": found.orders // 2,
                "relative_se": float(found.se.max() / np.abs(found.phi).mean()),
            }
        return {"relative_se": max(part["relative_se"] for part in modalities.values()), "modalities": modalities}

    return explain


def xray_pixels(subject: Subject) -> Callable[[], dict[str, Any]]:
    """Pixels of one X-ray against up to 10 others."""
    name = IMAGES[0]
    references = select(subject.background, range(min(N_PIXEL_REFERENCES, len(subject.background.outcome))))
    own, reference = _encode(subject, select(subject.patients, [0])), _encode(subject, references)
    game = FusionGame(subject.model)
    compared = _modality_game(game, name, _rows(own), _rows(reference))

    def explain() -> dict[str, Any]:
        found = pixel_values(
            compared,
            subject.model.encoders[name],  # type: ignore[arg-type]
            image=subject.patients.inputs[name][0],
            references=references.inputs[name],
        )
        return {"references": len(references.outcome), "residual": found.residual}

    return explain


def _explain(subject: Subject, own: Encoded, reference: Encoded) -> Phi:
    values = explain_modalities(FusionGame(subject.model), _rows(own), Background(_rows(reference), ""))
    logit, base = (predict_logits(subject.model, rows, phase="joint", correction=0.0) for rows in (own, reference))
    check_additivity(values, logit=logit, base_logit=float(base.mean()))
    return values.phi


def _encode(subject: Subject, batch: Batch) -> Encoded:
    return encode_all(subject.model, lambda rows: select(batch, rows), np.arange(len(batch.outcome)), device=CPU)


def _rows(encoded: Encoded) -> Rows:
    return Rows(encoded.embeddings, encoded.present)


def _population(subject: Subject, n: int) -> tuple[Batch, Rows]:
    """More patients without images, and their embeddings; those of the images are drawn, as if encoded before."""
    rng = seeded_rng(subject.settings.seed, "population")
    arrays = draw_patients(subject.schema, n, rng=rng, with_images=False)
    batch = subject.preprocessing.batch(arrays, np.arange(n), schema=subject.schema, device=CPU)
    embeddings: dict[str, Tensor] = {}
    with torch.no_grad():
        for name, encoder in subject.model.encoders.items():
            if name in IMAGES:
                drawn = rng.normal(size=(n, subject.model.widths[name])).astype(np.float32)
                embeddings[name] = torch.from_numpy(drawn)
            else:
                embeddings[name] = encoder(*modality_inputs(batch, name))
    return batch, Rows(embeddings, batch.present)


def _modality_game(game: FusionGame, name: str, patient: Rows, background: Rows) -> ModalityGame:
    return modality_game(
        game,
        name,
        patient=patient,
        background=background,
        patient_parts=game.contributions(patient)[0],
        background_parts=game.contributions(background),
    )
