"""Check that docstrings open with a verb or a noun: part of `make lint`.

Usage: python tests/lint/docstring_openers.py FOLDER...

Three kinds of line may not open with one of `OPENERS`: the first line of a
docstring, the description of an argument or attribute, and, where the opener is
capitalised, any other line. ruff's D401 checks that first lines of functions
are imperative.
"""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

OPENERS = ("Of", "As", "Those", "What", "How", "Where", "Which", "Whether")
_WORD = re.compile(r"[A-Za-z]+")
_ARGUMENT = re.compile(r"\*{0,2}\w+(, \*{0,2}\w+)*: +(?P<text>.*)")


def docstrings(source: str) -> Iterator[tuple[int, str]]:
  """Yield the line number and text of each docstring, of attributes too."""
  for node in ast.walk(ast.parse(source)):
    body = getattr(node, "body", None)
    for statement in body if isinstance(body, list) else []:
      match statement:
        case ast.Expr(value=ast.Constant(value=str(text))):
          yield statement.lineno, text


def findings(source: str) -> Iterator[tuple[int, str]]:
  """Yield the line number and text of each line that opens badly."""
  for first, text in docstrings(source):
    for i, line in enumerate(text.splitlines()):
      line = line.strip()
      argument = _ARGUMENT.fullmatch(line)
      described = argument["text"] if argument else line
      word = _WORD.match(described)
      if word is None:
        continue
      any_case = i == 0 or argument is not None
      opener = word[0].capitalize() if any_case else word[0]
      if opener in OPENERS:
        yield first + i, line


def main(folders: list[str]) -> int:
  """Print each finding; return 1 if there is one, else 0."""
  found = 0
  for folder in folders:
    for path in sorted(Path(folder).rglob("*.py")):
      for number, line in findings(path.read_text()):
        print(f"{path}:{number}: {line}")
        found += 1
  if found:
    print(f"{found} lines open with one of {', '.join(OPENERS)}")
  return int(found > 0)


if __name__ == "__main__":
  raise SystemExit(main(sys.argv[1:]))
