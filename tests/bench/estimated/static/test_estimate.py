"""Estimates from libtpu's code; skipped where libtpu is not installed."""

import importlib.util
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from podscale.bench.chips import CHIPS
from podscale.bench.estimated.static import estimate_function
from podscale.bench.estimated.static.compile import _dump_folder
from podscale.train.errors import UsageError


def needs_libtpu(test):
  missing = importlib.util.find_spec("libtpu") is None
  skip = pytest.mark.skipif(missing, reason="libtpu is not installed")
  return pytest.mark.libtpu(skip(test))


X = jax.ShapeDtypeStruct((2048, 1024), jnp.float32)
BYTES = 2048 * 1024 * 4


def add_one(x):
  return x + 1


def double(x):
  def kernel(x_ref, y_ref):
    y_ref[...] = x_ref[...] * 2

  block = pl.BlockSpec((256, 1024), lambda i: (i, 0))
  return pl.pallas_call(
    kernel,
    grid=(8,),
    in_specs=[block],
    out_specs=block,
    out_shape=X,
    name="double",
  )(x)


def copy_all(*arrays):
  """Copy each array to HBM by way of VMEM, all in one kernel."""

  def kernel(*refs):
    *sources, out_ref, block_ref, semaphore = refs
    for i, source_ref in enumerate(sources):
      load = pltpu.make_async_copy(source_ref, block_ref, semaphore)
      load.start()
      load.wait()
      store = pltpu.make_async_copy(block_ref, out_ref.at[i], semaphore)
      store.start()
      store.wait()

  shape = arrays[0].shape
  in_hbm = pl.BlockSpec(memory_space=pl.ANY)
  return pl.pallas_call(
    kernel,
    in_specs=[in_hbm] * len(arrays),
    out_specs=in_hbm,
    out_shape=jax.ShapeDtypeStruct((len(arrays), *shape), jnp.float32),
    scratch_shapes=[
      pltpu.VMEM(shape, jnp.float32),
      pltpu.SemaphoreType.DMA,
    ],
    name="copy_all",
  )(*arrays)


@needs_libtpu
@pytest.mark.parametrize("chip", ["v3", "v5e"])
def test_each_of_many_operands_is_counted(chip):
  # The compiler passes so many operands in a table.
  array = jax.ShapeDtypeStruct((64, 128), jnp.float32)
  estimate = estimate_function(copy_all, *[array] * 40, chip=chip)
  assert not any("FAILED" in note for note in estimate.unmodelled)
  assert estimate.hbm_bytes >= 2 * 40 * 64 * 128 * 4


@needs_libtpu
@pytest.mark.parametrize("chip", ["v3", "v5e", "v6e"])
@pytest.mark.parametrize("function", [add_one, double])
def test_bytes_and_time_of_a_memory_bound_program(chip, function):
  estimate = estimate_function(function, X, chip=chip)
  floor = 2 * BYTES / CHIPS[chip].hbm_gb_per_s / 1e3
  # Pipelining loses the first and the last of 8 blocks, and the latencies.
  assert floor < estimate.microseconds < 1.25 * floor + 10
  assert estimate.hbm_bytes == pytest.approx(2 * BYTES, rel=0.01)
  assert estimate.hbm_us == pytest.approx(floor, rel=0.01)
  assert estimate.spills == 0
  assert 0 < estimate.vector_slot_use < 1
  assert estimate.compile_s > 0
  assert "HloModule" in estimate.hlo
  routine = max(estimate.routines, key=lambda r: r.microseconds)
  assert routine.calls == 1
  assert (function is double) == routine.name.startswith("double")
  assert not routine.unmodelled


@needs_libtpu
def test_same_function_twice_and_nothing_left():
  first, second = (
    estimate_function(add_one, X, chip="v5e"),
    estimate_function(add_one, X, chip="v5e"),
  )
  assert first.routines == second.routines
  assert list(_dump_folder().iterdir()) == []


@needs_libtpu
def test_trees_of_arguments():
  tree = {"a": X, "b": (X, X)}
  estimate = estimate_function(
    lambda t: t["a"] + t["b"][0] * t["b"][1], tree, chip="v5e"
  )
  assert estimate.hbm_bytes == pytest.approx(4 * BYTES, rel=0.01)


@needs_libtpu
def test_program_that_does_not_compile_leaves_nothing():
  def too_large(x):
    def kernel(x_ref, y_ref):
      y_ref[...] = x_ref[...]

    shape = jax.ShapeDtypeStruct((1 << 16, 1024), jnp.float32)
    return pl.pallas_call(kernel, out_shape=shape)(
      jnp.broadcast_to(x[:1], shape.shape)
    )

  with pytest.raises(jax.errors.JaxRuntimeError, match=r"(?i)vmem"):
    estimate_function(too_large, X, chip="v5e")
  assert list(_dump_folder().iterdir()) == []


ESTIMATE = """
import jax, jax.numpy as jnp
{before}
from podscale.bench.estimated.static import estimate_function
x = jax.ShapeDtypeStruct((256, 256), jnp.float32)
print(estimate_function(lambda x: x @ x, x, chip="v5e").microseconds)
"""
LOADED_BEFORE = """
from jax.experimental import topologies
topologies.get_topology_desc(platform="tpu", topology_name="v5e:2x2")
"""


def start(before=""):
  code = ESTIMATE.format(before=before)
  return subprocess.Popen(
    [sys.executable, "-c", code],
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


@needs_libtpu
def test_processes_side_by_side():
  processes = [start(), start()]
  outcomes = [process.communicate(timeout=300) for process in processes]
  assert [process.returncode for process in processes] == [0, 0], outcomes
  assert float(outcomes[0][0]) > 0
  assert outcomes[0][0] == outcomes[1][0]


@needs_libtpu
def test_libtpu_loaded_without_our_flags(monkeypatch):
  for name, value in (
    ("TPU_SKIP_MDS_QUERY", "1"),
    ("TPU_ACCELERATOR_TYPE", "v5litepod-4"),
    ("TPU_WORKER_HOSTNAMES", "localhost"),
    ("ALLOW_MULTIPLE_LIBTPU_LOAD", "1"),
  ):
    monkeypatch.setenv(name, value)
  monkeypatch.delenv("LIBTPU_INIT_ARGS", raising=False)
  _, errors = start(LOADED_BEFORE).communicate(timeout=300)
  assert "dumped no bundles: either this process loaded libtpu before" in errors


def test_libtpu_that_is_not_installed(monkeypatch):
  monkeypatch.setitem(sys.modules, "libtpu", None)
  with pytest.raises(UsageError, match=r"pip install 'podscale\[tpu\]'"):
    estimate_function(add_one, X, chip="v5e")


def test_unknown_chip():
  with pytest.raises(UsageError, match="unknown chip 'v5'; did you mean"):
    estimate_function(add_one, X, chip="v5")
