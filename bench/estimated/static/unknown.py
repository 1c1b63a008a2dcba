"""The value of what cannot be known without the tensors' data.

Anything computed from it is unknown too, except that `True | UNKNOWN` is true.
Deciding by it is an error: whoever branches asks `is UNKNOWN` first.
"""

from typing import Any, NoReturn


class Unknown:
  """The type of `UNKNOWN`.

  >>> UNKNOWN + 1 & 7 is UNKNOWN
  True
  >>> True | UNKNOWN, False | UNKNOWN
  (True, UNKNOWN)
  """

  def __repr__(self) -> str:
    return "UNKNOWN"

  def __bool__(self) -> NoReturn:
    raise TypeError("an unknown value cannot decide")

  def _same(self, other: Any) -> "Unknown":
    return self

  def __or__(self, other: Any) -> "bool | Unknown":
    return True if other is True else self

  __ror__ = __or__
  __hash__ = object.__hash__
  __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = _same
  __and__ = __rand__ = __xor__ = __rxor__ = _same
  __lshift__ = __rlshift__ = __rshift__ = __rrshift__ = _same
  __lt__ = __le__ = __gt__ = __ge__ = _same
  __eq__ = __ne__ = _same  # type: ignore[assignment]


UNKNOWN = Unknown()
