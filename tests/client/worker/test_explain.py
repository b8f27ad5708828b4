import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from client.outbound import Gate
from client.site import Site
from client.worker import explain
from client.worker.explain import answer_explain
from client.worker.run_state import NeedsWeightsError
from shared_model.errors import ProtocolError, StudyError, SuppressedError
from shared_model.model.fusion import build_model
from shared_model.preprocessing.standardisation import Preprocessing
from shared_model.privacy.suppression import SmallCellRule
from shared_model.protocol.messages import (
    BackgroundRequest,
    ExplainReply,
    ExplainRequest,
    Request,
    SpreadRequest,
    SumsReply,
)
from shared_model.shapley.common_background import hash_background
from shared_model.training.updates import hash_weights
from tests.server.small_cohort import explain_request, open_gate, small_settings

SETTINGS = small_settings(head="4", strata="male")
MODALITIES = ("static", "vitals", "drugs")


def gate_of(site: Site, request: Request, *, min_patients: int = 10, min_events: int = 1) -> Gate:
    return open_gate(site, SETTINGS, request, SmallCellRule(min_patients, min_events, 5, 3))


def question(site: Site, *, part: Any = "test", features: bool = True) -> ExplainRequest:
    """About a model with weights everywhere, in float32, and reference patients of whom some lack the vitals."""
    request = explain_request(site, SETTINGS, part=part, features=features)
    rng = np.random.default_rng(3)
    for name, value in request.weights.items():
        value[:] = rng.normal(size=value.shape) / 3
        assert value.dtype == np.float32, name
    request.background_present["vitals"][:5] = False
    request.background["vitals"][:5] = 0.0
    return signed(request.model_copy(update={"weights_sha256": hash_weights(request.weights)}))


def signed(request: ExplainRequest) -> ExplainRequest:
    """With the id that its background has."""
    found = hash_background(request.weights_sha256, request.background, request.background_present)
    return request.model_copy(update={"background_id": found})


def spread_question(request: ExplainRequest, tau2: tuple[float, ...]) -> SpreadRequest:
    return SpreadRequest(**{k: v for k, v in dict(request).items() if k not in {"features", "release_row"}}, tau2=tau2)


def background_question(request: ExplainRequest, **changes: Any) -> BackgroundRequest:
    fields = {name: dict(request)[name] for name in BackgroundRequest.model_fields}
    return BackgroundRequest(**{**fields, "part": "train", **changes})


def answer(site: Site, request: ExplainRequest, **rule: int) -> ExplainReply:
    return answer_explain(site, SETTINGS, request, gate_of(site, request, **rule))


def answer_spread(site: Site, request: SpreadRequest, **rule: int) -> SumsReply:
    return explain.answer_spread(site, SETTINGS, request, gate_of(site, request, **rule))


def answer_background(site: Site, request: BackgroundRequest, **rule: int) -> SumsReply:
    return explain.answer_background(site, SETTINGS, request, gate_of(site, request, **rule))


# ------------------------------------------------------------------------------------------------------------- answers


def test_summed_values_are_the_summed_predictions_less_those_of_the_background(small_site: Site) -> None:
    request = question(small_site)

    arrays = answer(small_site, request).arrays

    model = build_model(small_site.schema, SETTINGS).eval()
    model.set_weights({name: torch.from_numpy(value) for name, value in request.weights.items()})
    model.eval()
    rows = small_site.split(SETTINGS).test
    batch = Preprocessing.from_json(request.preprocessing).batch(
        small_site.patients, rows, schema=small_site.schema, device=torch.device("cpu")
    )
    with torch.no_grad():
        logit = model(batch).double().numpy()
        base = float(
            model.fuse(
                {name: torch.from_numpy(value) for name, value in request.background.items()},
                {name: torch.from_numpy(value) for name, value in request.background_present.items()},
            ).mean()
        )
    assert arrays["phi"][0].sum() == pytest.approx((logit - base).sum(), abs=1e-4)
    assert arrays["n"].tolist()[0] == 12
    assert arrays["events"][0] == small_site.patients.outcome[rows].sum()
    assert 0 <= arrays["additivity-error"][0] / 12 < 1e-5


@pytest.mark.parametrize("name", MODALITIES)
def test_summed_features_and_presence_are_the_summed_values_of_the_modality(name: str, small_site: Site) -> None:
    arrays = answer(small_site, question(small_site)).arrays

    expected = arrays["phi"][0, MODALITIES.index(name)]
    assert arrays[f"{name}/phi"].sum() + arrays[f"{name}/presence"] == pytest.approx(expected, abs=1e-10)
    # some reference patients lack the vitals, and some patients the drugs
    assert (arrays[f"{name}/presence"] != 0) == (name != "static")


