"""Damaged copies of files, and a count of how a reader takes them."""

import collections
import reprlib
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

from podscale.train.data.source import BadExampleError
from podscale.train.errors import UsageError

REFUSED, RIGHT, WRONG = "refused", "accepted right", "accepted wrong"
_REFUSALS = (UsageError, BadExampleError)
_LONGEST_EDIT = 64  # bytes
_MOST_EDITS = 3


@st.composite
def mutants(draw, originals: list[bytes]) -> bytes:
  """Draw one of the originals and damage it in one to three places."""
  data = draw(st.sampled_from(originals))
  for _ in range(draw(st.integers(1, _MOST_EDITS))):
    data = draw(_edited(data))
  return data


@st.composite
def _edited(draw, data: bytes) -> bytes:
  start = draw(st.integers(0, max(len(data) - 1, 0)))
  length = draw(st.integers(1, _LONGEST_EDIT))
  before, there, after = (
    data[:start],
    data[start : start + length],
    data[start + length :],
  )
  match draw(
    st.sampled_from(
      ["flip", "set", "cut", "insert", "delete", "zero", "repeat", "move"]
    )
  ):
    case "flip" if there:
      flipped = there[0] ^ (1 << draw(st.integers(0, 7)))
      return before + bytes([flipped]) + there[1:] + after
    case "set":
      return before + draw(st.binary(max_size=len(there))) + after
    case "cut":
      return before
    case "insert":
      return before + draw(st.binary(max_size=length)) + there + after
    case "delete":
      return before + after
    case "zero":
      return before + bytes(len(there)) + after
    case "repeat":
      return before + there + there + after
    case _:
      return before + after + there


@st.composite
def json_mutants(draw, record: Any) -> Any:
  """Draw a JSON value like `record` with one value replaced or deleted."""
  if isinstance(record, dict | list) and record and draw(st.booleans()):
    copy = record.copy()
    keys = list(record) if isinstance(record, dict) else range(len(record))
    key = draw(st.sampled_from(list(keys)))
    if draw(st.integers(0, 4)):
      copy[key] = draw(json_mutants(record[key]))
    else:
      del copy[key]
    return copy
  return draw(JSON_VALUES)


JSON_VALUES = st.recursive(
  st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([0, -1, 2**31, 2**63, 10**22, 10**400]),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(["../x", "a/b", "\0", "train", "9" * 30]),
  ),
  lambda inner: st.one_of(
    st.lists(inner, max_size=3),
    st.dictionaries(st.text(max_size=4), inner, max_size=3),
  ),
  max_leaves=6,
)


class Tally:
  """Counts of mutants that a reader refused, read right and read wrong."""

  def __init__(self):
    self.counts = collections.Counter()

  def read(self, read: Callable[[], Any]) -> Any:
    """Call a reader; return None if it refuses with a one-line message."""
    try:
      result = read()
    except _REFUSALS as error:
      assert str(error).strip(), "an error without a message"
      assert "\n" not in str(error), error
      self.counts[REFUSED] += 1
      return None
    return result

  def compare(self, found: Any, expected: Any) -> None:
    """Count an accepted mutant; fail if the result is not the expected one."""
    right = found == expected
    self.counts[RIGHT if right else WRONG] += 1
    assert right, (
      f"accepted {reprlib.repr(found)}, the reference has "
      f"{reprlib.repr(expected)}"
    )

  def __str__(self):
    counts = {name: self.counts[name] for name in (REFUSED, RIGHT, WRONG)}
    each = ", ".join(f"{count:,} {name}" for name, count in counts.items())
    return f"{sum(counts.values()):,} mutants: {each}"
