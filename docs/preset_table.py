"""MkDocs hook: write the table of presets into the page of commands."""

from typing import Any

from podscale.train.settings.presets import DESCRIPTIONS, PRESETS

_PLACE = "<!-- presets -->"


def on_page_markdown(markdown: str, **kwargs: Any) -> str:
  """Put the table where a page has the comment `presets`."""
  del kwargs
  return markdown.replace(_PLACE, preset_table())


def preset_table() -> str:
  """Return one row for each preset."""
  rows = [
    f"| `{name}` | {config.batch_size:,} | {DESCRIPTIONS[name]} |"
    for name, config in PRESETS.items()
  ]
  head = "| preset | images a step | recipe and expected accuracy |"
  return "\n".join([head, "|---|---|---|", *rows])
