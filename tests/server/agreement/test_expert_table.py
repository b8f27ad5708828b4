from pathlib import Path

import pytest

from server.agreement.expert_table import read_expert_table
from server.run_folder.explained_items import ExplainedItem
from shared_model.errors import DataError

HEADER = "kind,modality,feature,rank\n"
NAMES = {"static": frozenset({"age_years", "male"}), "vitals": frozenset({"hr_bpm last"}), "image": None}


def problems_of(tmp_path: Path, content: str | bytes) -> list[tuple[int, str, str]]:
    path = tmp_path / "expert.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError) as caught:
        read_expert_table(path, names=NAMES)
    return [(problem.row, problem.column, problem.rule) for problem in caught.value.problems]


def test_table_with_ranks_and_table_with_points_say_the_same_order(tmp_path: Path) -> None:
    rows = "kind,modality,feature,{}\nmodality,vitals,,{}\nfeature,static,age_years,{}\n"
    for name, cells in {"ranks": ("rank", "1", "2.5"), "points": ("points", "9", "0")}.items():
        (tmp_path / name).write_text(rows.format(*cells))
    ranks, points = (read_expert_table(tmp_path / name, names=NAMES) for name in ("ranks", "points"))

    assert ranks.scores == {"expert": {ExplainedItem("vitals"): -1.0, ExplainedItem("static", "age_years"): -2.5}}
    assert points.scores == {"expert": {ExplainedItem("vitals"): 9.0, ExplainedItem("static", "age_years"): 0.0}}


def test_table_as_a_spreadsheet_saves_it_is_read(tmp_path: Path) -> None:
    content = "kind,modality,feature,rank,expert\r\nmodality,vitals,, 1 ,Dr A\r\n,,,,\r\nmodality,vitals,,1,Dr B\r\n"
    (tmp_path / "expert.csv").write_text("\ufeff" + content)
    table = read_expert_table(tmp_path / "expert.csv", names=NAMES)

    assert table.scores == {"Dr A": {ExplainedItem("vitals"): -1.0}, "Dr B": {ExplainedItem("vitals"): -1.0}}


def test_table_takes_any_feature_of_a_modality_whose_features_are_not_known(tmp_path: Path) -> None:
    (tmp_path / "expert.csv").write_text(f"{HEADER}feature,image,left hip,1\n")

    assert read_expert_table(tmp_path / "expert.csv", names=NAMES).scores["expert"] == {
        ExplainedItem("image", "left hip"): -1.0
    }


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", (0, "", "empty-file")),
        (" \n\n", (0, "", "empty-file")),
        (HEADER, (0, "", "no-rows")),
        (HEADER.encode() + b"modality,vit\xe4ls,,1\n", (2, "", "not-utf-8")),
        (f'{HEADER}modality,"vitals,,1\n', (2, "", "malformed-csv")),
        ("kind;modality;feature;rank\n", (1, "kind", "missing-column")),
        ("kind,modality,feature\nmodality,vitals,\n", (1, "", "rank-or-points")),
        ("kind,modality,feature,rank,points\nmodality,vitals,,1,2\n", (1, "", "rank-or-points")),
        ("kind,modality,feature,rank,experts\nmodality,vitals,,1,A\n", (1, "experts", "unknown-column")),
        ("kind,modality,feature,rank,rank\nmodality,vitals,,1,1\n", (1, "rank", "duplicate-column")),
        ("kind,modality,feature,rank,expert\nmodality,vitals,,1,\n", (2, "expert", "missing-value")),
        (f"{HEADER}modality,vitals,1\n", (2, "", "row-length")),
        (f"{HEADER}organ,vitals,,1\n", (2, "kind", "unknown-kind")),
        (f"{HEADER}modality,vital,,1\n", (2, "modality", "unknown-modality")),
        (f"{HEADER}feature,static,age,1\n", (2, "feature", "unknown-feature")),
        (f"{HEADER}feature,vitals,age_years,1\n", (2, "feature", "unknown-feature")),
        (f"{HEADER}feature,static,,1\n", (2, "feature", "missing-value")),
        (f"{HEADER}modality,static,male,1\n", (2, "feature", "not-empty")),
        (f"{HEADER}modality,vitals,,\n", (2, "rank", "missing-value")),
        (f"{HEADER}modality,vitals,,first\n", (2, "rank", "not-a-number")),
        (f"{HEADER}modality,vitals,,nan\n", (2, "rank", "not-a-number")),
        (f"{HEADER}modality,vitals,,1_0\n", (2, "rank", "not-a-number")),
        (f"{HEADER}modality,vitals,,0\n", (2, "rank", "out-of-range")),
        (HEADER.replace("rank", "points") + "modality,vitals,,-1\n", (2, "points", "out-of-range")),
        (f"{HEADER}modality,vitals,,1\nmodality,vitals,,2\n", (3, "", "duplicate-row")),
    ],
)
def test_table_with_a_fault_is_refused(tmp_path: Path, content: str | bytes, expected: tuple[int, str, str]) -> None:
    assert expected in problems_of(tmp_path, content)


def test_table_with_many_faults_is_refused_with_all_of_them_at_once(tmp_path: Path) -> None:
    content = f"{HEADER}modality,vital,,one\n\nfeature,static,age,0\nmodality,static,,1\nmodality,static,,\n"

    assert problems_of(tmp_path, content) == [
        (2, "modality", "unknown-modality"),
        (2, "rank", "not-a-number"),
        (4, "feature", "unknown-feature"),
        (4, "rank", "out-of-range"),
        (6, "", "duplicate-row"),
        (6, "rank", "missing-value"),
    ]


def test_refused_name_is_shown_with_the_names_that_are_like_it(tmp_path: Path) -> None:
    (tmp_path / "expert.csv").write_text(f"{HEADER}feature,static,age_year,1\n")
    with pytest.raises(DataError, match=r"got 'age_year'\. Spell it as explanations.json does: age_years"):
        read_expert_table(tmp_path / "expert.csv", names=NAMES)
