"""The training and evaluation steps."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from support.small_step import (
  BATCH,
  CONFIG,
  SCALE,
  SPEC,
  batch,
  create,
  moved_weights,
  schedule,
)
from support.tolerance import half_ulp

from podscale.collectives import EvaluationTotals, group_mesh
from podscale.kernels import Packed
from podscale.train.optimizer import l2_penalty, make_optimizer
from podscale.train.sharding import Placement
from podscale.train.state import merge_variables
from podscale.train.step import (
  cross_entropy,
  make_augment,
  make_eval_step,
  make_train_step,
)


def build(devices, group_size, spec=SPEC, config=CONFIG):
  placement = Placement(group_mesh(jax.devices()[:devices], group_size))
  optimizer = make_optimizer(CONFIG.optimizer, schedule)
  template = nnx.eval_shape(lambda: create(nnx.Rngs(0), spec))
  step = make_train_step(
    template,
    optimizer,
    schedule,
    config=config,
    scale=SCALE,
    placement=placement,
  )
  state = placement.init_state(
    lambda rngs: create(rngs, spec), optimizer, seed=0
  )
  return step, state, template, placement


def run(step, state, placement):
  metrics = []
  for seed in range(3):
    donated = state
    state, values = step(state, *batch(seed))
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(donated))
    assert int(state.step) == seed + 1
    metrics.append(jax.device_get(values))
  assert step._cache_size() == 1
  return jax.device_get(placement.unpack(state)), metrics


@pytest.fixture(scope="module")
def three_steps_on_one_device():
  step, state, _, placement = build(1, 1)
  return run(step, state, placement)


@pytest.fixture(scope="module")
def three_steps_from_moved_weights():
  """The same from weights that are half an ulp off, four times."""
  step, state, _, placement = build(1, 1)
  return [run(step, moved_weights(state, seed), placement) for seed in range(4)]


def test_eight_devices_in_one_group_equal_one_device(
  three_steps_on_one_device, three_steps_from_moved_weights
):
  """Eight devices add up in another order, and round otherwise.

  Allowed is ten times what half an ulp in the weights does to three steps on
  one device: a value goes through some ten roundings on its way.
  """
  step, state, _, placement = build(8, 8)
  for (path, actual), expected, *moved in zip(
    jax.tree.leaves_with_path(run(step, state, placement)),
    jax.tree.leaves(three_steps_on_one_device),
    *map(jax.tree.leaves, three_steps_from_moved_weights),
    strict=True,
  ):
    floor = max(np.abs(m - expected).max() for m in moved)
    floor += half_ulp(np.float32) * np.abs(expected).max()
    error = np.abs(actual - expected).max()
    assert error <= 10 * floor, jax.tree_util.keystr(path)


def test_the_loss_holds_the_l2_penalty(three_steps_on_one_device):
  _, metrics = three_steps_on_one_device
  _, state, _, placement = build(1, 1)
  variables = placement.unpack(state).variables
  alone = nnx.eval_shape(lambda: create(nnx.Rngs(0), axis_name=None))

  @jax.jit
  def expected_loss(variables, images, labels):
    network = merge_variables(nnx.graphdef(alone), variables)
    loss = jnp.mean(cross_entropy(network(SCALE(images)), labels, 0.1))
    return loss + 1e-3 * l2_penalty(Packed.of(variables.params))[0]

  expected = expected_loss(variables, *batch(0))
  np.testing.assert_allclose(metrics[0]["loss"], expected, rtol=1e-5)


@pytest.mark.slow
def test_random_numbers_depend_on_seed_and_step_only():
  spec = dataclasses.replace(SPEC, dropout=0.5, survival_prob=0.5)
  losses = []
  for _ in range(2):
    step, state, _, _ = build(8, 2, spec)
    run_losses = []
    for _ in range(2):
      # The same images and nearly the same weights: what differs is dropped.
      state, metrics = step(state, *batch(0))
      run_losses.append(float(metrics["loss"]))
    losses.append(run_losses)
  assert losses[0] == losses[1]
  assert losses[0][0] != losses[0][1]


def test_evaluation_counts_each_real_example_once():
  _, state, template, placement = build(8, 2)
  average = placement.unpack_average(state)
  eval_step = make_eval_step(template, scale=SCALE, mesh=placement.mesh)
  template.eval()
  graph = nnx.graphdef(template)
  images, labels = batch(5)
  logits = np.asarray(
    jax.jit(lambda v: merge_variables(graph, v)(SCALE(images)))(average)
  )
  for real in (1, 9, BATCH):
    padded = np.where(np.arange(BATCH) < real, labels, -1).astype(np.int32)
    totals = EvaluationTotals()
    totals.add(eval_step(average, images, padded))
    assert totals.examples == real
    assert totals.correct == np.sum(logits[:real].argmax(1) == labels[:real])


@pytest.mark.slow
def test_mixup_trains_on_both_labels(three_steps_on_one_device):
  data = dataclasses.replace(CONFIG.data, mixup_alpha=0.4)
  config = dataclasses.replace(CONFIG, data=data)
  step, state, template, placement = build(1, 1, config=config)
  variables = placement.unpack(state).variables
  template = nnx.eval_shape(lambda: create(nnx.Rngs(0), axis_name=None))
  images, labels = map(jnp.asarray, batch(0))
  # Of the seed, step 0, and what mixup folds in.
  key = jax.random.key(config.seed)
  for number in (0, 1):
    key = jax.random.fold_in(key, number)
  keys = [jax.random.fold_in(key, image) for image in range(BATCH)]
  shares = [jax.random.beta(own, 0.4, 0.4, dtype=jnp.float32) for own in keys]
  partners = np.arange(BATCH) ^ 1

  @jax.jit
  def expected_loss(variables):
    share = jnp.stack(shares)
    share = jnp.maximum(share, 1 - share)
    part = share[:, None, None, None]
    mixed = part * SCALE(images) + (1 - part) * SCALE(images)[partners]
    network = merge_variables(nnx.graphdef(template), variables)
    log_probs = jax.nn.log_softmax(network(mixed))
    hot = jax.nn.one_hot(labels, log_probs.shape[1])
    target = share[:, None] * hot + (1 - share[:, None]) * hot[partners]
    target = 0.9 * target + 0.1 / log_probs.shape[1]
    penalty, _ = l2_penalty(Packed.of(variables.params))
    return -jnp.sum(target * log_probs, axis=1).mean() + 1e-3 * penalty

  expected = expected_loss(variables)
  _, metrics = step(state, images, labels)
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
