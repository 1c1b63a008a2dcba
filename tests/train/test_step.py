"""Training step and evaluation step."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from support.small_step import (
  BATCH,
  CLASSES,
  CONFIG,
  SCALE,
  SPEC,
  assemble_on,
  batch,
  moved_weights,
)
from support.tolerance import half_ulp

from podscale.collectives import EvaluationTotals, group_mesh
from podscale.model import EfficientNet
from podscale.train.state import merge_variables
from podscale.train.step import cross_entropy, make_augment


def run(assembly, state):
  metrics = []
  for seed in range(3):
    donated = state
    state, values = assembly.train_step(state, *batch(seed))
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(donated))
    assert int(state.step) == seed + 1
    metrics.append(jax.device_get(values))
  assert assembly.train_step._cache_size() == 1
  return jax.device_get(assembly.sharding.unpack(state)), metrics


@pytest.fixture(scope="module")
def three_steps_on_one_device():
  assembly = assemble_on(1, 1)
  return run(assembly, assembly.init_state())


@pytest.fixture(scope="module")
def three_steps_from_moved_weights():
  """Three steps from weights moved by half an ulp, four times."""
  assembly = assemble_on(1, 1)
  state = assembly.init_state()
  return [run(assembly, moved_weights(state, seed)) for seed in range(4)]


def test_eight_devices_in_one_group_equal_one_device(
  three_steps_on_one_device, three_steps_from_moved_weights
):
  """Eight devices sum in another order and round differently.

  The test allows ten times the change that half an ulp in the weights makes in
  three steps on one device, because a value is rounded about ten times.
  """
  assembly = assemble_on(8, 8)
  for (path, actual), expected, *moved in zip(
    jax.tree.leaves_with_path(run(assembly, assembly.init_state())),
    jax.tree.leaves(three_steps_on_one_device),
    *map(jax.tree.leaves, three_steps_from_moved_weights),
    strict=True,
  ):
    floor = max(np.abs(m - expected).max() for m in moved)
    floor += half_ulp(np.float32) * np.abs(expected).max()
    error = np.abs(actual - expected).max()
    assert error <= 10 * floor, jax.tree_util.keystr(path)


def logits_of(variables, images):
  """Compute float64 logits in training mode, without a mesh."""
  alone = nnx.eval_shape(
    lambda: EfficientNet(
      SPEC, num_classes=CLASSES, dtype=jnp.float32, rngs=nnx.Rngs(0)
    )
  )
  graph = nnx.graphdef(alone)
  logits = jax.jit(lambda v, x: merge_variables(graph, v)(x))(variables, images)
  return np.float64(logits)


def smoothed_cross_entropy(logits, targets):
  """Compute the mean cross-entropy in float64; targets are class shares."""
  log_probs = logits - np.log(np.exp(logits).sum(1, keepdims=True))
  smooth = 0.9 * targets + 0.1 / CLASSES
  return -(smooth * log_probs).sum(1).mean()


def l2_loss(params):
  """Halve the squared norm of all but batch norm's scales and offsets."""
  squares = [
    np.sum(np.float64(leaf) ** 2)
    for path, leaf in jax.tree.leaves_with_path(params)
    if path[-1].key not in ("scale", "offset")
  ]
  assert 0 < len(squares) < len(jax.tree.leaves(params))
  return 0.5 * sum(squares)


def normalised(images):
  return np.float32((images - np.array(SCALE.mean)) / np.array(SCALE.std))


def test_the_loss_holds_the_l2_penalty(three_steps_on_one_device):
  _, metrics = three_steps_on_one_device
  assembly = assemble_on(1, 1)
  variables = assembly.sharding.unpack(assembly.init_state()).variables
  images, labels = batch(0)
  logits = logits_of(variables, normalised(images))
  expected = smoothed_cross_entropy(logits, np.eye(CLASSES)[labels])
  penalty = 1e-3 * l2_loss(variables.params)
  np.testing.assert_allclose(metrics[0]["loss"], expected + penalty, rtol=1e-5)
  assert penalty > 1e-3 * expected  # large enough to notice if it were missing


def test_the_learning_rate_is_the_schedule_s_at_each_step(
  three_steps_on_one_device,
):
  _, metrics = three_steps_on_one_device
  # 20 steps from 0.5 to 0.1; TensorFlow's schedule takes step 0 as step 1.
  expected = [0.1 + 0.4 * (1 - s / 21) for s in (1, 1, 2)]
  actual = [values["learning_rate"] for values in metrics]
  np.testing.assert_allclose(actual, expected, rtol=1e-6)


