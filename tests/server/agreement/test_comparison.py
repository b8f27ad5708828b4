import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from typer.testing import CliRunner

from server.agreement.comparison import compare_with_experts, draw_importance
from server.cli import app
from server.run_folder.explained_items import ExplainedItem, read_explained_items
from shared_model.errors import SettingsError, StudyError

HEADER = "kind,modality,feature,rank\n"
MODALITIES = "modality,static,,2\nmodality,vitals,,1\nmodality,drugs,,3\n"


def explanation(**changes: Any) -> dict[str, Any]:
    """Of a run with three modalities and five features, one of them suppressed."""

    def feature(name: str, mean_abs: float) -> dict[str, Any]:
        return {"name": name, "mean_abs": mean_abs, "mean_abs_ci": [mean_abs, mean_abs]}

    presence = {"name": "presence", "mean_abs": 9.0, "mean_phi": 0.0}
    shares = {"static": 0.5, "vitals": 0.3, "drugs": 0.2}
    content = {
        "model_hash": "m",
        "background_id": "b",
        "part": "test",
        "n": 100,
        "events": 20,
        "modalities": {name: {"share": share, "share_range": [share, share]} for name, share in shares.items()},
        "features": {
            "static": [feature("age_years", 0.4), {"name": "male", "suppressed": True}, presence],
            "vitals": [feature("hr_bpm last", 0.3), feature("spo2_pct min", 0.1), presence],
            "drugs": [feature("opioid", 0.2), presence],
        },
    }
    return content | changes


def write_run(tmp_path: Path, content: dict[str, Any], *, expert: str) -> tuple[Path, Path]:
    run, table = tmp_path / "run", tmp_path / "expert.csv"
    run.mkdir()
    (run / "explanations.json").write_text(json.dumps(content))
    table.write_text(expert)
    return run, table


def compare(tmp_path: Path, expert: str, *, top: int = 5, **changes: Any) -> dict[str, Any]:
    return compare_with_experts(*write_run(tmp_path, explanation(**changes), expert=expert), top=top)


def test_agreement_on_modalities_equals_the_values_by_hand(tmp_path: Path) -> None:
    report = compare(tmp_path, HEADER + MODALITIES)
    entry = report["kinds"]["modality"]["experts"]["expert"]

    # vitals, static, drugs against static, vitals, drugs: 2 of 3 pairs alike; agreement 0, 1, 1.
    assert entry["tau_b"]["value"] == pytest.approx(1 / 3)
    assert entry["rbo"]["value"] == pytest.approx((0.81 + 0.729) / 9 + 0.729)
    assert (entry["k"], entry["top_overlap"]["value"]) == (2, 1.0)
    assert entry["top_overlap"]["chance"] == pytest.approx(2 / 3)
    assert list(report["kinds"]) == ["modality"]
    assert report["notes"] == []


def test_agreement_on_features_sets_all_modalities_in_one_order_without_presence(tmp_path: Path) -> None:
    rows = "feature,drugs,opioid,1\nfeature,static,age_years,2\nfeature,vitals,spo2_pct min,3\n"
    entry = compare(tmp_path, HEADER + rows, top=2)["kinds"]["feature"]["experts"]["expert"]

    # The run: age_years, hr_bpm last, opioid, spo2_pct min. Expert: opioid, age_years, spo2_pct min.
    assert [(row["feature"], row["run"], row["expert"]) for row in entry["ranks"]] == [
        ("age_years", 1, 2),
        ("hr_bpm last", 2, None),
        ("spo2_pct min", 4, 3),
        ("opioid", 3, 1),
    ]
    assert entry["ranked"] == 3
    assert entry["tau_b"]["value"] == pytest.approx(1 / 3)
    assert entry["top_overlap"]["value"] == 0.5
    # Agreement 0, 1/2, 2/3; at depth 4 (3 + 2/3) / 4.
    last = (3 + 2 / 3) / 4
    expected = (0.81 / 2 + 0.729 * 2 / 3 + last * 0.9**4) / 9 + last * 0.9**4
    assert entry["rbo"]["value"] == pytest.approx(expected)


def test_interval_is_a_point_when_the_runs_intervals_have_no_width(tmp_path: Path) -> None:
    entry = compare(tmp_path, HEADER + MODALITIES)["kinds"]["modality"]["experts"]["expert"]

    for name in ("tau_b", "rbo", "top_overlap"):
        assert entry[name]["ci"] == [entry[name]["value"]] * 2


def test_interval_covers_every_order_when_the_runs_intervals_are_wide_and_is_the_same_again(tmp_path: Path) -> None:
    modalities = {name: {"share": 0.33, "share_range": [0.0, 0.66]} for name in ("static", "vitals", "drugs")}
    paths = write_run(tmp_path, explanation(modalities=modalities), expert=HEADER + MODALITIES)
    first, second = (compare_with_experts(*paths, top=5) for _ in range(2))

    assert first["kinds"]["modality"]["experts"]["expert"]["tau_b"]["ci"] == [-1.0, 1.0]
    assert first == second


