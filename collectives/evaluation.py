"""Evaluation sums with exact counts: each example counts once."""

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
  """Sums of one evaluation step over the examples of all devices.

  Attributes:
    examples: Number of examples that are not padding, int32 scalar.
    correct: Number of examples whose label has the highest logit, int32 scalar.
    correct_top5: Number of examples whose label is among the five highest
      logits, or among all logits if there are fewer; int32 scalar.
    loss: Sum of the cross-entropies in nats, float32 scalar.
    class_examples: Number of examples of each label, int32 `[classes]`; None
      without `per_class`.
    class_correct: Number of correct examples of each label, int32 `[classes]`;
      None without `per_class`.
  """

  examples: jax.Array
  correct: jax.Array
  correct_top5: jax.Array
  loss: jax.Array
  class_examples: jax.Array | None = None
  class_correct: jax.Array | None = None


@dataclass
class EvaluationTotals:
  """Sums over all steps, kept on the host: exact beyond 2**24 and 2**31.

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
  """Number of examples of each label, int64 `[classes]`; None without them."""
  class_correct: np.ndarray | None = None

  def add(self, sums: EvaluationSums) -> None:
    """Add the sums of one step; blocks until the device has computed them."""
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
    """Top-1 accuracy of each class, float64 `[classes]`; NaN if it is empty.

    Raises:
      ValueError: The added sums have no counts per class.
    """
    if self.class_examples is None or self.class_correct is None:
      raise ValueError(
        "the added sums have no counts per class; compute them with "
        "evaluation_sums(per_class=True)"
      )
    with np.errstate(invalid="ignore"):
      return self.class_correct / self.class_examples

  def _per_example(self, total: float) -> float:
    if not self.examples:
      raise ValueError("no examples were evaluated; add the sums of a step")
    return total / self.examples


def evaluation_sums(
  logits: jax.Array,
  labels: jax.Array,
  axis_names: str | Sequence[str] = ALL_DEVICES,
  *,
  per_class: bool = False,
) -> EvaluationSums:
  """Count and sum over this step's examples on all devices.

  A negative label marks a padding row, whose logits may hold any value, NaN
  included. Between equal logits the lower class ranks first, as in `argmax`.
  A row with a NaN at its label counts as wrong and makes the loss NaN. A label
  of `classes` or above does the same.

  Args:
    logits: Logits of this device inside `shard_map`, floating point
      `[n, classes]`.
    labels: Labels, integer `[n]`.
    axis_names: Mesh axes to sum over.
    per_class: True to count examples and correct examples of each class too.

  Returns:
    Sums, equal and typed as equal on all devices; add them to an
    `EvaluationTotals`.

  Raises:
    ValueError: The shapes do not fit, or the labels are the same on all devices
      along one of the axes, so that examples would count more than once.

  >>> from podscale.collectives import group_mesh
  >>> mesh = group_mesh(jax.devices()[:1])
  >>> P = jax.sharding.PartitionSpec
  >>> evaluate = jax.shard_map(
  ...   evaluation_sums, mesh=mesh, in_specs=P(ALL_DEVICES), out_specs=P()
  ... )
  >>> sums = evaluate(jnp.array([[1.0, 0.0], [2.0, 3.0]]), jnp.array([0, 0]))
  >>> int(sums.examples), int(sums.correct)
  (2, 1)
  """
  if logits.ndim != 2 or labels.shape != logits.shape[:1]:
    raise ValueError(
      "evaluation needs logits [n, classes] and labels [n], got "
      f"{logits.shape} and {labels.shape}"
    )
  require_varying(
    "labels", labels, axis_names, cure="shard the examples over all devices"
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
  """Count the rows that `which` selects by label, int32 `[classes]`."""
  in_class = labels[:, None] == jnp.arange(classes, dtype=labels.dtype)[None]
  return jnp.sum(which[:, None] & in_class, axis=0, dtype=jnp.int32)


def _plus(total: np.ndarray | None, counts: ArrayLike) -> np.ndarray:
  return np.asarray(counts, np.int64) + (0 if total is None else total)


def _rank(logits: jax.Array, labels: jax.Array, own: jax.Array) -> jax.Array:
  """Count the classes ranked before the label, `[n]`; cheaper than a sort."""
  classes = jnp.arange(logits.shape[1], dtype=labels.dtype)[None]
  # Not (logits > own): a NaN on either side must count against the label.
  above = ~(logits <= own)
  tied_before = (logits == own) & (classes < labels[:, None])
  return jnp.sum(above | tied_before, axis=1)
