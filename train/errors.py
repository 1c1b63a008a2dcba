"""Exceptions that the command line prints as one line."""

import difflib
from collections.abc import Iterable
from typing import Any


class UsageError(ValueError):
  """Error in the user's request, such as a setting, a file or a folder.

  The command line prints its message as one line and exits with code 2. The
  message holds the numbers and, if possible, the cure.
  """


class NonFiniteError(RuntimeError):
  """Loss or gradient that is not finite; exit code 1.

  Attributes:
    data_state: Position of the input after that step's images; None until the
      training loop sets it.
  """

  data_state: dict[str, Any] | None = None


class SaveError(RuntimeError):
  """Checkpoint that could not be written; older checkpoints are intact.

  The command line exits with code 1 if it is the checkpoint of the last step.
  """


def one_line(error: Exception) -> str:
  """Return the text of an error in one line.

  >>> one_line(ValueError(" a   b "))
  'a b'
  """
  return " ".join(str(error).split())


def printable(text: str) -> str:
  r"""Escape characters that do not print, such as a newline in a file's name.

  >>> print(printable("a folder\nready"))
  a folder\nready
  """
  return "".join(
    c if c.isprintable() else c.encode("unicode_escape").decode() for c in text
  )


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UsageError:
  """Make the error for an unknown name, with the nearest known names.

  Args:
    kind: Kind of thing that has the name, such as "preset".
    name: Unknown name.
    known: Known names.

  >>> str(unknown_name("preset", "b5-64", ["b0", "b5-64k", "demo"]))
  "unknown preset 'b5-64'; did you mean 'b5-64k'?"
  >>> str(unknown_name("preset", "resnet", ["b0", "demo"]))
  "unknown preset 'resnet'; choose one of: b0, demo"
  """
  known = list(known)
  near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
  if near:
    cure = f"did you mean {' or '.join(map(repr, near))}?"
  else:
    cure = f"choose one of: {', '.join(known)}"
  return UsageError(f"unknown {kind} {name!r}; {cure}")
