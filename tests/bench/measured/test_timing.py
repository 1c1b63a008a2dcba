"""Timing a compiled function."""

import jax
import jax.numpy as jnp

from podscale.bench.measured.timing import compile_and_time


def test_a_function_is_run_once_more_than_timed():
  calls = []

  def function(x):
    jax.debug.callback(lambda: calls.append(1))
    return x + 1

  timing = compile_and_time(function, jnp.zeros(3), runs=4)
  jax.effects_barrier()
  assert len(calls) == 5
  assert len(timing.runs) == 4
  assert min(timing.lower, timing.compile, *timing.runs) > 0
  assert sorted(timing.runs)[1] <= timing.median <= sorted(timing.runs)[2]
  assert timing.first.tolist() == [1, 1, 1]
  assert timing.clock == "wall"
  assert timing.peak_bytes >= 24
  row = timing.row()
  assert row["samples_s"] == timing.runs and row["median_s"] == timing.median


def test_a_step_is_given_its_own_result_and_donates():
  seen = []

  def step(state, images):
    jax.debug.callback(lambda s: seen.append(int(s)), state)
    return state + images, {"loss": 2 * state}

  step = jax.jit(step, donate_argnums=0)
  timing = compile_and_time(
    step, jnp.int32(10), jnp.int32(1), runs=3, carry=True
  )
  jax.effects_barrier()
  assert seen == [10, 11, 12, 13]
  assert int(timing.first[1]["loss"]) == 20
