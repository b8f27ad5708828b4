"""The alternatives to a network: regression and boosting on pooled summaries, or a points score.

Both learn from the training and the validation part together, as a user would do: the regression's penalty is chosen
by cross-validation inside, the boosting's number of trees by early stopping. So they see a third more patients than the
networks, which need the validation part to choose the best round.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float64, Int64
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from client.site import Site
from shared_model.config import Settings
from shared_model.modalities.events import compress_events
from shared_model.model.encoders.series import summarise_channels
from shared_model.patient_arrays import PatientArrays
from shared_model.schema import Schema
from shared_model.splits import Split
from simulation.compare.arms import Kind
from simulation.compare.points import PointsScore, points_of
from simulation.pooled import PooledSite

PENALTIES = (0.001, 0.003, 0.01, 0.03, 0.1, 1.0)  # scikit-learn's C
Matrix = Float64[np.ndarray, "patient feature"]


def summary_features(arrays: PatientArrays, schema: Schema) -> Matrix:
    """Patients as a table: numbers (NaN = missing), levels as 0/1, six summaries of each channel, events.

    Of images only whether there is one; what is absent is NaN in series and events.
    """
    columns = [arrays.numbers.astype(np.float64)]
    for i, category in enumerate(schema.categories):
        levels = arrays.levels[:, i]
        columns.append((levels[:, None] == np.arange(len(category.levels))).astype(np.float64))
    for name in schema.series:
        values = torch.from_numpy(np.array(arrays.raw[name], dtype=np.float64))
        summaries = summarise_channels(values.nan_to_num(0.0), ~values.isnan()).numpy()
        columns.append(np.where(arrays.present[name][:, None], summaries, np.nan))
    for name, events in schema.events.items():
        compressed = compress_events(np.asarray(arrays.raw[name]), events).astype(np.float64)
        columns.append(np.where(arrays.present[name][:, None], compressed, np.nan))
    columns += [arrays.present[name][:, None].astype(np.float64) for name in schema.images]
    return np.concatenate(columns, axis=1)


def predict_reference(
    kind: Kind, sites: Sequence[Site], settings: Settings, schema: Schema, *, points: PointsScore | None
) -> pd.DataFrame:
    """Logits of every hospital's test patients by a model of all hospitals' other patients.

    Args:
        kind: regression, boosting or points.
        sites: all hospitals.
        settings: for the split.
        schema: the study.
        points: of the arm `points`.

    Returns:
        Columns site, patient_id, outcome, logit.
    """
    pooled = PooledSite("pooled", sites[0].folder, sites[0].cache_dir, hospitals=tuple(sites))
    arrays, split = pooled.patients, pooled.split(settings)
    learn = np.concatenate([split.train, split.val])
    if kind == "points":
        if points is None:
            raise ValueError("points: expected a score")
        features = points_of(points, arrays, schema)[:, None]
        logit = _logistic(features[learn], arrays.outcome[learn], features[split.test], seed=settings.seed)
    else:
        features = summary_features(arrays, schema)
        fit = _logistic if kind == "regression" else _boosting
        logit = fit(features[learn], arrays.outcome[learn], features[split.test], seed=settings.seed)
    return _by_site(sites, split, arrays, logit)


def _logistic(
    features: Matrix, outcome: Int64[np.ndarray, "patient"], test: Matrix, *, seed: int
) -> Float64[np.ndarray, "patient"]:
    """L2-penalised regression on standardised columns; missing values at the median, with a flag."""
    model = make_pipeline(
        SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True),
        StandardScaler(),
        LogisticRegression(max_iter=5000),
    )
    search = GridSearchCV(
        model,
        {"logisticregression__C": PENALTIES},
        scoring="neg_log_loss",
        cv=StratifiedKFold(5, shuffle=True, random_state=seed),
    )
    return np.asarray(search.fit(features, outcome).decision_function(test), dtype=np.float64)


def _boosting(
    features: Matrix, outcome: Int64[np.ndarray, "patient"], test: Matrix, *, seed: int
) -> Float64[np.ndarray, "patient"]:
    """Shallow trees with a small step, stopped early on a tenth of the patients."""
    model = HistGradientBoostingClassifier(
        learning_rate=0.05,
        max_depth=3,
        min_samples_leaf=10,
        l2_regularization=1.0,
        max_iter=300,
        early_stopping=True,
        validation_fraction=0.1,
        random_state=seed,
    )
    return np.asarray(model.fit(features, outcome).decision_function(test), dtype=np.float64)


def _by_site(
    sites: Sequence[Site], split: Split, arrays: PatientArrays, logit: Float64[np.ndarray, "patient"]
) -> pd.DataFrame:
    """Predictions of pooled test rows under the names that the patients have at home."""
    sizes = [len(site.patients) for site in sites]
    owner = np.repeat(np.arange(len(sites)), sizes)[split.test]
    start = np.concatenate([[0], np.cumsum(sizes)])
    ids = [sites[o].patients.patient_ids[row - start[o]] for o, row in zip(owner, split.test, strict=True)]
    return pd.DataFrame(
        {
            "site": [sites[o].name for o in owner],
            "patient_id": ids,
            "outcome": arrays.outcome[split.test],
            "logit": logit,
        }
    )
