"""Types of the command line's arguments."""

import argparse
import reprlib
from collections.abc import Callable


def bounded_integer(least: int, most: int) -> Callable[[str], int]:
  """Make a type of integers from `least` to `most` for `argparse`.

  Returns:
    A function from text to integer. It raises `argparse.ArgumentTypeError` for
    any other text.

  >>> bounded_integer(1, 10)("7")
  7
  """

  def read(text: str) -> int:
    try:
      number = int(text)
    except ValueError:  # no number, or thousands of digits
      number = least - 1
    if not least <= number <= most:
      raise argparse.ArgumentTypeError(
        f"must be a whole number from {least:,} to {most:,}, got "
        f"{reprlib.repr(text)}"
      )
    return number

  return read