def test_no_interval_is_given_where_the_run_gives_none(tmp_path: Path) -> None:
    modalities = explanation()["modalities"]
    modalities["drugs"]["share_range"] = None
    report = compare(tmp_path, HEADER + MODALITIES, modalities=modalities)

    assert report["kinds"]["modality"]["experts"]["expert"]["tau_b"]["ci"] is None
    assert "no confidence intervals" in report["notes"][0]


def test_drawn_importances_have_the_standard_error_and_are_not_negative() -> None:
    draws = draw_importance(np.array([5.0, 0.0]), np.array([0.5, 1.0]), rng=np.random.default_rng(0))

    assert draws[:, 0].std() == pytest.approx(0.5, rel=0.05)
    assert draws.min() == 0.0


@pytest.mark.parametrize("interval", [[0.304, 0.696], [0.304, 0.6], [0.4, 0.696]])
def test_standard_error_is_that_of_the_interval_even_where_one_end_was_cut(
    tmp_path: Path, interval: list[float]
) -> None:
    modalities = {"static": {"share": 0.5, "share_range": interval}}
    run, _ = write_run(tmp_path, explanation(modalities=modalities), expert="")

    assert read_explained_items(run).spread[ExplainedItem("static")] == pytest.approx(0.1, rel=1e-3)


def test_experts_are_compared_one_by_one_together_and_with_each_other(tmp_path: Path) -> None:
    orders = {"Dr A": ("static", "vitals", "drugs"), "Dr B": ("static", "drugs", "vitals")}
    rows = [f"modality,{m},,{rank},{name}\n" for name, order in orders.items() for rank, m in enumerate(order, 1)]
    entry = compare(tmp_path, "kind,modality,feature,rank,expert\n" + "".join(rows))["kinds"]["modality"]

    assert entry["experts"]["Dr A"]["tau_b"]["value"] == pytest.approx(1.0)
    assert entry["experts"]["Dr B"]["tau_b"]["value"] == pytest.approx(1 / 3)
    # Mean ranks 1, 2.5, 2.5: 2 pairs alike and 1 tied; rank sums 2, 5, 5.
    assert entry["mean_rank"]["tau_b"]["value"] == pytest.approx(2 / np.sqrt(2 * 3))
    assert entry["kendall_w"] == {"value": pytest.approx(0.75), "experts": 2, "items": 3}


def test_mean_rank_is_left_out_when_the_experts_share_too_few_items(tmp_path: Path) -> None:
    features = {"A": ("age_years", "hr_bpm last", "spo2_pct min"), "B": ("hr_bpm last", "spo2_pct min", "opioid")}
    home = {"age_years": "static", "opioid": "drugs"}
    rows = [f"feature,{home.get(f, 'vitals')},{f},1,{name}\n" for name, given in features.items() for f in given]
    report = compare(tmp_path, "kind,modality,feature,rank,expert\n" + "".join(rows))

    assert (report["kinds"]["feature"]["mean_rank"], report["kinds"]["feature"]["kendall_w"]) == (None, None)
    assert report["notes"] == ["feature, mean rank and Kendall's W: left out, 2 of at least 3 items that all rank."]


def test_suppressed_features_and_kinds_with_too_few_items_are_named(tmp_path: Path) -> None:
    rows = "feature,static,male,1\nfeature,static,age_years,2\nfeature,drugs,opioid,3\n"
    report = compare(tmp_path, HEADER + MODALITIES + rows)

    assert list(report["kinds"]) == ["modality"]
    assert report["notes"] == [
        "left out, suppressed in the run (small-cell rule): static: male.",
        "feature, expert: left out, 2 of at least 3 items that the run explains.",
    ]


def test_modality_of_the_study_that_the_run_leaves_out_is_named_and_not_refused(tmp_path: Path) -> None:
    run, table = write_run(tmp_path, explanation(), expert=f"{HEADER}{MODALITIES}modality,hip_xray,,4\n")
    study = {"name": "s", "title": "t", "outcome": "died", "patient_id": "id"}
    schema = {"study": study, "static": [{"name": "male", "kind": "binary"}], "images": {"hip_xray": {"size": 64}}}
    (run / "config.json").write_text(json.dumps({"settings": {}, "schema": schema}))
    report = compare_with_experts(run, table, top=5)

    assert report["notes"] == ["left out, not explained in the run: hip_xray."]


def test_expert_who_ties_all_items_has_no_tau_b(tmp_path: Path) -> None:
    rows = "modality,static,,1\nmodality,vitals,,1\nmodality,drugs,,1\n"
    entry = compare(tmp_path, HEADER + rows)["kinds"]["modality"]["experts"]["expert"]

    assert (entry["tau_b"]["value"], entry["tau_b"]["ci"]) == (None, None)


def invoke(run: Path, table: Path, *options: str) -> Result:
    words = ["agreement", str(run), "--expert", str(table), *options]
    return CliRunner().invoke(app, words, env={"COLUMNS": "160"})


