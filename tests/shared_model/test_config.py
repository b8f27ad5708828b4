import json
import tomllib
from pathlib import Path

import pytest

from shared_model.config import Settings, parse_assignments, parse_settings
from shared_model.errors import SettingsError
from shared_model.schema import Schema
from tests.shared_model.settings_table import GUIDE, with_table

PYPROJECT = Path(__file__).resolve().parents[2] / "pyproject.toml"
PLACES = {"cohort", "schema", "out", "resume", "enrolled"}


def test_settings_are_refused_when_a_key_is_unknown() -> None:
    with pytest.raises(SettingsError, match=r"^colour: unknown setting\. Known ones: .*learning-rate"):
        parse_settings({"colour": 0.1})


@pytest.mark.parametrize(
    ("key", "near"),
    [("learning-speed", "learning-rate"), ("learning_rate", "learning-rate"), ("SEED", "seed"), ("wait", "wait-s")],
)
def test_unknown_setting_is_answered_with_the_nearest_one(key: str, near: str) -> None:
    with pytest.raises(SettingsError, match=rf"^{key}: unknown setting\. Did you mean {near}\?$"):
        parse_settings({key: 0.1})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seed", -1),
        ("seed", 2**31),
        ("seed", "1.5"),
        ("folds", 2),
        ("folds", 21),
        ("dropout", 1.0),
        ("learning-rate", 0.0),
        ("learning-rate", "nan"),
        ("learning-rate", "inf"),
        ("server-beta-1", 1),
        ("batch-size", 1),
        ("local-epochs", 0),
        ("patience", 0),
        ("min-sites", 0),
        ("fusion", "middle"),
        ("strategy", "fedsgd"),
        ("local-norm", "maybe"),
        ("device", "tpu"),
        ("threads", 0),
    ],
)
def test_settings_are_refused_when_a_value_is_out_of_range(key: str, value: str | float) -> None:
    with pytest.raises(SettingsError, match=rf"^{key}: .*, got {value!r}\.$"):
        parse_settings({key: value})


@pytest.mark.parametrize("fold", [5, 6])
def test_settings_are_refused_when_the_fold_is_not_one_of_the_folds(fold: int) -> None:
    with pytest.raises(SettingsError, match=rf"^fold: expected 0\.\.4, got {fold}\.$"):
        parse_settings({"fold": fold, "folds": 5})


@pytest.mark.parametrize(("key", "value"), [("momentum", 0.9), ("aggregation", "modalities")])
def test_settings_are_refused_that_scaffold_has_no_algebra_for(key: str, value: str | float) -> None:
    with pytest.raises(SettingsError, match=f"^{key}: expected .* with strategy=scaffold, .* got {value}"):
        parse_settings({"strategy": "scaffold", key: value})
    parse_settings({"strategy": "fedavg", key: value})


@pytest.mark.parametrize("head", ["64;32", "big", "32.0"])
def test_settings_are_refused_when_the_head_is_not_a_list_of_widths(head: str) -> None:
    with pytest.raises(SettingsError, match=f"head: expected comma-separated widths such as 64,32, got '{head}'"):
        parse_settings({"head": head})


@pytest.mark.parametrize("head", ["0", "32,-1"])
def test_settings_are_refused_when_a_width_of_the_head_is_not_positive(head: str) -> None:
    with pytest.raises(SettingsError, match=f"head: expected widths of 1 or more, got '{head}'"):
        parse_settings({"head": head})


def test_settings_error_lists_every_fault() -> None:
    with pytest.raises(SettingsError) as raised:
        parse_settings({"speed": 1, "seed": -1, "dropout": 2})
    assert [fault.split(":")[0] for fault in str(raised.value).splitlines()] == ["speed", "seed", "dropout"]


def test_settings_read_numbers_and_flags_from_text() -> None:
    settings = parse_settings({"seed": "7", "learning-rate": "1e-3", "local-norm": "true"})
    assert (settings.seed, settings.learning_rate, settings.local_norm) == (7, 0.001, True)


