from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from podscale.collectives import (
  ALL_DEVICES,
  EvaluationSums,
  EvaluationTotals,
  evaluation_sums,
  group_mesh,
)

ROUNDOFF = 2.0**-24


def evaluate(logits, labels, group_size=2, **settings):
  """Evaluate on 8 devices; 8 must divide the rows of the arrays."""
  return jax.jit(
    jax.shard_map(
      partial(evaluation_sums, **settings),
      mesh=group_mesh(group_size=group_size),
      in_specs=(P(ALL_DEVICES), P(ALL_DEVICES)),
      out_specs=P(),
    )
  )(logits, np.asarray(labels, np.int32))


def oracle(logits, labels):
  """Evaluate in float64; rank by a stable sort of the negated logits."""
  logits, labels = logits[labels >= 0].astype(np.float64), labels[labels >= 0]
  order = np.argsort(-logits, axis=1, kind="stable")
  rank = np.argmax(order == labels[:, None], axis=1)
  top = logits.max(1)
  lse = top + np.log(np.exp(logits - top[:, None]).sum(1))
  loss = (lse - logits[np.arange(len(labels)), labels]).sum()
  return len(labels), (rank < 1).sum(), (rank < 5).sum(), loss


@pytest.mark.parametrize("group_size", [1, 2, 4, 8])
@pytest.mark.parametrize("classes", [3, 10])
def test_equals_one_device_on_the_concatenated_batch(group_size, classes):
  generator = np.random.default_rng(classes)
  # Rounded, so that many rows have ties.
  logits = generator.normal(size=(64, classes)).round(1).astype(np.float32)
  labels = generator.integers(-1, classes, 64)
  logits[labels < 0] = np.nan
  logits[8:16], labels[8:16] = np.inf, -1  # one device has padding only
  sums = evaluate(logits, labels, group_size)

  examples, correct, correct_top5, loss = oracle(logits, labels)
  assert sums.examples.dtype == sums.correct.dtype == jnp.int32
  assert sums.correct_top5.dtype == jnp.int32
  assert 0 < correct < examples
  assert (sums.examples, sums.correct) == (examples, correct)
  assert sums.correct_top5 == correct_top5
  # Each loss sums `classes` exponentials; the sum has 64 terms; exp and log
  # take a few roundings.
  bound = (classes + 64 + 8) * ROUNDOFF * (loss + np.nanmax(abs(logits[:8])))
  assert abs(sums.loss - loss) <= bound


def test_a_last_batch_of_one_image():
  logits = np.full((8, 10), np.nan, np.float32)
  labels = np.full(8, -1)
  logits[5], labels[5] = np.arange(10), 9
  sums = evaluate(logits, labels)
  assert (sums.examples, sums.correct, sums.correct_top5) == (1, 1, 1)
  # log(1 + e^-1 + ... + e^-9), ten terms.
  exact = np.log(np.exp(-np.arange(10.0)).sum())
  assert abs(sums.loss - exact) <= 18 * ROUNDOFF * 10


def test_padding_only():
  sums = evaluate(np.full((8, 4), np.nan, np.float32), np.full(8, -1))
  assert [float(x) for x in sums[:4]] == [0, 0, 0, 0]
  totals = EvaluationTotals()
  totals.add(sums)
  with pytest.raises(ValueError, match="no examples"):
    _ = totals.top1


def test_equal_logits_are_not_all_correct():
  labels = np.arange(8)
  sums = evaluate(np.zeros((8, 8), np.float32), labels)
  assert (sums.correct, sums.correct_top5) == (1, 5)


@pytest.mark.parametrize("classes", [3, 10])
def test_nan_logits_are_wrong_and_show_in_the_loss(classes):
  logits = np.zeros((8, classes), np.float32)
  logits[:, 0] = 1
  logits[3] = np.nan
  sums = evaluate(logits, np.zeros(8))
  assert (sums.examples, sums.correct, sums.correct_top5) == (8, 7, 7)
  assert np.isnan(sums.loss)


def test_a_label_beyond_the_classes_shows_in_the_loss():
  sums = evaluate(np.zeros((8, 3), np.float32), [0, 0, 0, 3, 0, 0, 0, 0])
  assert (sums.correct, sums.correct_top5) == (7, 7)
  assert np.isnan(sums.loss)


