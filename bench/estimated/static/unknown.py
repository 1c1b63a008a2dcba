"""A value that cannot be known without the tensors' data.

Results computed from it are unknown too, except that `True | UNKNOWN` is true.
Its truth value is an error: code that branches first tests `is UNKNOWN`.
"""

from typing import Any, NoReturn


class Unknown:
  """Type of `UNKNOWN`.

  >>> UNKNOWN + 1 & 7 is UNKNOWN
  True
  >>> True | UNKNOWN, False | UNKNOWN
  (True, UNKNOWN)
  """

  def __repr__(self) -> str:
    return "UNKNOWN"

  def __bool__(self) -> NoReturn:
    raise TypeError("an unknown value has no truth value; test `is UNKNOWN`")

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
