"""Evaluation as sums and exact counts, each example counted once."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from .mesh import ALL_DEVICES
from .varying import require_varying


class EvaluationSums(NamedTuple):
  """What one evaluation step adds up, over the real examples of all devices.

  Attributes:
    examples: int32 scalar; examples that are not padding.
    correct: int32 scalar; examples whose label has the highest logit.
    correct_top5: int32 scalar; examples whose label is among the five highest
      logits (all logits where there are fewer than five).
    loss: float32 scalar; the sum of the cross-entropies in nats.
    class_examples: int32 `[classes]`, or None if not asked for; examples of
      each label.
    class_correct: int32 `[classes]`, or None; those of them that are correct.
  """

  examples: jax.Array
  correct: jax.Array
  correct_top5: jax.Array
  loss: jax.Array
  class_examples: jax.Array | None = None
  class_correct: jax.Array | None = None


@dataclass
class EvaluationTotals:
  """The sums of all steps, kept on the host: exact beyond 2**24 and 2**31.

  >>> totals = EvaluationTotals()
  >>> totals.add(EvaluationSums(4, 1, 3, 5.0))
  >>> totals.add(EvaluationSums(1, 1, 1, 0.5))
  >>> totals.examples, totals.top1, totals.top5, totals.mean_loss
  (5, 0.4, 0.8, 1.1)
  """

  examples: int = 0
  correct: int = 0
  correct_top5: int = 0
  loss: float = 0.0
  """Sum of the cross-entropies in nats."""
  class_examples: np.ndarray | None = None
  """int64 `[classes]`, where the steps have them."""
  class_correct: np.ndarray | None = None

  def add(self, sums: EvaluationSums) -> None:
    """Adds one step's sums; waits until the device has computed them."""
    sums = jax.device_get(sums)
    self.examples += int(sums.examples)
    self.correct += int(sums.correct)
    self.correct_top5 += int(sums.correct_top5)
    self.loss += float(sums.loss)
    if sums.class_examples is not None:
      self.class_examples = _plus(self.class_examples, sums.class_examples)
      assert sums.class_correct is not None
      self.class_correct = _plus(self.class_correct, sums.class_correct)

  @property
  def top1(self) -> float:
    """Share of examples whose label has the highest logit."""
    return self._per_example(self.correct)

  @property
  def top5(self) -> float:
    """Share of examples whose label is among the five highest logits."""
    return self._per_example(self.correct_top5)

  @property
  def mean_loss(self) -> float:
    """Cross-entropy per example in nats."""
    return self._per_example(self.loss)

  @property
  def class_top1(self) -> np.ndarray:
    """`top1` of each class, float64 `[classes]`; NaN where it has no example.

    Raises:
      ValueError: the steps were not asked for counts per class.
    """
    if self.class_examples is None or self.class_correct is None:
      raise ValueError("no counts per class: evaluation_sums(per_class=True)")
    with np.errstate(invalid="ignore"):
      return self.class_correct / self.class_examples

  def _per_example(self, total: float) -> float:
    if not self.examples:
      raise ValueError("no examples were evaluated")
    return total / self.examples


def evaluation_sums(
  logits: jax.Array,
  labels: jax.Array,
  axis_names: str | Sequence[str] = ALL_DEVICES,
  *,
  per_class: bool = False,
) -> EvaluationSums:
  """Counts and sums over this step's real examples on all devices.

  A negative label marks a row of padding; its logits may hold anything, NaN
  too. Of equal logits the lower class ranks first, as in `argmax`. A row with
  a NaN at its label is wrong, and makes the loss NaN, as does a label that is
  not below `classes`.

  Args:
    logits: floating point `[n, classes]`, of this device, inside `shard_map`.
    labels: integer `[n]`.
    axis_names: the mesh axes to sum over.
    per_class: count examples and correct ones of each class too.

  Returns:
    The sums, equal and typed as equal on all devices; add them to an
    `EvaluationTotals`.

  Raises:
    ValueError: the shapes do not fit, or the labels are the same on all devices
      along one of the axes, so that examples would count more than once.
  """
  if logits.ndim != 2 or labels.shape != logits.shape[:1]:
    raise ValueError(
      "evaluation needs logits [n, classes] and labels [n], got "
      f"{logits.shape} and {labels.shape}"
    )
  require_varying(
    "labels", labels, axis_names, cure="its examples would count repeatedly"
  )
  with jax.named_scope("evaluation_sums"):
    real = labels >= 0
    logits = logits.astype(jnp.float32)
    own = jnp.take_along_axis(logits, labels[:, None], axis=1)
    loss = jax.nn.logsumexp(logits, axis=1) - own[:, 0]
    rank = _rank(logits, labels, own)
    five = min(5, logits.shape[1])
    correct = real & (rank < 1)
    sums = EvaluationSums(
      examples=jnp.sum(real, dtype=jnp.int32),
      correct=jnp.sum(correct, dtype=jnp.int32),
      correct_top5=jnp.sum(real & (rank < five), dtype=jnp.int32),
      loss=jnp.sum(jnp.where(real, loss, 0)),
    )
    if per_class:
      sums = sums._replace(
        class_examples=_count(real, labels, logits.shape[1]),
        class_correct=_count(correct, labels, logits.shape[1]),
      )
    return lax.psum(sums, axis_names)


def _count(which: jax.Array, labels: jax.Array, classes: int) -> jax.Array:
  """How many of `which` have each label, int32 `[classes]`."""
  of_class = labels[:, None] == jnp.arange(classes, dtype=labels.dtype)[None]
  return jnp.sum(which[:, None] & of_class, axis=0, dtype=jnp.int32)


def _plus(total: np.ndarray | None, counts: ArrayLike) -> np.ndarray:
  return np.asarray(counts, np.int64) + (0 if total is None else total)


def _rank(logits: jax.Array, labels: jax.Array, own: jax.Array) -> jax.Array:
  """How many classes come before the label, `[n]`; cheaper than sorting."""
  classes = jnp.arange(logits.shape[1], dtype=labels.dtype)[None]
  # Not (logits > own): a NaN on either side must count against the label.
  above = ~(logits <= own)
  tied_before = (logits == own) & (classes < labels[:, None])
  return jnp.sum(above | tied_before, axis=1)
