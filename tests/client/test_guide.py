"""What the hospital's guide shows is true."""

import re
from pathlib import Path

from shared_model.schema import parse_schema

GUIDE = Path(__file__).resolve().parents[2] / "client" / "DATA.md"


def test_schema_of_the_guide_is_a_valid_study_with_every_kind_of_modality() -> None:
    (example,) = re.findall(r"```toml\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)

    schema = parse_schema(example, source="client/DATA.md")

    assert schema.modalities == ("static", "vitals", "medications", "hip")
    assert {column.kind for column in schema.static} == {"numeric", "binary", "categorical"}
    assert schema.events["medications"].recorded == "medications_recorded"
