"""Griffe extension: doctests and code blocks of docstrings as Markdown."""

import re
import textwrap
from typing import Any

import griffe

_DOCTEST = re.compile(r"(?m)^>>> .*(?:\n(?!\s*$).*)*")
_SECTION = re.compile(r"(?m)^(?:Args|Attributes|Returns|Yields|Raises):$")
# Paragraphs of indented lines only, with the blank lines between them.
_INDENTED = re.compile(r"(?m)(?<=\n\n)(?: {2,}\S.*(?:\n|\Z)|\n(?= {2,}\S))+")
_RETURNS = re.compile(r"(?m)^(?:Returns|Yields):\n(?:(?:[ \t].*)?(?:\n|\Z))+")


class DocstringBlocks(griffe.Extension):
  """Fence code, so that it renders as code and not as text or quotation."""

  def on_instance(self, *, obj: griffe.Object, **kwargs: Any) -> None:
    """Rewrite the docstring of an object that griffe has loaded."""
    del kwargs
    if obj.docstring is not None:
      obj.docstring.value = to_markdown(obj.docstring.value)


def to_markdown(text: str) -> str:
  """Return a docstring with fenced code, and without reST's `::`.

  Colons in the description of a result become entities: griffe would take what
  is before one for the type, which the signature has.
  """
  section = _SECTION.search(text)
  begin = section.start() if section else len(text)
  before = _INDENTED.sub(_fenced, text[:begin])
  text = re.sub(r"(?m)::$", ":", before) + text[begin:]
  text = _DOCTEST.sub(lambda match: f"```pycon\n{match[0]}\n```", text)
  return _RETURNS.sub(lambda match: match[0].replace(": ", "&#58; "), text)


def _fenced(match: re.Match[str]) -> str:
  return f"```python\n{textwrap.dedent(match[0]).rstrip()}\n```\n"
