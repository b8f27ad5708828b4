"""Settings that would do nothing are refused by name, those that act are not, and defaults never are."""

import pytest

from server.idle_settings import idle_settings, refuse_idle_settings, refuse_unknown_names
from shared_model.config import Scalar, parse_settings
from shared_model.errors import SettingsError
from shared_model.schema import Schema, parse_schema
from tests.server.small_cohort import EVENTS_SCHEMA, IMAGE_SCHEMA, SERIES_SCHEMA, STATIC_SCHEMA

NUMBERS = STATIC_SCHEMA.partition('[[static]]\nname = "asa"')[0]
FILMS = IMAGE_SCHEMA.format(name="hip")
FEDAVG: dict[str, Scalar] = {"strategy": "fedavg"}
LATE: dict[str, Scalar] = {"fusion": "late"}
ONE_ROUND: dict[str, Scalar] = {"rounds-unimodal": 0, "rounds-fusion": 1}


def _schema(*parts: str) -> Schema:
    return parse_schema("".join(parts), source="schema.toml")


NOTHING_LEARNS = _schema(NUMBERS, EVENTS_SCHEMA)
CATEGORIES = _schema(STATIC_SCHEMA)
VITALS = _schema(NUMBERS, SERIES_SCHEMA)
WITH_FILMS = _schema(NUMBERS, FILMS)


@pytest.mark.parametrize("schema", [NOTHING_LEARNS, CATEGORIES, VITALS, WITH_FILMS], ids=range(4))
@pytest.mark.parametrize("strategy", ["newton", "fedavg", "fedprox", "fedadam", "fedyogi", "scaffold"])
def test_defaults_are_never_refused(schema: Schema, strategy: str) -> None:
    refuse_idle_settings(schema, parse_settings({"strategy": strategy}))
    refuse_idle_settings(schema, parse_settings({"strategy": strategy, "explain": "none"}))
    refuse_idle_settings(schema, parse_settings({"strategy": strategy, **LATE}))


STEPS = [
    ("local-epochs", 3),
    ("batch-size", 8),
    ("learning-rate", 0.5),
    ("momentum", 0.9),
    ("max-gradient-norm", 1.0),
    ("aggregation", "modalities"),
]


@pytest.mark.parametrize(("key", "value"), STEPS)
def test_local_steps_need_a_phase_that_has_them(key: str, value: Scalar) -> None:
    only_newton = {"rounds-unimodal": 0, key: value}
    found = idle_settings(CATEGORIES, parse_settings(only_newton))
    assert set(found) == {key}
    assert "strategy=newton" in found[key]
    assert f"{key}={value} would do nothing. Set strategy=fedavg" in found[key]
    assert set(idle_settings(NOTHING_LEARNS, parse_settings({key: value}))) == {key}  # unimodal heads fuse nothing

    for acts in ({key: value}, {**FEDAVG, **only_newton}, {**LATE, **only_newton}, {"rounds-joint": 2, **only_newton}):
        assert not idle_settings(CATEGORIES, parse_settings(acts))
    assert not idle_settings(CATEGORIES, parse_settings({"local-head": True, **only_newton}))


