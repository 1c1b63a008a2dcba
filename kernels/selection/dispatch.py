"""Which implementation of an op runs: the one place that decides."""

import contextlib
import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from typing import Literal, get_args

Implementation = Literal["xla", "pallas_tpu"]
Requested = Implementation | Sequence[Implementation] | None

NAMES: tuple[Implementation, ...] = get_args(Implementation)

_default: ContextVar[Requested] = ContextVar("_default", default=None)


@contextlib.contextmanager
def default_implementation(requested: Requested) -> Iterator[None]:
  """In this context ops that are not told an implementation take this one.

  What counts is where they are traced: a function that was jitted and called
  before keeps what it has. A name alone is refused by ops that lack it, so let
  "xla" follow "pallas_tpu".

  Args:
    requested: 'xla', 'pallas_tpu', several to try, or None to let ops choose.

  >>> import jax.numpy as jnp
  >>> from podscale import kernels
  >>> x, scale = jnp.ones((2, 2, 8, 4)), jnp.ones(4)
  >>> with kernels.default_implementation(("pallas_tpu", "xla")):
  ...   kernels.batch_norm(x, scale, scale).shape
  (2, 2, 8, 4)
  """
  token = _default.set(requested)
  try:
    yield
  finally:
    _default.reset(token)


def or_default(requested: Requested) -> Requested:
  """What is requested, or else the default here."""
  return _default.get() if requested is None else requested


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
  requested = or_default(requested)
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
