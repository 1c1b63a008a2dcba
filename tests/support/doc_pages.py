"""Pages of the documentation, and what they name."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [
  ROOT / "README.md",
  ROOT / "CONTRIBUTING.md",
  *sorted((ROOT / "docs").rglob("*.md")),
]


def name_of(page: Path) -> str:
  """Return a page's path in the repository, for names of tests."""
  return str(page.relative_to(ROOT))


def text_of(page: Path) -> str:
  """Return the text of a page with its continued lines joined."""
  return re.sub(r"\\\n\s*", " ", page.read_text(encoding="utf-8"))
