"""Training state in shards and in whole tensors."""

import dataclasses

import jax
import numpy as np
import pytest
from support.slow_case import slow
from support.small_step import CONFIG, assemble_on


def state_on(devices, name="lars"):
  optimizer = dataclasses.replace(CONFIG.optimizer, name=name)
  config = dataclasses.replace(CONFIG, optimizer=optimizer)
  assembly = assemble_on(devices, 1, config)
  return assembly.sharding, assembly.init_state()


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
  # The first weights do not depend on the devices.
  assert_same(jax.device_get(other.unpack(own)), unpacked)
  moved = other.pack(unpacked, like=own)
  assert_same(jax.device_get(other.unpack(moved)), unpacked)
  for a, b in zip(jax.tree.leaves(moved), jax.tree.leaves(own), strict=True):
    assert a.sharding == b.sharding


def test_weights_and_momenta_are_in_shards_only():
  sharding, state = state_on(8)
  for packed in (
    state.variables.params,
    state.optimizer.momenta,
    state.average.params,
  ):
    rows = packed.packing.rows
    shards = [x.data.shape for x in packed.buffer.addressable_shards]
    assert shards == [(rows // 8, 128)] * 8
  shapes = sharding.unpacked_shapes(state)
  assert shapes.variables.params["classifier"]["bias"].shape == (10,)


@pytest.mark.parametrize("devices", [1, 8])
def test_the_abstract_state_is_that_of_the_first(devices):
  assembly = assemble_on(devices, 1)
  jax.tree.map(
    lambda x, y: (
      np.testing.assert_equal((x.shape, x.dtype), (y.shape, y.dtype)),
      np.testing.assert_equal(x.sharding, y.sharding),
    ),
    assembly.abstract_state(),
    assembly.init_state(),
  )