def test_bfloat16_logits_are_summed_in_float32():
  logits = np.zeros((8, 1000), jnp.bfloat16)
  sums = evaluate(logits, np.zeros(8))
  assert sums.loss.dtype == jnp.float32
  exact = 8 * np.log(1000)
  assert abs(sums.loss - exact) <= (1000 + 16) * ROUNDOFF * exact


def test_totals_are_exact_beyond_float32_and_int32():
  totals = EvaluationTotals()
  step = EvaluationSums(
    jnp.int32(2**30 + 1), jnp.int32(2**29 + 1), jnp.int32(2**30), jnp.float32(1)
  )
  for _ in range(4):
    totals.add(step)
  assert totals.examples == 2**32 + 4
  assert totals.correct == 2**31 + 4
  assert totals.correct_top5 == 2**32
  assert totals.loss == 4
  assert totals.top1 == (2**31 + 4) / (2**32 + 4)
  assert totals.top5 == 2**32 / (2**32 + 4)
  assert totals.mean_loss == 4 / (2**32 + 4)


def test_two_all_reduces_per_step(all_reduces):
  def step(logits, labels):
    return jax.shard_map(
      evaluation_sums,
      mesh=group_mesh(group_size=2),
      in_specs=(P(ALL_DEVICES), P(ALL_DEVICES)),
      out_specs=P(),
    )(logits, labels)

  # One all-reduce for the integers, one for the loss.
  logits, labels = np.zeros((8, 3), np.float32), np.zeros(8, np.int32)
  assert all_reduces(step, logits, labels) <= 2


@pytest.mark.parametrize(
  ("logits", "labels"), [((4, 2, 3), (4,)), ((4, 3), (5,)), ((4, 3), (4, 3))]
)
def test_shapes_must_fit(logits, labels):
  with pytest.raises(
    ValueError, match=r"logits \[n, classes\] and labels \[n\]"
  ):
    evaluation_sums(jnp.zeros(logits), jnp.zeros(labels, jnp.int32))


def test_labels_that_devices_share_are_refused():
  with pytest.raises(ValueError, match=r"labels .* along \('member',\)"):
    jax.shard_map(
      evaluation_sums,
      mesh=group_mesh(group_size=2),
      in_specs=(P("group"), P("group")),
      out_specs=P(),
    )(np.zeros((8, 3), np.float32), np.zeros(8, np.int32))


def test_counts_per_class():
  generator = np.random.default_rng(0)
  logits = generator.normal(size=(64, 6)).astype(np.float32)
  labels = generator.integers(-1, 5, 64)  # class 5 has no example
  sums = evaluate(logits, labels, per_class=True)
  right = logits.argmax(1) == labels
  assert sums.class_examples.dtype == sums.class_correct.dtype == jnp.int32
  for label in range(6):
    assert sums.class_examples[label] == (labels == label).sum()
    assert sums.class_correct[label] == (right & (labels == label)).sum()
  assert sums.class_correct.sum() == sums.correct

  totals = EvaluationTotals()
  for _ in range(3):
    totals.add(sums)
  assert totals.class_examples.tolist() == (3 * sums.class_examples).tolist()
  assert np.isnan(totals.class_top1[5])
  assert totals.class_top1[0] == sums.class_correct[0] / sums.class_examples[0]


def test_counts_per_class_are_exact_beyond_float32_and_int32():
  totals = EvaluationTotals()
  many = np.array([2**31 - 1, 2**24 + 1], np.int32)
  for _ in range(2):
    totals.add(EvaluationSums(0, 0, 0, 0.0, many, many))
  assert totals.class_examples.tolist() == [2**32 - 2, 2**25 + 2]


def test_no_counts_per_class_unless_asked_for():
  totals = EvaluationTotals()
  totals.add(evaluate(np.zeros((8, 3), np.float32), np.zeros(8)))
  with pytest.raises(ValueError, match="per_class=True"):
    totals.class_top1  # noqa: B018


def test_an_axis_that_is_not_there_is_refused():
  with pytest.raises(ValueError, match="unknown mesh axis pod"):
    evaluation_sums(jnp.ones((4, 3)), jnp.zeros(4, int), "pod")
