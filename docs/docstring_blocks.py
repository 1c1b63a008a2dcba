"""Griffe extension: doctests and literal blocks of docstrings as Markdown."""

import re
from typing import Any

import griffe

_DOCTEST = re.compile(r"(?m)^>>> .*(?:\n(?!\s*$).*)*")
_INLINE_LITERAL = re.compile(r"(?m)::$")
_RETURNS = re.compile(r"(?m)^(?:Returns|Yields):\n(?:(?:[ \t].*)?(?:\n|\Z))+")


class DocstringBlocks(griffe.Extension):
  """Fence every doctest, so that it renders as code and not as a quotation."""

  def on_instance(self, *, obj: griffe.Object, **kwargs: Any) -> None:
    """Rewrite the docstring of an object that griffe has loaded."""
    del kwargs
    if obj.docstring is not None:
      obj.docstring.value = to_markdown(obj.docstring.value)


def to_markdown(text: str) -> str:
  """Return a docstring with fenced doctests and without reST's `::`.

  Colons in the description of a result become entities: griffe would take what
  is before one for the type, which the signature has.
  """
  text = _DOCTEST.sub(lambda match: f"```pycon\n{match[0]}\n```", text)
  text = _INLINE_LITERAL.sub(":", text)
  return _RETURNS.sub(lambda match: match[0].replace(": ", "&#58; "), text)
