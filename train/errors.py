"""The exceptions that the command line turns into one line each."""

import difflib
from collections.abc import Iterable
from typing import Any


class UsageError(ValueError):
  """A mistake in what the user asked for.

  The command line prints its message as one line and exits with code 2; so the
  message holds the numbers and, where possible, the cure.
  """


class NonFiniteError(RuntimeError):
  """The loss or the gradient of a step is not finite; exit code 1.

  Attributes:
    data_state: Where the input stands behind that step's images; None until
      who knows it has set it.
  """

  data_state: dict[str, Any] | None = None


class SaveError(RuntimeError):
  """A checkpoint that could not be written; those before it are whole.

  Exit code 1, where it is that of the last step.
  """


def one_line(error: Exception) -> str:
  """What an error says, without its line ends.

  >>> one_line(ValueError(" a   b "))
  'a b'
  """
  return " ".join(str(error).split())


def printable(text: str) -> str:
  r"""Escape what does not print, such as a line end in the name of a file.

  >>> print(printable("a folder\nready"))
  a folder\nready
  """
  return "".join(
    c if c.isprintable() else c.encode("unicode_escape").decode() for c in text
  )


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UsageError:
  """The error for a name that is not in `known`, with the nearest that are.

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
