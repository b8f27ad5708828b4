"""The examples of simulation/README.md: a strategy and an image encoder of packages of their own."""

import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from server.idle_settings import idle_settings
from server.protocol.strategy import build_strategy
from server.run_folder.folder import RunFolder
from shared_model.config import Scalar, parse_settings
from shared_model.errors import ExtensionError, SettingsError
from shared_model.extensions import IMAGE_ENCODERS, entry_points_of, load
from shared_model.model.fusion import build_model
from shared_model.schema import parse_schema
from tests.client.finished_run import finish_run
from tests.client.patient_page.explained_patients import PATIENT, explain
from tests.packages import describe
from tests.server.small_cohort import IMAGE_SCHEMA, STATIC_SCHEMA, read_rounds, small_settings

GUIDE = Path(__file__).parents[2] / "simulation" / "README.md"
MODULES = ("hipfed_momentum", "hipfed_small_cnn")


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The guide's modules and entry points, installed."""
    _, _, text = GUIDE.read_text(encoding="utf-8").partition("## Your own strategy")
    blocks = re.findall(r"```(python|toml)\n(.*?)```", text, re.DOTALL)
    found = {code.partition("\n")[0].removeprefix("# "): code for kind, code in blocks if kind == "python"}
    assert set(found) >= {f"{module}.py" for module in MODULES}
    for module in MODULES:
        (tmp_path / f"{module}.py").write_text(found[f"{module}.py"], encoding="utf-8")
    groups = tomllib.loads(next(code for kind, code in blocks if kind == "toml"))["project"]["entry-points"]
    lines = [
        f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in own.items()) for group, own in groups.items()
    ]
    describe("example", tmp_path, "\n".join(lines))
    monkeypatch.syspath_prepend(str(tmp_path))
    entry_points_of.cache_clear()
    yield
    entry_points_of.cache_clear()
    for module in MODULES:
        sys.modules.pop(module, None)


@pytest.mark.usefixtures("packages")
def test_strategy_of_a_package_makes_the_steps_and_keeps_its_state() -> None:
    settings = parse_settings({"strategy": "fedavgm"})
    weights = {"head.linear.weight": np.zeros((1, 1), dtype=np.float32)}
    change = {"head.linear.weight": np.ones((1, 1))}

    first = build_strategy(settings, n_train=10)
    once = first.step(weights, change)
    again = build_strategy(settings, n_train=10, state=first.state).step(once, change)

    assert once["head.linear.weight"].item() == 1.0
    assert again["head.linear.weight"].item() == pytest.approx(1.0 + 1.9)


@pytest.mark.usefixtures("packages")
def test_study_with_both_is_trained_and_explained_to_the_pixel(tmp_path: Path) -> None:
    finished = finish_run(
        tmp_path / "study", strategy="fedavgm", image_encoder="small-cnn", image_training="trained", rounds_joint=1
    )

    assert RunFolder(finished.run).read_json("config.json")["packages"]["example"] == "1.0"
    assert [line["phase"] for line in read_rounds(RunFolder(finished.run)) if line["train_loss"] is not None][
        -1
    ] == "joint"
    images = explain(finished, PATIENT)["images"]
    assert images["hip"]["residual"] < 1e-6
    assert np.any(images["hip"]["pixels"])


@pytest.mark.parametrize("changes", [{"strategy": "fedavgm"}, {"image-encoder": "small-cnn"}])
def test_name_that_no_package_adds_is_refused(changes: dict[str, str]) -> None:
    with pytest.raises(SettingsError, match=r"expected one of .*, got '(fedavgm|small-cnn)'"):
        parse_settings(changes)


def test_object_that_is_no_network_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    describe("example", tmp_path, "[hipfed.image_encoders]\nempty = builtins:dict\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    entry_points_of.cache_clear()
    try:
        with pytest.raises(ExtensionError, match=r"expected an nn\.Module with an attribute n_features, got dict"):
            build_model(
                parse_schema(STATIC_SCHEMA + IMAGE_SCHEMA.format(name="hip"), source="schema.toml"),
                small_settings(image_encoder="empty"),
            )
    finally:
        entry_points_of.cache_clear()


@pytest.mark.parametrize("code", ["raise RuntimeError('no device')", "def f(:"], ids=["RuntimeError", "SyntaxError"])
def test_package_that_fails_when_it_is_imported_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    (tmp_path / "broken_package.py").write_text(code, encoding="utf-8")
    describe("example", tmp_path, "[hipfed.image_encoders]\nbroken = broken_package:Net\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    entry_points_of.cache_clear()
    try:
        with pytest.raises(ExtensionError, match=r"broken: expected broken_package:Net to be importable"):
            load(IMAGE_ENCODERS, "broken")
    finally:
        entry_points_of.cache_clear()


@pytest.mark.usefixtures("packages")
def test_settings_of_built_in_ways_are_idle_where_a_package_does_not_read_them() -> None:
    schema = parse_schema(STATIC_SCHEMA + IMAGE_SCHEMA.format(name="hip"), source="schema.toml")
    settings: dict[str, Scalar] = {
        "strategy": "fedavgm",
        "image-encoder": "small-cnn",
        "rounds-joint": 1,
        "rounds-fusion": 1,
    }

    assert idle_settings(schema, parse_settings({**settings, "server-learning-rate": 0.5})) == {}
    assert list(idle_settings(schema, parse_settings({**settings, "image-skip": False}))) == ["image-skip"]
    assert list(idle_settings(schema, parse_settings({**settings, "proximal-mu": 0.5}))) == ["proximal-mu"]