def batch_statistics(momentum):
  """Return the running statistics' change on two groups, by its weight."""
  settings = dataclasses.replace(CONFIG.batch_norm, momentum=momentum)
  assembly = assemble_on(2, 1, dataclasses.replace(CONFIG, batch_norm=settings))
  state, _ = assembly.train_step(assembly.init_state(), *batch(0))
  after = jax.device_get(assembly.sharding.unpack(state)).variables
  # The running means begin at 0, the variances at 1.
  return jax.tree.map(
    lambda x, first: (x - momentum * first) / (1 - momentum),
    (after.means, after.variances),
    (
      jax.tree.map(lambda _: 0, after.means),
      jax.tree.map(lambda _: 1, after.variances),
    ),
  )


def test_one_momentum_reaches_every_layer_and_the_merge():
  for (path, half), other in zip(
    jax.tree.leaves_with_path(batch_statistics(0.5)),
    jax.tree.leaves(batch_statistics(0.75)),
    strict=True,
  ):
    # A few roundings of values near 1, divided by 1 - momentum.
    name = jax.tree_util.keystr(path)
    np.testing.assert_allclose(half, other, 1e-5, 4e-6, err_msg=name)


@pytest.mark.slow
def test_random_numbers_depend_on_seed_and_step_only():
  model = dataclasses.replace(CONFIG.model, dropout=0.5, survival_prob=0.5)
  config = dataclasses.replace(CONFIG, model=model)
  losses = []
  for _ in range(2):
    assembly = assemble_on(8, 2, config)
    state = assembly.init_state()
    run_losses = []
    for _ in range(2):
      # Images are the same and weights nearly so; only the drops differ.
      state, metrics = assembly.train_step(state, *batch(0))
      run_losses.append(float(metrics["loss"]))
    losses.append(run_losses)
  assert losses[0] == losses[1]
  assert losses[0][0] != losses[0][1]


def test_evaluation_counts_each_real_example_once():
  assembly = assemble_on(8, 2)
  average = assembly.sharding.unpack_average(assembly.init_state())
  assembly.model.eval()
  graph = nnx.graphdef(assembly.model)
  images, labels = batch(5)
  logits = np.asarray(
    jax.jit(lambda v: merge_variables(graph, v)(normalised(images)))(average)
  )
  for real in (1, 9, BATCH):
    padded = np.where(np.arange(BATCH) < real, labels, -1).astype(np.int32)
    totals = EvaluationTotals()
    totals.add(assembly.eval_step(average, images, padded))
    assert totals.examples == real
    assert totals.correct == np.sum(logits[:real].argmax(1) == labels[:real])


@pytest.mark.slow
def test_mixup_trains_on_both_labels(three_steps_on_one_device):
  data = dataclasses.replace(CONFIG.data, mixup_alpha=0.4)
  config = dataclasses.replace(CONFIG, data=data)
  assembly = assemble_on(1, 1, config)
  state = assembly.init_state()
  variables = assembly.sharding.unpack(state).variables
  images, labels = batch(0)
  # The seed, step 0, and the number that mixup folds in.
  key = jax.random.key(config.seed)
  for number in (0, 1):
    key = jax.random.fold_in(key, number)
  keys = [jax.random.fold_in(key, image) for image in range(BATCH)]
  shares = np.array(
    [jax.random.beta(own, 0.4, 0.4, dtype=jnp.float32) for own in keys]
  )
  shares = np.maximum(shares, 1 - shares)
  partners = np.arange(BATCH) ^ 1

  def mixed(x):
    share = shares.reshape(-1, *[1] * (x.ndim - 1))
    return share * x + (1 - share) * x[partners]

  logits = logits_of(variables, np.float32(mixed(normalised(images))))
  targets = mixed(np.eye(CLASSES)[labels])
  expected = smoothed_cross_entropy(logits, targets)
  expected += 1e-3 * l2_loss(variables.params)
  _, metrics = assembly.train_step(state, images, labels)
  np.testing.assert_allclose(metrics["loss"], expected, rtol=1e-5)
  plain = three_steps_on_one_device[1][0]["loss"]
  assert abs(expected - plain) > 1e-3


def test_images_pass_where_the_host_augments():
  image = jnp.zeros((8, 4, 4, 3), jnp.uint8)
  augment = make_augment(CONFIG, group_mesh(jax.devices(), 8))
  assert augment({"image": image}) is image


def test_cross_entropy_against_float64():
  random = np.random.default_rng(0)
  logits = random.normal(size=(7, 5)) * 3
  labels = random.integers(0, 5, 7)
  target = np.full((7, 5), 0.1 / 5) + 0.9 * np.eye(5)[labels]
  log_probs = logits - np.log(np.exp(logits).sum(1, keepdims=True))
  expected = -(target * log_probs).sum(1)
  actual = cross_entropy(jnp.float32(logits), jnp.int32(labels), 0.1)
  np.testing.assert_allclose(actual, expected, rtol=1e-6)


def test_images_are_normalised_per_channel():
  images = jnp.full((1, 1, 1, 3), 180, jnp.uint8)
  np.testing.assert_allclose(SCALE(images)[0, 0, 0], [1.0, 1.4, 2.0], rtol=1e-6)