def test_groups_of_a_stratum_add_up_to_everybody(small_site: Site) -> None:
    arrays = answer(small_site, question(small_site)).arrays

    for name in ("n", "events", "phi", "abs", "outer", "interactions"):
        np.testing.assert_allclose(arrays[name][1] + arrays[name][2], arrays[name][0], atol=1e-9)  # by outcome
        np.testing.assert_allclose(arrays[name][3:6].sum(axis=0), arrays[name][0], atol=1e-9)  # male: 0, 1, missing


def test_only_modalities_are_told_when_features_are_not_asked_for(small_site: Site) -> None:
    arrays = answer(small_site, question(small_site, features=False)).arrays

    assert not [name for name in arrays if name.startswith(MODALITIES)]
    assert {"phi", "abs", "between/w"} <= set(arrays)


def test_same_question_twice_gives_the_same_numbers(small_site: Site) -> None:
    first, again = (answer(small_site, question(small_site)) for _ in range(2))

    assert first.row == again.row
    for name, value in first.arrays.items():
        np.testing.assert_array_equal(value, again.arrays[name])


def test_weight_of_an_event_moves_probabilities_and_not_values_of_the_logit(small_site: Site) -> None:
    request = question(small_site, features=False)

    plain, weighted = (
        answer(small_site, request.model_copy(update={"event_weight": weight})).arrays for weight in (1.0, 20.0)
    )

    np.testing.assert_allclose(weighted["phi"], plain["phi"], atol=1e-12)
    assert np.abs(weighted["abs-probability"] - plain["abs-probability"]).max() > 1e-4


def test_background_sums_are_of_the_training_part(small_site: Site) -> None:
    request = background_question(question(small_site), part="train")

    arrays = answer_background(small_site, request).arrays

    assert arrays["patterns"].sum() == 36
    assert arrays["levels/asa"].sum() == 36
    assert (arrays["static/histogram"].sum(axis=1) == 36).all()


# -------------------------------------------------------------------------------------------------------- what is shown


def test_own_row_tells_the_shares_that_its_sums_hold(small_site: Site) -> None:
    reply = answer(small_site, question(small_site))

    row = json.loads(reply.row)
    size = reply.arrays["abs"][0]
    assert (row["n"], row["events"]) == (12, int(reply.arrays["events"][0]))
    for i, name in enumerate(MODALITIES):
        entry = row["modalities"][name]
        assert entry["share"] == pytest.approx(size[i] / size.sum())
        assert entry["share_ci"][0] <= entry["share"] <= entry["share_ci"][1]
        assert entry["mean_abs"] == pytest.approx(size[i] / 12)
    np.testing.assert_allclose(reply.arrays["between/wy"] / reply.arrays["between/w"], size / size.sum(), rtol=1e-12)


def test_own_row_is_hidden_when_the_part_has_too_few_deaths(small_site: Site) -> None:
    assert json.loads(answer(small_site, question(small_site), min_events=5).row) == {"suppressed": True}


def test_own_row_is_hidden_when_it_was_not_asked_for(small_site: Site) -> None:
    request = question(small_site).model_copy(update={"release_row": False})
    assert json.loads(answer(small_site, request).row) == {"suppressed": True}


def test_hospital_with_too_few_patients_tells_nothing(small_site: Site) -> None:
    request = question(small_site)

    with pytest.raises(SuppressedError):
        answer(small_site, request, min_patients=61)
    with pytest.raises(SuppressedError):
        answer_spread(small_site, spread_question(request, (0.0,) * 3), min_patients=61)
    with pytest.raises(SuppressedError):
        answer_background(small_site, background_question(request), min_patients=37)
    assert not (small_site.state_dir / "audit.jsonl").exists()


def test_background_holds_no_row_of_a_modality_that_few_have(small_site: Site) -> None:
    vitals = pd.read_csv(small_site.folder / "vitals.csv")
    few = [small_site.patients.patient_ids[row] for row in small_site.split(SETTINGS).train[:9]]
    vitals[vitals["patient_id"].isin(few)].to_csv(small_site.folder / "vitals.csv", index=False)
    changed = Site("east", small_site.folder, small_site.cache_dir)
    sums = answer_background(changed, background_question(question(changed))).arrays
    assert changed.patients.present["vitals"].sum() == 9
    assert not np.any(sums["vitals/histogram"])


def test_every_release_leaves_a_line_in_the_audit_log(small_site: Site) -> None:
    answer(small_site, question(small_site))

    lines = [json.loads(line) for line in (small_site.state_dir / "audit.jsonl").read_text().splitlines()]
    assert [line["kind"] for line in lines] == ["query.explain", "query.explain, own row"]


