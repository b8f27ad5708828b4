import json
import re
import shutil
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from shared_model.config import parse_settings
from shared_model.errors import StudyError
from tests.server.small_cohort import open_workers, run_small_study, write_small_cohort

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # shap's own imports
    import shap

    from simulation.in_process import InProcessLink
    from simulation.notebook import HospitalExplanations, RunResults, open_results

mpl.use("Agg")
HOSPITALS = ("east", "north", "south")
HOSTILE = '<img src=x onerror="alert(1)">&<script>alert(2)</script>'
SETTINGS = {"rounds-unimodal": "1", "rounds-fusion": "4", "device": "cpu", "explain": "features"}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a cohort and a finished run of it."""
    folder = tmp_path_factory.mktemp("study")
    cohort = write_small_cohort(folder / "cohort", patients=150, series=True)
    link = InProcessLink(open_workers(cohort, folder / "cache"))
    run_small_study(cohort, folder / "run", settings=parse_settings(SETTINGS), link=link).write_status("completed")
    return folder


@pytest.fixture(scope="module")
def results(study: Path) -> RunResults:
    return open_results(study / "run")


@pytest.fixture(scope="module")
def hospitals(study: Path, results: RunResults) -> list[HospitalExplanations]:
    return [results.explain(study / "cohort" / name) for name in HOSPITALS]


@pytest.fixture
def changed(study: Path, tmp_path: Path) -> Callable[[str, Callable[[dict[str, Any]], None]], RunResults]:
    """The run with one of its files changed."""

    def change(name: str, edit: Callable[[dict[str, Any]], None]) -> RunResults:
        path = shutil.copytree(study / "run", tmp_path / "run") / name
        content = json.loads(path.read_text())
        edit(content)
        path.write_text(json.dumps(content))
        return open_results(path.parent)

    return change


def all_phi(hospitals: list[HospitalExplanations], of: str) -> pd.DataFrame:
    frames: list[pd.DataFrame] = []
    for one in hospitals:
        frame = one.to_frame("features" if of == "features" else "modalities")
        frames.append(frame.assign(site=one.explained.site.name))
    return pd.concat(frames)


def test_patients_of_all_hospitals_give_the_shares_of_the_federation(
    results: RunResults, hospitals: list[HospitalExplanations]
) -> None:
    size = all_phi(hospitals, "modalities").groupby("modality")["phi"].agg(lambda phi: phi.abs().sum())

    found = results.explanations.to_frame().set_index("modality")

    np.testing.assert_allclose(found["share"], (size / size.sum())[found.index], rtol=1e-3, atol=1e-9)
    assert found["share"].sum() == pytest.approx(1.0, abs=1e-3)
    assert (found["share_low"] <= found["share"]).all()
    assert (found["share"] <= found["share_high"]).all()


def test_patients_of_all_hospitals_give_the_features_of_the_federation(
    results: RunResults, hospitals: list[HospitalExplanations]
) -> None:
    one_by_one = all_phi(hospitals, "features")
    having = all_phi(hospitals, "modalities").set_index(["site", "patient_id", "modality"])["present"]
    index = pd.MultiIndex.from_frame(one_by_one[["site", "patient_id", "modality"]])
    counted = having.loc[index].to_numpy() | (one_by_one["feature"] == "presence").to_numpy()
    expected = one_by_one[counted].groupby(["modality", "feature"])["phi"].agg(lambda phi: phi.abs().mean())

    found = results.explanations.to_frame("features").set_index(["modality", "feature"])["mean_abs"].dropna()

    assert len(found) >= 8
    np.testing.assert_allclose(found, expected[found.index], rtol=2e-3, atol=1e-5)


def test_federation_for_shap_is_the_mean_size_of_the_patients_values(
    results: RunResults, hospitals: list[HospitalExplanations]
) -> None:
    patients = np.concatenate([one.explained.found.phi for one in hospitals])
    names = hospitals[0].to_shap().feature_names

    found = results.explanations.to_shap()

    expected = dict(zip(names, np.abs(patients).mean(axis=0), strict=True))
    np.testing.assert_allclose(found.values, [expected[name] for name in found.feature_names], rtol=1e-3, atol=1e-9)


@pytest.mark.parametrize("of", ["modalities", "features"])
def test_each_patients_values_sum_to_the_logit(hospitals: list[HospitalExplanations], of: str) -> None:
    for one in hospitals:
        found = one.to_shap(of)  # type: ignore[arg-type]
        logit = found.base_values + found.values.sum(axis=1)  # noqa: PD011 - not a table

        np.testing.assert_allclose(logit, one.explained.found.logit, rtol=0, atol=1e-6)
        assert len(one) == len(logit)


@pytest.mark.parametrize("of", ["modalities", "features"])
def test_shap_plots_take_both(results: RunResults, hospitals: list[HospitalExplanations], of: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # shap's own
        found = {}
        for plot, explanation in (
            (shap.plots.bar, results.explanations.to_shap(of)),  # type: ignore[arg-type]
            (shap.plots.beeswarm, hospitals[0].to_shap(of)),  # type: ignore[arg-type]
            (shap.plots.waterfall, hospitals[0].to_shap(of)[0]),  # type: ignore[arg-type]
        ):
            plt.figure()
            plot(explanation, show=False)
            assert plot is not shap.plots.bar or plt.gca().get_xlabel() == "mean(|SHAP value|)"
            found[plot.__name__] = " ".join(label.get_text() for label in plt.gca().get_yticklabels())
    plt.close("all")
    for name, labels in found.items():
        assert "static" in labels, name


def test_metrics_and_rounds_are_the_run_folders(results: RunResults) -> None:
    metrics = json.loads((results.path / "metrics.json").read_text())["test"]
    lines = [json.loads(line) for line in (results.path / "rounds.jsonl").read_text().splitlines()]

    assert results.metrics.loc["pooled", "auc"] == metrics["pooled"]["auc"]
    assert set(results.metrics.index) <= {"pooled", *HOSPITALS}
    assert results.rounds["round"].tolist() == [line["round"] for line in lines]
    assert results.rounds["answered"].map(list).tolist() == [line["answered"] for line in lines]


class Tags(HTMLParser):
    """What a piece of HTML opens, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002
        self.names.add(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def test_objects_show_their_numbers(results: RunResults, hospitals: list[HospitalExplanations]) -> None:
    run, federation = Tags(results._repr_html_()), Tags(results.explanations._repr_html_())
    hospital = Tags(hospitals[0]._repr_html_())

    first = results.explanations.to_frame().iloc[0]
    share = f"{100 * first['share']:.1f}%"
    assert "A small study" in run.text
    assert "line in each bar" not in run.text  # there are no bars here
    assert share in run.text
    assert share in federation.text
    assert f"{results.content.test.pooled.auc:.2f}" in run.text  # type: ignore[union-attr]
    assert f"{len(hospitals[0])} patients of east" in hospital.text
    assert "stays at the hospital" in hospital.text
    assert len(results.explanations.to_frame("features")) > 10
    assert "largest mean |phi|" in federation.text


def test_a_hospitals_shares_are_those_of_its_patients(hospitals: list[HospitalExplanations]) -> None:
    for one in hospitals:
        size = one.to_frame().groupby("modality")["phi"].agg(lambda phi: phi.abs().sum())
        for share in size / size.sum():
            assert f"{100 * share:.1f}%" in one._repr_html_()


def test_hostile_names_are_shown_as_text(changed: Callable[..., RunResults]) -> None:
    def rename(config: dict[str, Any]) -> None:
        config["schema"]["study"]["title"] = HOSTILE

    html = changed("config.json", rename)._repr_html_()

    assert HOSTILE in Tags(html).text
    assert not Tags(html).names & {"img", "script"}


def test_no_style_or_script_comes_along(results: RunResults, hospitals: list[HospitalExplanations]) -> None:
    for shown in (results, results.explanations, hospitals[0]):
        html = shown._repr_html_()
        assert not Tags(html).names & {"style", "script", "link", "img"}
        assert not re.search(r"https?://|style=|on[a-z]+=", html)


def test_reprs_are_short(results: RunResults, hospitals: list[HospitalExplanations]) -> None:
    assert repr(results) == f"RunResults({str(results.path)!r}, completed)"
    assert len(repr(results.explanations)) < 100
    assert repr(hospitals[0]) == f"HospitalExplanations(Shapley values of {len(hospitals[0])} patients of east)"


def test_suppressed_explanation_says_so_and_gives_no_table(changed: Callable[..., RunResults]) -> None:
    def suppress(content: dict[str, Any]) -> None:
        for name in ("n", "events", "modalities", "features", "strata", "interactions"):
            content.pop(name)
        content["suppressed"] = True

    found = changed("explanations.json", suppress).explanations

    assert "Suppressed" in found._repr_html_()
    with pytest.raises(StudyError, match="suppressed explanation"):
        found.to_frame()
    with pytest.raises(StudyError, match="suppressed explanation"):
        found.to_shap("features")


def test_suppressed_feature_is_named_without_numbers_and_not_plotted(changed: Callable[..., RunResults]) -> None:
    def suppress(content: dict[str, Any]) -> None:
        content["features"]["static"][0] = {"name": content["features"]["static"][0]["name"], "suppressed": True}

    found = changed("explanations.json", suppress).explanations
    frame = found.to_frame("features")
    hidden = frame[frame["suppressed"]]

    assert hidden[["mean_abs", "mean_phi", "n"]].isna().all(axis=None)
    assert not {f"{row.modality}: {row.feature}" for row in hidden.itertuples()} & set(
        found.to_shap("features").feature_names
    )
    assert f"{len(hidden)} features are suppressed" in found._repr_html_()


def test_run_without_explanations_or_metrics_says_what_it_lacks(study: Path, tmp_path: Path) -> None:
    path = shutil.copytree(study / "run", tmp_path / "run")
    for name in ("explanations.json", "metrics.json"):
        (path / name).unlink()
    (path / "status.json").write_text(json.dumps({"state": "failed", "reason": "round 1: only 1 of 3 answered"}))
    results = open_results(path)

    assert "round 1: only 1 of 3 answered" in results._repr_html_()
    with pytest.raises(StudyError, match="expected the explanation of a finished run"):
        _ = results.explanations
    with pytest.raises(StudyError, match=r"metrics\.json: expected metrics of the test part, got none"):
        _ = results.metrics


def test_other_levels_and_other_folders_are_refused(results: RunResults, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected modalities or features, got 'pixels'"):
        results.explanations.to_frame("pixels")  # type: ignore[arg-type]
    with pytest.raises(StudyError, match=r"expected a run folder with status\.json"):
        open_results(tmp_path)


def test_values_that_do_not_add_up_are_never_shown(
    study: Path, results: RunResults, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared_model.shapley.checked.predict_logits", lambda *_, **__: np.zeros(30))

    with pytest.raises(StudyError, match="expected sums within"):
        results.explain(study / "cohort" / "east")


@pytest.fixture(autouse=True)
def quiet_shap() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="shap")
        yield


def test_shares_of_effects_that_are_only_rounding_are_not_available(hospitals: list[HospitalExplanations]) -> None:
    one = hospitals[0].explained
    noise = replace(one.found, phi=1e-17 * np.sign(one.found.phi))

    html = HospitalExplanations(replace(one, found=noise))._repr_html_()

    assert html.count("not available") == len(noise.modalities)
