"""The numbers of the command line."""

import argparse
import reprlib
from collections.abc import Callable


def bounded_integer(least: int, most: int) -> Callable[[str], int]:
  """Make a reader of whole numbers, for `argparse`.

  Raises:
    argparse.ArgumentTypeError: from the reader, if the text is no such number.

  >>> bounded_integer(1, 10)("7")
  7
  """

  def read(text: str) -> int:
    try:
      number = int(text)
    except ValueError:  # no number, or of thousands of digits
      number = least - 1
    if not least <= number <= most:
      raise argparse.ArgumentTypeError(
        f"must be a whole number from {least:,} to {most:,}, got "
        f"{reprlib.repr(text)}"
      )
    return number

  return read