REFUSED: list[tuple[Schema, dict[str, Scalar], str]] = [
    (CATEGORIES, {"proximal-mu": 0.1}, "proximal-mu: expected strategy=fedprox, got strategy=newton"),
    (CATEGORIES, {"strategy": "fedavg", "server-tau": 0.1}, "server-tau: expected strategy=fedadam or fedyogi"),
    (CATEGORIES, {"server-beta-1": 0.5}, "server-beta-1: expected strategy=fedadam or fedyogi"),
    (CATEGORIES, {"server-beta-2": 0.5}, "server-beta-2: expected strategy=fedadam or fedyogi"),
    (CATEGORIES, {"server-learning-rate": 0.5}, "server-learning-rate: expected strategy=fedadam or fedyogi"),
    (CATEGORIES, {"strategy": "fedavg", "adapt-penalty": False}, "adapt-penalty: expected Newton's steps"),
    (CATEGORIES, {"class-weight": "balanced", "adapt-penalty": False}, "adapt-penalty: expected Newton's steps"),
    (CATEGORIES, {**LATE, "head": "8"}, "head: expected fusion=early, got fusion=late"),
    (CATEGORIES, {**LATE, "dropout": 0.1}, "dropout: expected a perceptron in the head, got fusion=late"),
    (CATEGORIES, {"head-norm": "layer"}, "head-norm: expected a perceptron in the head"),
    (NOTHING_LEARNS, {**FEDAVG, "weight-decay": 0.1}, "weight-decay: expected encoders that train"),
    (CATEGORIES, {"rounds-unimodal": 0, **FEDAVG, "weight-decay": 0.1}, "weight-decay: expected encoders that train"),
    (NOTHING_LEARNS, {"rounds-unimodal": 7}, "rounds-unimodal: expected fusion=late or an encoder that learns"),
    (VITALS, {"image-embedding": 4}, "image-embedding: expected a modality of images, got modalities=static,vitals"),
    (WITH_FILMS, {"modalities": "static", "image-skip": False}, "image-skip: expected a modality of images"),
    (VITALS, {"modalities": "static", "series-embedding": 4}, "series-embedding: expected a modality of series"),
    (CATEGORIES, {"series-summaries": False}, "series-summaries: expected a modality of series"),
    (WITH_FILMS, {"rounds-unimodal": 0, "image-training": "trained"}, "image-training: expected a phase that trains"),
    (WITH_FILMS, {"image-learning-rate": 0.1}, "image-learning-rate: expected image-training=trained"),
    (CATEGORIES, {"explain": "none", "explain-every": 5}, "explain-every: expected explain=modalities or features"),
    (CATEGORIES, {"explain": "none", "background-rows": 9}, "background-rows: expected explain="),
    (CATEGORIES, {"explain": "none", "strata": "male"}, "strata: expected explain="),
    (CATEGORIES, {"explain-every": 99}, "explain-every: expected at most the 45 rounds"),
    (CATEGORIES, {"expected-sites": 2}, "expected-sites: expected at least min-sites=3"),
    (CATEGORIES, {**ONE_ROUND, "patience": 3}, "patience: expected a phase of at least 5 rounds"),
]


@pytest.mark.parametrize(
    ("schema", "values", "reason"), REFUSED, ids=[reason.split(":")[0] for _, _, reason in REFUSED]
)
def test_setting_that_would_do_nothing_is_refused_with_what_it_needs(
    schema: Schema, values: dict[str, Scalar], reason: str
) -> None:
    with pytest.raises(SettingsError) as refused:
        refuse_idle_settings(schema, parse_settings(values))
    assert str(refused.value).startswith(reason)
    assert "would do nothing" in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1


ACTS: list[tuple[Schema, dict[str, Scalar]]] = [
    (CATEGORIES, {"strategy": "fedprox", "proximal-mu": 0.1}),
    (CATEGORIES, {"strategy": "fedyogi", "server-tau": 0.1, "server-beta-1": 0.5, "server-learning-rate": 0.1}),
    (CATEGORIES, {"adapt-penalty": False, "head-penalty": 5.0}),
    (CATEGORIES, {**FEDAVG, "head": "8", "dropout": 0.1, "head-norm": "layer"}),
    (VITALS, {"weight-decay": 0.1, "rounds-unimodal": 7, "series-embedding": 4}),
    (
        WITH_FILMS,
        {"image-training": "trained", "image-learning-rate": 0.1, "rounds-joint": 5, "image-encoder": "resnet50"},
    ),
    (CATEGORIES, {"explain-every": 45, "background-rows": 9, "strata": "male"}),
    (CATEGORIES, {"expected-sites": 2, "min-sites": 2}),
    (CATEGORIES, {"patience": 100}),
    (CATEGORIES, {"class-weight": "balanced", "fold": 1, "seed": 2, "threads": 2}),
    (CATEGORIES, {**LATE, "local-head": True}),
]


@pytest.mark.parametrize(("schema", "values"), ACTS, ids=range(len(ACTS)))
def test_settings_that_act_are_not_refused(schema: Schema, values: dict[str, Scalar]) -> None:
    assert idle_settings(schema, parse_settings(values)) == {}


def test_all_settings_that_would_do_nothing_are_told_at_once() -> None:
    with pytest.raises(SettingsError) as refused:
        refuse_idle_settings(CATEGORIES, parse_settings({"proximal-mu": 1, "dropout": 0.5, "image-embedding": 3}))
    assert [line.split(":")[0] for line in str(refused.value).splitlines()] == [
        "image-embedding",
        "proximal-mu",
        "dropout",
    ]


def test_accepting_a_hospital_that_there_is_not_is_refused() -> None:
    settings = parse_settings({"accept-red": "east, wset"})
    with pytest.raises(SettingsError, match=r"accept-red: expected names of hospitals \(east, west\), got wset"):
        refuse_unknown_names(settings, ["west", "east"])
    refuse_unknown_names(parse_settings({"accept-red": "east"}), ["west", "east"])
