"""Settings table of simulation/README.md, made from config.py: `python -m tests.shared_model.settings_table`."""

from pathlib import Path
from typing import Literal, get_args, get_origin

from pydantic.fields import FieldInfo

from shared_model.config import IMAGE_ENCODERS, STRATEGIES, Settings

GUIDE = Path(__file__).parents[2] / "simulation" / "README.md"
BEGIN, END = "<!-- settings: made from shared_model/config.py -->\n", "<!-- end of settings -->\n"
_LIMITS = {"ge": "from", "gt": "above", "le": "to", "lt": "below"}
_NAMED = {"strategy": STRATEGIES, "image_encoder": IMAGE_ENCODERS}


def make_table() -> str:
    """A row a setting: name, default, legal values, meaning."""
    rows = [
        f"| `{name.replace('_', '-')}` | {_show(field.default)} | {_legal(name, field)} | {field.description or ''} |"
        for name, field in Settings.model_fields.items()
    ]
    return "\n".join(["| setting | default | values | meaning |", "|---|---|---|---|", *rows]) + "\n"


def _show(value: object) -> str:
    if value == "":
        return "empty"
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)


def _legal(name: str, field: FieldInfo) -> str:
    if name in _NAMED:
        return ", ".join(_NAMED[name])
    if get_origin(field.annotation) is Literal:
        return ", ".join(get_args(field.annotation))
    if field.annotation is bool:
        return "true, false"
    if field.annotation is str:
        return "text"
    limits = {key: getattr(limit, key) for limit in field.metadata for key in _LIMITS if hasattr(limit, key)}
    return " ".join(f"{word} {limits[key]}" for key, word in _LIMITS.items() if key in limits)


def with_table(text: str) -> str:
    """The guide with the table as it should be."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return before + BEGIN + make_table() + END + after


if __name__ == "__main__":
    GUIDE.write_text(with_table(GUIDE.read_text(encoding="utf-8")), encoding="utf-8")
