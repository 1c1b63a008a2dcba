"""Remote-DMA kernel, interpreted on 8 devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax._src import dispatch
from jax._src.pallas.mosaic.interpret import interpret_pallas_call
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jax.sharding import PartitionSpec as P

from podscale.collectives import (
  ALL_DEVICES,
  GROUP,
  MEMBER,
  group_mesh,
  group_moments,
)
from podscale.collectives import exchange as kernel
from podscale.collectives.reduction import all_reduce
from podscale.kernels import Moments

ROUNDOFF = 2.0**-24


@pytest.fixture(params=["on_wait", "eager"])
def interpreter(request):
  """Interpret kernels with copies as late, or as early, as allowed."""
  mode = pltpu.InterpretParams(
    detect_races=True,
    dma_execution_mode=request.param,
    uninitialized_memory="nan",
  )
  with pltpu.force_tpu_interpret_mode(mode):
    yield
  pltpu.reset_tpu_interpret_mode_state()


def races_found():
  return interpret_pallas_call.races.races_found


def on_all_devices(function, group_size):
  """Run a function on each device's own row."""
  return jax.jit(
    jax.shard_map(
      lambda x: function(x[0])[None],
      mesh=group_mesh(group_size=group_size),
      in_specs=P(ALL_DEVICES),
      out_specs=P(ALL_DEVICES),
    )
  )


def rows(size, seed=0):
  return np.random.default_rng(seed).normal(size=(8, size)).astype(np.float32)


def assert_sums(sums, x, group_size):
  groups = np.float64(x).reshape(-1, group_size, x.shape[1])
  exact = np.repeat(groups.sum(1), group_size, axis=0)
  largest = np.repeat(np.abs(groups).sum(1), group_size, axis=0)
  # The error of a float32 sum of k terms is at most k roundoffs of their size.
  assert (np.abs(sums - exact) <= group_size * ROUNDOFF * largest).all()
  for group in np.asarray(sums).reshape(groups.shape):
    assert len(np.unique(group, axis=0)) == 1  # bit for bit


@pytest.mark.parametrize("size", [1, 1024, 2085])
@pytest.mark.parametrize("group_size", [2, 4, 8])
def test_sums_within_groups(interpreter, group_size, size):
  x = rows(size)
  total = on_all_devices(
    lambda x: all_reduce(x, implementation="pallas_tpu"), group_size
  )
  assert_sums(total(x), x, group_size)
  assert not races_found()


@pytest.mark.parametrize("axes", [GROUP, ALL_DEVICES, (MEMBER, GROUP)])
def test_sums_over_any_axes(interpreter, axes):
  x = rows(9)
  total = on_all_devices(
    lambda x: all_reduce(x, axes, implementation="pallas_tpu"), 2
  )
  if axes == GROUP:
    x = x[[0, 2, 4, 6, 1, 3, 5, 7]]  # members of one sum follow each other
    sums = total(x.reshape(2, 4, 9).swapaxes(0, 1).reshape(8, 9))
    sums = np.asarray(sums).reshape(4, 2, 9).swapaxes(0, 1).reshape(8, 9)
    assert_sums(sums, x, 4)
  else:
    assert_sums(total(x), x, 8)
  assert not races_found()


def test_shape_and_gradient_are_those_of_psum(interpreter):
  x, slopes = rows(6), rows(6, seed=1)

  def gradient(implementation):
    def loss(x, slope):
      total = all_reduce(x.reshape(2, 3), implementation=implementation)
      return jnp.sum(total * slope.reshape(2, 3))

    return on_all_devices(
      lambda both: jax.grad(loss)(*jnp.split(both, 2)), group_size=4
    )(np.concatenate([x, slopes], axis=1))

  ours = gradient("pallas_tpu")
  assert_sums(ours, slopes, 4)
  np.testing.assert_allclose(ours, gradient("psum"), rtol=4 * ROUNDOFF)


def test_moments_and_their_gradients_are_those_of_psum(interpreter):
  pivot = jnp.full(5, 0.5)

  def step(implementation):
    def loss(x):
      mean, m2 = jnp.split(x, 2)
      merged = group_moments(
        Moments(np.float32(7), mean, m2**2),
        pivot=pivot,
        implementation=implementation,
      )
      return jnp.sum(merged.mean * merged.m2)

    return np.asarray(on_all_devices(jax.grad(loss), 4)(rows(10)))

  ours, theirs = step("pallas_tpu"), step("psum")
  # Sums of 4 members in another order, and products of a few factors.
  np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)
  assert not races_found()


def late(x, device):
  """Return x; one device first waits in a kernel."""

  def wait(me_ref, x_ref, y_ref):
    @pl.when(me_ref[0] == device)
    def _():
      pl.delay(50_000_000)  # nanoseconds

    y_ref[...] = x_ref[...]

  return pl.pallas_call(
    wait,
    out_shape=jax.ShapeDtypeStruct(
      x.shape, x.dtype, manual_axis_type=jax.typeof(x).manual_axis_type
    ),
    in_specs=[
      pl.BlockSpec(memory_space=pltpu.SMEM),
      pl.BlockSpec(memory_space=pltpu.VMEM),
    ],
  )(lax.axis_index(ALL_DEVICES)[None], x)


@pytest.mark.parametrize("device", [0, 3, 7])
def test_launches_back_to_back_with_one_device_late(interpreter, device):
  def three(x):
    first = all_reduce(x, implementation="pallas_tpu")
    second = all_reduce(late(first, device), implementation="pallas_tpu")
    return all_reduce(second, implementation="pallas_tpu")

  x = np.tile(np.arange(8, dtype=np.float32)[:, None], (1, 130))
  sums = on_all_devices(three, group_size=4)(x)
  # Small integers: exact.
  assert np.asarray(sums)[:, 7].tolist() == 4 * [16 * 6.0] + 4 * [16 * 22.0]
  assert not races_found()


@pytest.mark.parametrize("interpreter", ["eager"], indirect=True)
def test_a_race_is_found(interpreter, monkeypatch):
  # Take the sum without waiting for the messages.
  do_each = kernel._for_each
  calls = []

  def forget_the_third(others_ref, do):
    calls.append(do)
    if len(calls) % 3:
      do_each(others_ref, do)

  monkeypatch.setattr(kernel, "_for_each", forget_the_third)
  jax.clear_caches()  # forget the compiled, unpatched kernel
  total = on_all_devices(
    lambda x: all_reduce(x, implementation="pallas_tpu"), 4
  )
  with pytest.raises(jax.errors.JaxRuntimeError, match="RACE DETECTED"):
    jax.block_until_ready(total(rows(1024)))
  assert len(calls) == 3  # signals, starts, waits
  jax.clear_caches()
  dispatch.runtime_tokens.clear()  # else they raise the error again at exit


def test_messages_that_do_not_fit_vmem_are_refused():
  x = np.zeros((8, 2**20), np.float32)
  total = on_all_devices(
    lambda x: all_reduce(x, implementation="pallas_tpu"), 8
  )
  with pytest.raises(
    NotImplementedError, match=r"of 8 members .* take 33554432 bytes"
  ):
    total(x)


def test_more_mesh_axes_than_ids_are_refused():
  mesh = jax.make_mesh((2, 1, 2, 1, 2), ("a", "b", "c", "d", "e"))
  total = jax.shard_map(
    lambda x: all_reduce(x, "c", implementation="pallas_tpu")[None],
    mesh=mesh,
    in_specs=P(),
    out_specs=P("c"),
  )
  with pytest.raises(NotImplementedError, match="at most 4 mesh axes, got 5"):
    jax.jit(total)(np.zeros(2, np.float32))