@pytest.mark.parametrize(("head", "widths"), [("", ()), ("32", (32,)), (" 64 , 32 ", (64, 32))])
def test_head_is_read_as_widths(head: str, widths: tuple[int, ...]) -> None:
    assert parse_settings({"head": head}).head_widths == widths


def test_settings_come_back_from_their_config_through_json() -> None:
    settings = parse_settings({"seed": 3, "fold": 2, "learning-rate": 0.1 + 0.2, "local-norm": True, "head": ""})
    assert parse_settings(json.loads(json.dumps(settings.to_config()))) == settings


def test_config_keys_are_kebab_case() -> None:
    config = parse_settings({}).to_config()
    assert {"learning-rate", "server-beta-1", "min-non-events"} <= set(config)
    assert not [key for key in config if "_" in key or key != key.lower()]


def test_flower_config_is_the_defaults_and_the_places_of_a_run() -> None:
    with PYPROJECT.open("rb") as file:
        config = tomllib.load(file)["tool"]["flwr"]["app"]["config"]
    defaults = parse_settings({}).to_config()
    assert set(config) - set(defaults) == PLACES
    # The type counts too: Flower refuses an override of another type than the default's.
    assert {key: (type(value), value) for key, value in config.items() if key not in PLACES} == {
        key: (type(value), value) for key, value in defaults.items()
    }


def test_table_of_settings_in_the_guide_is_made_from_them() -> None:
    text = GUIDE.read_text(encoding="utf-8")

    assert text == with_table(text), "run python -m tests.shared_model.settings_table"
    assert all(field.description for field in Settings.model_fields.values())


def test_assignments_are_split_at_the_first_equals_sign_and_the_last_one_wins() -> None:
    assert parse_assignments(["seed=1", " head = 64,32 ", "image-weights=a=b.pth", "seed=2"]) == {
        "seed": "2",
        "head": "64,32",
        "image-weights": "a=b.pth",
    }


def test_assignment_is_refused_when_it_has_no_equals_sign() -> None:
    with pytest.raises(SettingsError, match="--set: expected KEY=VALUE, got 'seed'"):
        parse_assignments(["fold=1", "seed"])


@pytest.mark.parametrize("text", ["=3", " =3", "="])
def test_assignment_is_refused_when_its_key_is_empty(text: str) -> None:
    with pytest.raises(SettingsError, match=f"--set: expected KEY=VALUE, got an empty key in '{text}'"):
        parse_assignments([text])


def test_chosen_modalities_keep_the_order_of_the_study(small_study: Schema) -> None:
    assert parse_settings({"modalities": "hip, static"}).chosen_modalities(small_study) == ("static", "hip")


def test_chosen_modalities_are_all_when_none_is_named(small_study: Schema) -> None:
    assert parse_settings({}).chosen_modalities(small_study) == ("static", "vitals", "drugs", "hip")


def test_chosen_modalities_are_refused_when_the_study_has_no_such(small_study: Schema) -> None:
    with pytest.raises(SettingsError, match="expected some of static, vitals, drugs, hip, got chest, ct"):
        parse_settings({"modalities": "ct,hip,chest"}).chosen_modalities(small_study)


def test_phases_are_those_with_rounds_in_their_order() -> None:
    assert parse_settings({"rounds-unimodal": 1, "rounds-fusion": 2, "rounds-joint": 3}).phases == (
        "unimodal",
        "fusion",
        "joint",
    )
    settings = parse_settings({"rounds-unimodal": 0, "rounds-fusion": 7, "rounds-joint": 0})
    assert settings.phases == ("fusion",)
    assert [settings.rounds(phase) for phase in ("unimodal", "fusion", "joint")] == [0, 7, 0]


def test_settings_are_refused_when_no_phase_fuses() -> None:
    with pytest.raises(SettingsError, match="expected rounds-fusion or rounds-joint of 1 or more"):
        parse_settings({"rounds-unimodal": 5, "rounds-fusion": 0, "rounds-joint": 0})
