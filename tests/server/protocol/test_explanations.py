"""explanations.json of small studies in this process."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from server.run_folder.folder import RunFolder
from shared_model.config import Scalar, Settings
from shared_model.protocol.messages import EXPLAIN
from shared_model.shapley.common_background import hash_background
from simulation.in_process import InProcessLink
from tests.server.explained_study import Content, keep_patients, read_explanations
from tests.server.faulty_links import FAULTS, FaultyLink, InterruptedLink
from tests.server.small_cohort import open_workers, run_small_study, small_settings, write_small_cohort

SUPPRESSED = {"suppressed": True}
MODALITIES = ("static", "vitals", "drugs")


def explaining(**changes: Scalar) -> Settings:
    values: dict[str, Scalar] = {
        "rounds_fusion": 3,
        "learning_rate": 0.3,
        "head": "4",
        "series_embedding": 3,
        "background_rows": 30,
        "explain_every": 1,
        "strata": "male,age:60:80",
    }
    return small_settings(**{**values, **changes})


@pytest.fixture(scope="session")
def uneven_cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four hospitals: west is too small for a row of its own, south measured no vitals, north gave few drugs."""
    cohort = write_small_cohort(tmp_path_factory.mktemp("uneven") / "cohort", hospitals=4, patients=150, series=True)
    keep_patients(cohort / "west", 60)
    (cohort / "south" / "vitals.csv").unlink()
    drugs = cohort / "north" / "drugs.csv"
    drugs.write_text("".join(drugs.read_text().splitlines(keepends=True)[:20]))
    return cohort


