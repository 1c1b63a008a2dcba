"""The reference has every public name, and the pages agree with the code."""

import importlib
import importlib.util
import re

import pytest
import yaml
from support.doc_pages import PAGES, ROOT

import podscale
from podscale.train.settings.arguments import _flag_names
from podscale.train.settings.config import Config
from podscale.train.settings.presets import PRESETS

_OBJECT = re.compile(r"(?m)^::: (podscale[\w.]*)$")


def load(path):
  spec = importlib.util.spec_from_file_location(path.stem, path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def found(identifier):
  """Return the object that a reference page names."""
  module, _, name = identifier.rpartition(".")
  return getattr(importlib.import_module(module), name)


def documented():
  texts = [page.read_text(encoding="utf-8") for page in PAGES]
  return [name for text in texts for name in _OBJECT.findall(text)]


def public_names(module):
  if hasattr(module, "__all__"):
    return module.__all__
  return [
    name
    for name, value in vars(module).items()
    if not name.startswith("_")
    and getattr(value, "__module__", None) == module.__name__
  ]


def test_the_table_of_implementations_is_made_from_the_code():
  page = load(ROOT / "docs" / "implementation_table.py")
  head, _, *rows = page.table().splitlines()
  columns = [cell.strip() for cell in head.strip("|").split("|")]
  cells = [
    dict(
      zip(columns, (c.strip() for c in r.strip("|").split("|")), strict=True)
    )
    for r in rows
  ]
  by_call = {row["call"]: row for row in cells}
  assert by_call["3x3, stride 1"]["v5e"] == "kernel"
  assert by_call["3x3, stride 1"]["v4"] == "XLA"
  assert by_call["3x3, NHWC, 128 images"]["v3"] == "kernel"
  named = {row["call"]: row["the kernel, if it is named"] for row in cells}
  assert named["9x9"] == "does not support 9x9 filters"
  assert named["3x3, m = 2"] == "runs"


@pytest.mark.parametrize(
  "name",
  [
    "podscale.kernels",
    "podscale.collectives",
    "podscale.model",
    "podscale.train.optimizer",
    "podscale.train.data",
    "podscale.bench.estimated.static",
  ],
)
def test_every_public_name_is_in_the_reference(name):
  module = importlib.import_module(name)
  identifiers = [i for i in documented() if i.startswith(f"{name}.")]
  names = public_names(module)
  assert len(names) >= 5
  for public in names:
    entries = [i for i in identifiers if i.rpartition(".")[2] == public]
    assert len(entries) == 1, public
    value = getattr(module, public)
    assert found(entries[0]) is value or found(entries[0]) == value, public


def test_the_reference_names_nothing_twice():
  identifiers = documented()
  assert len(identifiers) == len(set(identifiers))


def test_pictures_are_what_their_script_draws():
  folder = ROOT / "docs" / "figures"
  pictures = load(folder / "draw.py").PICTURES
  for name, draw in pictures.items():
    assert (folder / name).read_text(encoding="utf-8") == draw()


@pytest.mark.parametrize(
  ("docstring", "markdown"),
  [
    (
      "A.\n\n>>> 1\n1\n>>> 2\n2\n\nB.",
      "A.\n\n```pycon\n>>> 1\n1\n>>> 2\n2\n```\n\nB.",
    ),
    (
      "A::\n\n  x\n    y\n\n  z\n\nB.",
      "A:\n\n```python\nx\n  y\n\nz\n```\n\nB.",
    ),
    ("A:\n\n    x", "A:\n\n```python\nx\n```\n"),
    ("A.\n\nReturns:\n  B: 1.\n\nC.", "A.\n\nReturns:\n  B&#58; 1.\n\nC."),
    ("A.\n\nArgs:\n  b: c.\n\n  d: e.", "A.\n\nArgs:\n  b: c.\n\n  d: e."),
  ],
)
def test_docstrings_become_markdown(docstring, markdown):
  blocks = load(ROOT / "docs" / "docstring_blocks.py")
  assert blocks.to_markdown(docstring) == markdown


def test_the_tables_have_all_presets_and_flags():
  tables = load(ROOT / "docs" / "tables.py")
  rows = tables.preset_table().splitlines()
  assert len(rows) == len(PRESETS) + 2
  assert any(row.startswith("| `b5-64k` | 65,536 |") for row in rows)
  flags = tables.flag_tables()
  for name in _flag_names(Config()):
    assert flags.count(f"| `{name}` |") == 1
  assert "|  |" not in flags


def test_the_site_loads_nothing_from_elsewhere():
  text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
  assert "\n  font: false" in text
  assert "http" not in text


def test_versions_agree():
  version = podscale.__version__
  project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
  citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
  changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
  assert 'version = {attr = "podscale.__version__"}' in project
  assert citation["version"] == version
  assert f"\n## {version} - " in changes


def test_the_glossary_is_sorted_and_has_no_word_twice():
  text = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
  seen = set()
  for section in text.split("\n## ")[1:]:
    entries = section.split("\n\n")[1:]
    words = [entry.splitlines()[0] for entry in entries]
    assert words == sorted(words, key=str.lower)
    assert all(entry.splitlines()[1].startswith(":   ") for entry in entries)
    assert not seen & set(words)
    seen |= set(words)