def test_command_prints_the_table_and_writes_the_report(tmp_path: Path) -> None:
    run, table = write_run(tmp_path, explanation(), expert=HEADER + MODALITIES)
    out = tmp_path / "new" / "agreement.json"
    result = invoke(run, table, "--out", str(out), "--top", "1")

    assert result.exit_code == 0, result.output
    lines = [line.split() for line in result.output.splitlines()]
    assert lines[1] == ["modality", "expert", "3", "of", "3", "tau-b", "0.33", "0.33", "to", "0.33", "0.00"]
    assert ["top", "1", "0.00", "0.00", "to", "0.00", "0.33"] in lines
    assert "for patients sampled anew, the model and the expert's ranking kept" in " ".join(result.output.split())
    assert json.loads(out.read_text()) == compare_with_experts(run, table, top=1)


def test_command_prints_an_experts_name_as_it_is_written(tmp_path: Path) -> None:
    rows = "".join(f"modality,{name},,1,[red]Dr A[/]\n" for name in ("static", "vitals", "drugs"))
    run, table = write_run(tmp_path, explanation(), expert="kind,modality,feature,rank,expert\n" + rows)

    assert "[red]Dr A[/]" in invoke(run, table).output


NO_SHARES = {name: {"share": None, "share_range": None} for name in ("static", "vitals", "drugs")}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "expected a run that was explained, got none"),
        ({"model_hash": "m", "suppressed": True}, "got a suppressed one"),
        (
            explanation(modalities=NO_SHARES),
            "importance of static, vitals, drugs at explanations.json: expected a number",
        ),
        ({"model_hash": "m"}, "expected the importance of modalities, got none"),
        ({"modalities": 3, "features": {}}, "expected the fields of a run, got at modalities"),
    ],
)
def test_command_refuses_a_run_without_an_explanation_and_writes_nothing(
    tmp_path: Path, content: Any, expected: str
) -> None:
    run, table = write_run(tmp_path, content, expert=HEADER + MODALITIES)
    if content is None:
        (run / "explanations.json").unlink()
    result = invoke(run, table, "--out", str(tmp_path / "out.json"))

    assert result.exit_code == 1
    assert expected in " ".join(result.stderr.split())
    assert not (tmp_path / "out.json").exists()


def test_command_does_not_make_a_run_folder_that_is_missing(tmp_path: Path) -> None:
    _, table = write_run(tmp_path, explanation(), expert=HEADER + MODALITIES)

    assert invoke(tmp_path / "other", table).exit_code == 1
    assert not (tmp_path / "other").exists()


def test_command_refuses_a_table_with_faults_and_writes_nothing(tmp_path: Path) -> None:
    run, table = write_run(tmp_path, explanation(), expert=f"{HEADER}modality,organs,,1\nmodality,static,,x\n")
    result = invoke(run, table, "--out", str(tmp_path / "out.json"))

    assert result.exit_code == 1
    assert "expert.csv, row 2, modality: unknown-modality" in result.stderr
    assert "expert.csv, row 3, rank: not-a-number" in result.stderr
    assert not (tmp_path / "out.json").exists()


def test_command_refuses_a_table_that_is_missing(tmp_path: Path) -> None:
    run, _ = write_run(tmp_path, explanation(), expert="")
    result = invoke(run, tmp_path / "nothing.csv")

    assert result.exit_code == 1
    assert "expected a CSV file, got: No such file or directory" in " ".join(result.stderr.split())


def test_agreement_is_refused_when_no_kind_has_enough_items(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"at least 3 of a kind .* modality, expert: left out, 1 of at least 3"):
        compare(tmp_path, f"{HEADER}modality,static,,1\n")


def test_agreement_is_refused_on_features_when_the_run_explained_modalities_only(tmp_path: Path) -> None:
    rows = "feature,vitals,hr_bpm last,1\nfeature,vitals,spo2_pct min,2\nfeature,drugs,opioid,3\n"
    with pytest.raises(StudyError, match="not explained in the run: drugs: opioid"):
        compare(tmp_path, HEADER + rows, features={})


def test_agreement_is_refused_on_fewer_than_one_first_item(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="--top at agreement: expected at least 1, got 0"):
        compare(tmp_path, HEADER + MODALITIES, top=0)


@pytest.mark.parametrize("name", ["expert.csv", "run/explanations.json", "run"])
def test_command_keeps_what_it_reads_when_out_names_it(tmp_path: Path, name: str) -> None:
    run, table = write_run(tmp_path, explanation(), expert=HEADER + MODALITIES)
    before = sorted((path, path.is_dir() or path.read_bytes()) for path in tmp_path.rglob("*"))
    result = invoke(run, table, "--out", str(tmp_path / name))

    assert result.exit_code == 1
    assert "--out at" in result.stderr
    assert sorted((path, path.is_dir() or path.read_bytes()) for path in tmp_path.rglob("*")) == before
