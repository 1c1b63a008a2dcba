"""Requests for an implementation: by argument, by context, or none."""

import contextlib
import difflib
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from typing import Literal, get_args

Implementation = Literal["xla", "pallas_tpu"]
Requested = Implementation | Sequence[Implementation] | None

_NAMES: tuple[Implementation, ...] = get_args(Implementation)

_default: ContextVar[Requested] = ContextVar("_default", default=None)


@contextlib.contextmanager
def default_implementation(requested: Requested) -> Iterator[None]:
  """Set the implementation of ops that are called without one.

  The context counts where an op is traced: a jitted function that was called
  before keeps its implementation. An op that lacks a single requested name
  raises, so let "xla" follow "pallas_tpu". A context inside another replaces
  it.

  Args:
    requested: 'xla', 'pallas_tpu', a sequence to try in order, or None to let
      each op choose.

  Raises:
    ValueError: A name is unknown, or the request is no name and no sequence.

  >>> import jax.numpy as jnp
  >>> from podscale import kernels
  >>> x, scale = jnp.ones((2, 2, 8, 4)), jnp.ones(4)
  >>> with kernels.default_implementation(("pallas_tpu", "xla")):
  ...   kernels.batch_norm(x, scale, scale).shape
  (2, 2, 8, 4)
  """
  if requested is not None:
    _checked_names("default_implementation", requested)
  token = _default.set(requested)
  try:
    yield
  finally:
    _default.reset(token)


def requested_names(
  op: str, requested: Requested
) -> tuple[Implementation, ...] | None:
  """List the implementations that a call requests, in order.

  Args:
    op: Name of the op, for messages.
    requested: Argument of the call; None reads the context.

  Returns:
    The names, or None where neither the argument nor the context has any.

  Raises:
    ValueError: A name is unknown, or the request is no name and no sequence.
  """
  if requested is None:
    requested = _default.get()
  return None if requested is None else _checked_names(op, requested)


def _checked_names(
  caller: str, requested: Implementation | Sequence[Implementation]
) -> tuple[Implementation, ...]:
  names = (requested,) if isinstance(requested, str) else requested
  if not isinstance(names, list | tuple) or not names:
    raise ValueError(
      f"{caller}: implementation is {requested!r}; expected "
      f"{' or '.join(map(repr, _NAMES))}, or a list of them"
    )
  for name in names:
    if name not in _NAMES:
      near = difflib.get_close_matches(str(name), _NAMES, n=1) or _NAMES
      raise ValueError(
        f"{caller}: unknown implementation {name!r}; did you mean "
        f"{' or '.join(map(repr, near))}?"
      )
  return tuple(names)
