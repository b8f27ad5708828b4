"""Links of the guides lead to files that there are."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(path for path in ROOT.glob("**/*.md") if ".venv" not in path.parts)
LINK = re.compile(r"\]\(([^)#\s:]+)(?:#[^)]*)?\)")


def test_every_link_to_a_file_of_the_project_leads_there() -> None:
    links = [(page, target) for page in PAGES for target in LINK.findall(page.read_text(encoding="utf-8"))]

    assert [(page.name, target) for page, target in links if not (page.parent / target).exists()] == []
    assert len(links) > 50
