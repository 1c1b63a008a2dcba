"""Which implementation of an op runs: the one place that decides."""

import difflib
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, get_args

Implementation = Literal["xla", "pallas_tpu"]
Requested = Implementation | Sequence[Implementation] | None

NAMES: tuple[Implementation, ...] = get_args(Implementation)


def dispatch[Result](
  op: str,
  implementations: Mapping[str, Callable[..., Result]],
  requested: Requested,
  *args: object,
  **kwargs: object,
) -> Result:
  """Runs an op by the first requested implementation that can do it.

  Args:
    op: The op's name, for messages.
    implementations: What the op has. The order is that of preference where
      nothing is requested.
    requested: One name, which never falls back; a sequence, tried in order; or
      None for `implementations` in order.
    *args: Passed to the implementation.
    **kwargs: Passed to the implementation.

  Returns:
    What the implementation returns.

  Raises:
    ValueError: a name is not an implementation's.
    NotImplementedError: the one implementation asked cannot do this.
    ExceptionGroup: several were asked and none can.
  """
  errors = []
  for name in _names(op, implementations, requested):
    try:
      return _find(op, implementations, name)(*args, **kwargs)
    except NotImplementedError as error:
      errors.append(error)
  if len(errors) == 1:
    raise errors[0]
  raise ExceptionGroup(f"{op}: no implementation can do this", errors)


def _names(op, implementations, requested) -> list[str]:
  if requested is None:
    return list(implementations)
  names = [requested] if isinstance(requested, str) else list(requested)
  if not names:
    raise ValueError(f"{op}: implementation is an empty sequence")
  for name in names:
    if name not in NAMES:
      near = difflib.get_close_matches(str(name), NAMES, n=1) or NAMES
      raise ValueError(
        f"{op}: unknown implementation {name!r}; did you mean "
        f"{' or '.join(map(repr, near))}?"
      )
  return names


def _find(op, implementations, name):
  try:
    return implementations[name]
  except KeyError:
    raise NotImplementedError(
      f"{op} has no {name!r} implementation; it has: "
      f"{', '.join(implementations)}"
    ) from None
