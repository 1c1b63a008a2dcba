"""The state in shards, and as a checkpoint has it."""

import jax
import numpy as np
import pytest
from support.slow_case import slow

from podscale.collectives import group_mesh
from podscale.model import EfficientNet, model_spec
from podscale.train.optimizer import make_optimizer
from podscale.train.settings.config import OptimizerConfig
from podscale.train.sharding import Placement

SPEC = model_spec("b0", width=0.25, depth=0.25, resolution=32)


def create(rngs):
  return EfficientNet(SPEC, num_classes=10, rngs=rngs)


def state_on(devices, name="lars"):
  placement = Placement(group_mesh(jax.devices()[:devices], 1))
  optimizer = make_optimizer(OptimizerConfig(name=name), lambda step: 0.1)
  return placement, placement.init_state(create, optimizer, seed=0)


def assert_same(actual, expected):
  assert jax.tree.structure(actual) == jax.tree.structure(expected)
  jax.tree.map(np.testing.assert_array_equal, actual, expected)


@pytest.mark.parametrize(
  ("devices", "name"),
  [
    (1, "lars"),
    slow(1, "rmsprop"),
    slow(2, "lars"),
    slow(2, "rmsprop"),
    slow(4, "lars"),
    slow(4, "rmsprop"),
  ],
)
def test_goes_on_on_other_devices(devices, name):
  eight, state = state_on(8, name)
  unpacked = jax.device_get(eight.unpack(state))
  other, own = state_on(devices, name)
  # Whatever the devices, the first weights are the same.
  assert_same(jax.device_get(other.unpack(own)), unpacked)
  moved = other.pack(unpacked, like=own)
  assert_same(jax.device_get(other.unpack(moved)), unpacked)
  for a, b in zip(jax.tree.leaves(moved), jax.tree.leaves(own), strict=True):
    assert a.sharding == b.sharding


def test_weights_and_momenta_are_in_shards_only():
  placement, state = state_on(8)
  for packed in (
    state.variables.params,
    state.optimizer.momenta,
    state.average.params,
  ):
    rows = packed.packing.rows
    shards = [x.data.shape for x in packed.buffer.addressable_shards]
    assert shards == [(rows // 8, 128)] * 8
  shapes = placement.unpacked_shapes(state)
  assert shapes.variables.params["classifier"]["bias"].shape == (10,)
