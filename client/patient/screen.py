"""A patient's explanation in a few lines on the screen, and as a file that only its owner reads."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from client.patient_page.content import read_explanation
from client.patient_page.page import page_words
from client.patient_page.sections.verdict import describe_verdict
from shared_model.errors import SiteError
from shared_model.pages.screen_table import print_table
from shared_model.process.files import replace_file

N_FEATURES = 8


def print_explanation(console: Console, content: Mapping[str, Any]) -> None:
    """Reasons to trust it or not, then risk, modalities and the largest features, against the common background."""
    verdict = describe_verdict(read_explanation(content), page_words())
    console.print(Text(verdict.headline, style="bold"))
    view = content["views"]["common"]
    risk, base = content["prediction"]["probability"], view["base_probability"]
    console.print(f"risk of the outcome {risk:.1%}; mean of the reference patients {base:.1%}", highlight=False)
    part = content["part_of_run"]
    console.print(
        f"this patient was in the run's {part} part" if part else "not known whether the run saw this patient",
        highlight=False,
    )
    modalities = []
    for entry in sorted(view["modalities"], key=lambda entry: -abs(entry["phi"])):
        share = "-" if entry["share"] is None else f"{entry['share']:.0%}"
        label = entry["name"] if entry["present"] else f"no {entry['name']}"
        modalities.append((label, f"{entry['phi']:+.3f}", share))
    print_table(console, ("modality", "log odds", "share"), modalities)
    found = [(entry["name"], feature) for entry in view["modalities"] for feature in entry["features"]]
    features = [
        (f"{modality}: {feature['name']}", _value(feature), f"{feature['phi']:+.3f}")
        for modality, feature in sorted(found, key=lambda pair: -abs(pair[1]["phi"]))[:N_FEATURES]
    ]
    print_table(console, ("feature", "value", "log odds"), features)


def _value(feature: Mapping[str, Any]) -> str:
    value = feature["value"]
    text = "-" if value is None else value if isinstance(value, str) else f"{value:.4g}"
    return f"{text} {feature['unit']}".strip()


def write_private(path: Path, text: str) -> None:
    """Write a file whole, readable by its owner only.

    Raises:
        SiteError: the disk or the folder's permissions do not let it.
    """
    try:
        replace_file(path, text.encode(), mode=0o600)
    except OSError as error:
        raise SiteError(f"{path}: expected a place to write to, got: {error.strerror}. Choose another.") from error
