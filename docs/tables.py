"""MkDocs hook: write tables of presets and of flags into their pages."""

import ast
import dataclasses
import inspect
from typing import Any

from podscale.train.settings.config import Config
from podscale.train.settings.presets import DESCRIPTIONS, PRESETS


def on_page_markdown(markdown: str, **kwargs: Any) -> str:
  """Put the tables where a page has a comment with their name."""
  del kwargs
  if "<!-- presets -->" in markdown:
    markdown = markdown.replace("<!-- presets -->", preset_table())
  if "<!-- flags -->" in markdown:
    markdown = markdown.replace("<!-- flags -->", flag_tables())
  return markdown


def preset_table() -> str:
  """Return a table with one row for each preset."""
  rows = [
    f"| `{name}` | {config.batch_size:,} | {DESCRIPTIONS[name]} |"
    for name, config in PRESETS.items()
  ]
  head = "| preset | images a step | recipe and expected accuracy |"
  return "\n".join([head, "|---|---|---|", *rows])


def flag_tables() -> str:
  """Return a table of flags for the run and for each part of its settings."""
  config = Config()
  parts = {"The run": _flag_table(config, "--")}
  for field in dataclasses.fields(config):
    value = getattr(config, field.name)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
      name = field.name.replace("_", "-")
      parts[f"--{name}"] = _flag_table(value, f"--{name}.")
  return "\n\n".join(f"## {title}\n\n{rows}" for title, rows in parts.items())


def _flag_table(settings: Any, prefix: str) -> str:
  texts = _field_docstrings(type(settings))
  rows = []
  for field in dataclasses.fields(settings):
    value = getattr(settings, field.name)
    if not dataclasses.is_dataclass(value):
      flag = prefix + field.name.replace("_", "-")
      text = texts.get(field.name, "")
      rows.append(f"| `{flag}` | `{value}` | {text} |")
  return "\n".join(["| flag | default | meaning |", "|---|---|---|", *rows])


def _field_docstrings(cls: type) -> dict[str, str]:
  """Return the text below each field of a dataclass, on one line."""
  (tree,) = ast.parse(inspect.getsource(cls)).body
  assert isinstance(tree, ast.ClassDef)
  texts = {}
  for field, below in zip(tree.body, tree.body[1:], strict=False):
    match field, below:
      case (
        ast.AnnAssign(target=ast.Name(id=name)),
        ast.Expr(value=ast.Constant(value=str(text))),
      ):
        texts[name] = " ".join(text.split())
  return texts
