"""Show a hospital's data quality on its own screen."""

from rich.console import Console
from rich.text import Text

from shared_model.quality.checks import ALONE, CORRELATED, LIMITS, QualityReport, worst

_STYLE = {"red": "bold red", "amber": "yellow", "green": "green"}


def print_quality(console: Console, report: QualityReport) -> None:
    """The grade, then a line for each finding: what, where, the number and its limit."""
    found = [finding for finding in report.findings if finding.check != CORRELATED]
    pairs = [finding for finding in report.findings if finding.check == CORRELATED]
    grade = worst(finding.grade for finding in found)  # that a pair goes together may be so everywhere
    console.print(Text(f"  data quality, judged alone: {grade}", style=_STYLE[grade]))
    for finding in found:
        number = ALONE.get(finding.check, LIMITS[finding.check]).number
        console.print(Text(f"  {finding.grade}: {finding}: {number}", style=_STYLE[finding.grade]), soft_wrap=True)
    for finding in pairs:
        told = f"  note: {finding.modality}: {finding.item} have a correlation of {finding.value:g}"
        console.print(Text(f"{told} and split their attribution", style="yellow"), soft_wrap=True)