# ------------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize("change", ["row", "present", "id", "model"])
def test_background_that_is_not_the_one_named_is_refused(change: str, small_site: Site) -> None:
    request = question(small_site)
    if change == "row":
        request.background["static"][3, 0] += np.float32(1e-3)
    elif change == "present":
        request.background_present["static"][3] = False
    elif change == "id":
        request = request.model_copy(update={"background_id": "0" * 64})
    else:  # drawn for a model with other weights
        other = hash_background("f" * 64, request.background, request.background_present)
        request = request.model_copy(update={"background_id": other})

    with pytest.raises(ProtocolError, match="background: expected the id"):
        answer(small_site, request)
    with pytest.raises(ProtocolError, match="background: expected the id"):
        answer_spread(small_site, spread_question(request, (0.0,) * 3))


@pytest.mark.parametrize("change", ["width", "missing", "unknown", "rows"])
def test_background_that_does_not_fit_the_model_is_refused(change: str, small_site: Site) -> None:
    request = question(small_site)
    if change == "width":
        request.background["drugs"] = request.background["drugs"][:, :1]
    elif change == "missing":
        del request.background["drugs"], request.background_present["drugs"]
    elif change == "unknown":
        request.background["hip"] = request.background["drugs"]
        request.background_present["hip"] = request.background_present["drugs"]
    else:
        request.background["drugs"] = request.background["drugs"][:7]

    with pytest.raises(ProtocolError, match="background: expected one embedding a modality"):
        answer(small_site, signed(request))


def test_background_without_rows_is_refused(small_site: Site) -> None:
    request = question(small_site)
    for arrays in (request.background, request.background_present):
        arrays.update({name: value[:0] for name, value in arrays.items()})

    with pytest.raises(StudyError, match="expected patients and background rows"):
        answer(small_site, signed(request))


def test_weights_with_another_hash_are_refused(small_site: Site) -> None:
    request = question(small_site)
    request.weights["head.linear.bias"][0] += 1

    with pytest.raises(ProtocolError, match="weights: expected the hash"):
        answer(small_site, request)


@pytest.mark.parametrize("n", [0, 2, 4])
def test_spread_with_a_wrong_number_of_variances_is_refused(n: int, small_site: Site) -> None:
    request = spread_question(question(small_site), (0.01,) * n)

    with pytest.raises(ProtocolError, match=rf"tau2: expected one number a modality \(3\), got {n}"):
        answer_spread(small_site, request)


def test_values_that_do_not_add_up_to_the_predictions_do_not_leave(
    small_site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared_model.shapley.checked.predict_logits", lambda *_, **__: np.zeros(12))

    with pytest.raises(StudyError, match="Do not use these explanations"):
        answer(small_site, question(small_site))
    assert not (small_site.state_dir / "audit.jsonl").exists()


# ---------------------------------------------------------------------------------------------------- without weights


def test_question_without_weights_is_answered_when_they_are_held(small_site: Site) -> None:
    request = question(small_site)
    full = answer(small_site, request)

    light = answer(small_site, request.model_copy(update={"weights": {}}))
    spread = answer_spread(small_site, spread_question(request.model_copy(update={"weights": {}}), (0.0,) * 3))

    assert light.row == full.row
    for name, value in full.arrays.items():
        np.testing.assert_array_equal(light.arrays[name], value)
    for name, value in spread.arrays.items():
        np.testing.assert_array_equal(value, full.arrays[name])  # explain's part is that at no variance


def test_question_without_weights_is_answered_by_a_call_for_them_when_they_are_not_held(small_site: Site) -> None:
    request = question(small_site).model_copy(update={"weights": {}})

    with pytest.raises(NeedsWeightsError):
        answer(small_site, request)
    with pytest.raises(NeedsWeightsError):
        answer_spread(small_site, spread_question(request, (0.0,) * 3))
    with pytest.raises(NeedsWeightsError):
        answer_background(small_site, background_question(request))


def test_spread_weighs_the_hospital_by_its_own_variance_and_that_between_hospitals(small_site: Site) -> None:
    request = question(small_site)
    at_zero = answer(small_site, request).arrays

    arrays = answer_spread(small_site, spread_question(request, (0.0, 0.01, 4.0))).arrays

    own = 1 / at_zero["between/w"]
    np.testing.assert_allclose(arrays["between/w"], 1 / (own + np.array([0.0, 0.01, 4.0])), rtol=1e-12)
    assert arrays["between/k"].tolist() == [1, 1, 1]


def test_spread_uses_the_sums_of_the_explanation_and_makes_them_anew_where_it_has_none(
    small_site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = question(small_site)
    spread = spread_question(request, (0.0, 0.01, 4.0))
    made_anew = answer_spread(small_site, spread).arrays
    answer(small_site, request)
    monkeypatch.delattr("client.worker.explain.explain_checked")

    kept = answer_spread(small_site, spread).arrays

    for name, value in made_anew.items():
        np.testing.assert_array_equal(kept[name], value)
    other = spread.model_copy(update={"weights_round": 1})
    with pytest.raises(NameError):  # the values of another model would have to be made
        answer_spread(small_site, other)
