import pytest

from shared_model.config import parse_settings
from shared_model.errors import SettingsError
from shared_model.schema import Schema, parse_schema
from simulation.cohort.study import study_schema
from simulation.compare.arms import GROUPS, choose_arms, list_arms
from tests.server.small_cohort import SERIES_SCHEMA, STATIC_SCHEMA


@pytest.fixture
def static_only() -> Schema:
    return parse_schema(STATIC_SCHEMA, source="schema.toml")


@pytest.mark.parametrize("text", [STATIC_SCHEMA, STATIC_SCHEMA + SERIES_SCHEMA, None], ids=["static", "series", "all"])
def test_every_arm_is_a_valid_run_of_its_study_and_unlike_the_others(text: str | None) -> None:
    schema = study_schema(64) if text is None else parse_schema(text, source="schema.toml")
    arms = list_arms(schema, points=True)
    seen = []
    for arm in arms:
        settings = parse_settings({**arm.settings, "fold": "1"})
        assert settings.chosen_modalities(schema)
        assert arm.group in GROUPS
        seen.append((arm.kind, settings))
    assert len({arm.name for arm in arms}) == len(arms)
    assert all(one != other for i, one in enumerate(seen) for other in seen[:i])


def test_study_of_one_modality_has_no_arms_about_modalities(static_only: Schema) -> None:
    groups = {arm.group for arm in list_arms(static_only, points=False)}
    assert groups == {"training", "strategy", "reference"}


def test_occasions_are_what_is_known_before_and_recorded_during_the_operation() -> None:
    arms = {arm.name: dict(arm.settings) for arm in list_arms(study_schema(64), points=False)}
    assert arms["preoperative"] == {"modalities": "static,hip,chest"}
    assert arms["intraoperative"] == {"modalities": "vitals,medications"}


def test_occasions_can_be_named() -> None:
    arms = list_arms(study_schema(64), occasions={"films": ("chest", "hip")}, points=False)
    assert [(arm.name, dict(arm.settings)) for arm in arms if arm.group == "occasion"] == [
        ("films", {"modalities": "hip,chest"})
    ]


def test_arms_are_chosen_by_name_or_group_and_the_federated_one_comes_along(static_only: Schema) -> None:
    arms = list_arms(static_only, points=False)
    assert [arm.name for arm in choose_arms(arms, ["boosting"])] == ["federated", "boosting"]
    assert [arm.name for arm in choose_arms(arms, ["reference"])] == ["federated", "regression", "boosting"]
    assert choose_arms(arms, []) == arms


def test_arms_about_modalities_are_about_those_that_are_chosen() -> None:
    arms = list_arms(study_schema(64), assignments={"modalities": "static,vitals,hip"}, points=False)
    named = {arm.name: arm.settings["modalities"] for arm in arms if "modalities" in arm.settings}
    assert named == {
        "only-static": "static",
        "only-vitals": "vitals",
        "only-hip": "hip",
        "without-static": "vitals,hip",
        "without-vitals": "static,hip",
        "without-hip": "static,vitals",
    }


def test_arm_that_would_train_what_another_does_is_left_out(static_only: Schema) -> None:
    names = {arm.name for arm in list_arms(static_only, assignments={"strategy": "fedavg"}, points=False)}
    assert "federated" in names
    assert "fedavg" not in names


@pytest.mark.parametrize("shared", [{}, {"strategy": "fedavg"}, {"modalities": "static,vitals"}], ids=str)
def test_every_arm_is_compared_with_one_that_is_there(shared: dict[str, str]) -> None:
    arms = list_arms(study_schema(64), assignments=shared, points=True)
    assert {arm.against for arm in arms} <= {arm.name for arm in arms}


def test_what_an_arm_is_compared_with_comes_along() -> None:
    arms = list_arms(study_schema(64), points=False)
    assert [arm.name for arm in choose_arms(arms, ["fedbn"])] == ["federated", "images-trained", "fedbn"]


def test_unknown_arm_is_refused_with_a_near_one(static_only: Schema) -> None:
    with pytest.raises(SettingsError, match=r"got 'poled'\. Did you mean pooled\?"):
        choose_arms(list_arms(static_only, points=False), ["poled"])