@pytest.fixture(scope="session")
def uneven_run(uneven_cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return run_small_study(uneven_cohort, tmp_path_factory.mktemp("explained") / "run", settings=explaining())


@pytest.fixture(scope="session")
def content(uneven_run: RunFolder) -> Content:
    return read_explanations(uneven_run)


def shown(groups: dict[str, Any]) -> dict[str, Any]:
    return {name: group for name, group in groups.items() if group != SUPPRESSED}


FEW_HOSPITALS = "fewer than 5 hospitals contribute"

# ---------------------------------------------------------------------------------------------------------- modalities


@pytest.mark.parametrize("kind", ["share", "mean_local_share", "share_present", "share_probability"])
def test_shares_sum_to_one(kind: str, content: Content) -> None:
    assert sum(entry[kind] for entry in content["modalities"].values()) == pytest.approx(1.0, abs=2e-3)


@pytest.mark.parametrize("kind", ["share", "mean_local_share", "share_present", "mean_abs"])
def test_interval_contains_its_number(kind: str, content: Content) -> None:
    for entry in content["modalities"].values():
        low, high = entry[f"{kind}_ci"]
        assert low <= entry[kind] <= high
    assert content["modalities"]["static"][f"{kind}_ci"][0] < content["modalities"]["static"][kind]


def test_all_patients_of_the_test_part_are_explained(content: Content) -> None:
    assert content["n"] == 3 * 30 + 12
    assert content["part"] == "test"
    assert {name: entry["n_present"] for name, entry in content["modalities"].items()}["static"] == 102
    assert content["modalities"]["vitals"]["n_present"] == 102 - 30  # south has none


def test_values_add_up_to_the_predictions(content: Content) -> None:
    assert 0 <= content["additivity_error"] < 1e-5


def test_hospitals_are_described_by_a_mean_and_the_next_one(content: Content) -> None:
    for entry in content["modalities"].values():
        assert entry["hospitals"] == 4
        assert entry["site_mean_ci"][0] <= entry["site_mean"] <= entry["site_mean_ci"][1]
        assert (entry["prediction_interval"], entry["prediction_reason"]) == (None, FEW_HOSPITALS)
        assert entry["tau"] >= 0
        assert 0 <= entry["i2"] < 1


def test_interactions_name_each_pair_once_largest_first(content: Content) -> None:
    pairs = content["interactions"]
    assert {frozenset(pair["modalities"]) for pair in pairs} == {
        frozenset(pair) for pair in (("static", "vitals"), ("static", "drugs"), ("vitals", "drugs"))
    }
    sizes = [pair["mean_abs"] for pair in pairs]
    assert sizes == sorted(sizes, reverse=True)
    assert all(abs(pair["mean"]) <= pair["mean_abs"] + 1e-12 for pair in pairs)


def test_background_is_the_file_beside_it(content: Content, uneven_run: RunFolder) -> None:
    rows = load_file(uneven_run.path / "background.safetensors")
    embeddings = {name: rows[f"embedding/{name}"] for name in MODALITIES}
    present = {name: rows[f"present/{name}"].astype(bool) for name in MODALITIES}
    assert hash_background(content["model_hash"], embeddings, present) == content["background_id"]
    assert {len(value) for value in rows.values()} == {30} == {content["background"]["rows"]}
    assert not present["vitals"].all()


# ------------------------------------------------------------------------------------------------------------ features


def test_means_of_levels_are_those_of_their_shown_groups(content: Content) -> None:
    levels = [one for one in content["features"]["static"] if "level" in (one.get("groups") or [{}])[0]]
    for feature in levels:
        groups = [group for group in feature["groups"] if not group.get("suppressed")]
        assert feature["n"] == sum(group["n"] for group in groups)
        total = sum(group["mean_phi"] * group["n"] for group in groups)
        assert feature["mean_phi"] == pytest.approx(total / feature["n"], abs=1e-3)  # four digits each
    assert levels


def test_features_are_listed_by_size(content: Content) -> None:
    for entries in content["features"].values():
        sizes = [entry["mean_abs"] for entry in entries[:-1]]
        assert sizes == sorted(sizes, reverse=True)


def test_cells_of_a_histogram_are_at_most_a_tenth_of_the_patients(content: Content) -> None:
    seen = 0
    for entries in content["features"].values():
        for feature in entries[:-1]:
            histogram = feature["histogram"]
            if histogram == SUPPRESSED:
                continue
            seen += 1
            counts = np.array(histogram["counts"])
            assert counts.size <= feature["n"] // 10
            assert counts.shape == (len(histogram["groups"]), len(histogram["phi_edges"]) + 1)
            for group, row in zip(histogram["groups"], counts, strict=True):
                assert row.sum() == feature["groups"][group]["n"]
                assert set(row[row < 10]) <= {0}
    assert seen > 3


def test_group_of_few_patients_is_hidden_and_never_alone(content: Content) -> None:
    hidden_anywhere = 0
    for entries in content["features"].values():
        for feature in entries[:-1]:
            groups = [group for group in feature["groups"] if "suppressed" not in group]
            assert all(group["n"] >= 10 for group in groups)
            if not feature["groups"]:
                continue  # a hidden stratum of the same column
            left = feature["n"] - sum(group["n"] for group in groups)
            hidden = len(feature["groups"]) - len(groups)
            hidden_anywhere += left > 0
            assert left == 0 or (hidden >= 2 and left >= 10)
    assert hidden_anywhere


# ---------------------------------------------------------------------------------------------------- strata and sites


def test_groups_of_a_column_that_nobody_lacks_are_shown(content: Content) -> None:
    """Men and women are some 50 each, with some 15 deaths; that nobody is missing hides neither."""
    groups = content["strata"]["male"]
    assert set(shown(groups)) == {"0", "1"}
    assert sum(group["n"] for group in shown(groups).values()) == content["n"]


def test_small_band_is_hidden_with_another_so_that_subtraction_does_not_reveal_it(content: Content) -> None:
    groups = content["strata"]["age"]
    assert groups["below 60"] == SUPPRESSED  # the ages are normal around 80 with a standard deviation of 8
    left = content["n"] - sum(group["n"] for group in shown(groups).values())
    assert left == 0 or left >= 10
    assert len(groups) - len(shown(groups)) >= 2


def test_outcome_groups_hold_deaths_or_none(content: Content) -> None:
    groups = content["strata"]["outcome"]
    assert groups["0"]["events"] == 0
    assert groups["1"]["events"] == groups["1"]["n"] == content["events"]
    assert groups["0"]["n"] + groups["1"]["n"] == content["n"]
    for group in groups.values():
        assert sum(entry["share"] for entry in group["modalities"].values()) == pytest.approx(1.0, abs=2e-3)


def test_small_hospital_is_hidden_with_another_so_that_subtraction_does_not_reveal_it(content: Content) -> None:
    sites = content["sites"]
    assert sites["west"] == SUPPRESSED  # twelve patients, three or four deaths
    released = shown(sites)
    assert len(released) == 1  # three are hidden, as each hospital knows its own row
    assert content["n"] - sum(row["n"] for row in released.values()) >= 10
    for row in released.values():
        assert sum(entry["share"] for entry in row["modalities"].values()) == pytest.approx(1.0, abs=2e-3)


def test_few_who_have_or_lack_a_modality_are_not_counted(content: Content) -> None:
    """A count below ten of those with a modality, or of those without, is a small cell like any other."""
    for entry in content["modalities"].values():
        if entry["n_present"] is not None:
            for size in (entry["n_present"], content["n"] - entry["n_present"]):
                assert size == 0 or size >= 10


def test_only_all_patients_together_tell_how_many_have_a_modality(content: Content) -> None:
    """Counts of groups beside that of all would give the rest away."""
    assert not any(
        "n_present" in entry for row in shown(content["sites"]).values() for entry in row["modalities"].values()
    )
    groups = [group for groups in content["strata"].values() for group in shown(groups).values()]
    assert all(entry["n_present"] is None for group in groups for entry in group["modalities"].values())


def test_numbers_have_four_digits(content: Content) -> None:
    share = content["modalities"]["static"]["share"]
    assert share == float(f"{share:.4g}")


# --------------------------------------------------------------------------------------------------------------- drift


def test_drift_is_told_from_each_explained_round_to_the_next(content: Content) -> None:
    assert [(step["from"], step["to"]) for step in content["drift"]] == [(1, 2), (2, 3)]
    for step in content["drift"]:
        everybody = step["groups"]["all hospitals"]
        assert 0 < everybody["l1"] <= 2
        assert -1 <= everybody["rank_correlation"] <= 1
        assert 0 <= everybody["top_overlap"] <= 1
        assert "west" not in step["groups"]


# ------------------------------------------------------------------------------------------------------- other studies


def test_constant_model_has_no_shares_and_valid_json(cohort: Path, tmp_path: Path) -> None:
    """Output layers start at zero, and steps this small are lost in float32."""
    folder = run_small_study(cohort, tmp_path / "run", settings=explaining(rounds_fusion=1, learning_rate=1e-50))

    content = read_explanations(folder)

    entry = content["modalities"]["static"]
    for name in ("share", "share_ci", "share_present", "share_probability", "tau", "i2", "site_mean", "hospitals"):
        assert entry[name] is None, name
    assert (entry["mean_abs"], entry["alone"], entry["left_out"]) == (0, 0, 0)
    assert all(feature["mean_abs"] == 0 for feature in content["features"]["static"])
    assert all(feature.get("correlation") is None for feature in content["features"]["static"])


def test_only_modality_has_the_whole_share(cohort: Path, tmp_path: Path) -> None:
    folder = run_small_study(cohort, tmp_path / "run", settings=explaining(rounds_fusion=2))

    content = read_explanations(folder)

    entry = content["modalities"]["static"]
    assert (entry["share"], entry["share_ci"], entry["mean_local_share"]) == (1.0, [1.0, 1.0], 1.0)
    assert (entry["site_mean"], entry["tau"]) == (1.0, 0.0)
    assert entry["left_out"] == entry["alone"] == pytest.approx(entry["mean_abs"], abs=1e-9)
    assert content["interactions"] == []
    assert [step["groups"]["all hospitals"]["top_overlap"] for step in content["drift"]] == [1.0]


def test_explanation_without_features_has_none(cohort: Path, tmp_path: Path) -> None:
    settings = explaining(rounds_fusion=1, explain="modalities", explain_every=0)
    content = read_explanations(run_small_study(cohort, tmp_path / "run", settings=settings))
    assert content["features"] == {}
    assert content["drift"] == []
    # Beside a run with features a mean phi would give back a feature's hidden value.
    assert "mean_phi" not in content["modalities"]["static"]


def test_study_without_explanation_writes_none(cohort: Path, tmp_path: Path) -> None:
    folder = run_small_study(cohort, tmp_path / "run", settings=explaining(rounds_fusion=1, explain="none"))
    assert not (folder.path / "explanations.json").exists()
    assert not (folder.path / "background.safetensors").exists()


def test_hospital_that_is_evaluated_but_not_explained_is_not_given_back_by_the_others(
    uneven_cohort: Path, tmp_path: Path
) -> None:
    """metrics.json counts west, explanations.json does not: what is there less what is here would be west's."""
    link = FaultyLink(InProcessLink(open_workers(uneven_cohort, tmp_path / "cache")), 3, FAULTS["deadline"], (EXPLAIN,))
    settings = explaining(rounds_fusion=1, explain_every=0)

    folder = run_small_study(uneven_cohort, tmp_path / "run", settings=settings, link=link)

    told = read_explanations(folder)
    assert told["failed"] == {"west": "no answer within 5 s"}
    assert folder.read_json("metrics.json")["test"]["failed"] == {}
    assert told["sites"] == dict.fromkeys(("east", "north", "south"), SUPPRESSED)
    assert (told["n"], told["events"], told["feature_patients"], told["features"], told["strata"]) == (
        None, None, None, {}, {},
    )  # fmt: skip
    assert [entry["n_present"] for entry in told["modalities"].values()] == [None, None, None]
    assert sum(entry["share"] for entry in told["modalities"].values()) == pytest.approx(1.0, abs=2e-3)


@pytest.fixture(scope="session")
def resumable(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return run_small_study(cohort, tmp_path_factory.mktemp("whole") / "run", settings=explaining(rounds_fusion=2))


# 1 handshake, 2 statistics, 3 train, 4-6 explain, 7 train, 8-10 explain, 11 validate, 12 test, 13-15 explain
@pytest.mark.parametrize("asked", [4, 8, 12, 14])
def test_run_interrupted_at_any_question_of_an_explanation_resumes_to_the_same_bytes(
    asked: int, resumable: RunFolder, cohort: Path, tmp_path: Path
) -> None:
    settings, workers = explaining(rounds_fusion=2), open_workers(cohort, tmp_path / "cache")
    link = InterruptedLink(InProcessLink(workers), at=asked)
    with pytest.raises(KeyboardInterrupt):
        run_small_study(cohort, tmp_path / "run", settings=settings, link=link)

    folder = run_small_study(cohort, tmp_path / "run", settings=settings, link=InProcessLink(workers), resume=True)

    for name in ("explanations.json", "background.safetensors"):
        assert (folder.path / name).read_bytes() == (resumable.path / name).read_bytes(), name
