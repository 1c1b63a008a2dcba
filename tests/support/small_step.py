"""Training step small enough for tests, and its sensitivity to rounding."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from support.tolerance import half_ulp

from podscale.collectives import group_mesh
from podscale.train.assembly import assemble, resolve_model
from podscale.train.settings.config import ModelConfig, ScheduleConfig
from podscale.train.settings.presets import get_preset
from podscale.train.step import ImageScale

BATCH = 32
CLASSES = 10
EXAMPLES = 10 * BATCH
SCALE = ImageScale((120.0, 110.0, 100.0), (60.0, 50.0, 40.0))
CONFIG = dataclasses.replace(
  get_preset("smoke"),
  batch_size=BATCH,
  model=ModelConfig(
    name="b0",
    width=0.25,
    depth=0.25,
    resolution=32,
    stem_stride=1,
    dropout=0.0,
    survival_prob=1.0,
    dtype="float32",
  ),
  optimizer=dataclasses.replace(get_preset("smoke").optimizer, l2=1e-3),
  # From 0.5 towards 0.1: another rate at each step, the first not 0.
  schedule=ScheduleConfig(
    name="polynomial",
    lr_per_256=0.5 * 256 / BATCH,
    warmup_epochs=0,
    power=1,
    end_learning_rate=0.1,
  ),
)
SPEC = resolve_model(CONFIG.model)


def assemble_on(devices, group_size, config=CONFIG, **network):
  """Assemble the step on the first devices, in batch-norm groups."""
  return assemble(
    config,
    group_mesh(jax.devices()[:devices], group_size),
    examples=EXAMPLES,
    num_classes=CLASSES,
    scale=SCALE,
    **network,
  )


def batch(seed):
  random = np.random.default_rng(seed)
  images = random.integers(0, 256, (BATCH, 32, 32, 3), dtype=np.uint8)
  return images, random.integers(0, CLASSES, BATCH, dtype=np.int32)


def moved_weights(state, seed):
  """Copy a state with each weight moved by half an ulp, up or down."""
  random = np.random.default_rng(seed)

  def moved(x):
    signs = random.choice([-1, 1], x.shape)
    values = np.asarray(x, np.float64) * (1 + half_ulp(x.dtype) * signs)
    return jax.device_put(values.astype(x.dtype), x.sharding)

  params = jax.tree.map(moved, state.variables.params)
  copy = jax.tree.map(jnp.copy, state)
  return copy._replace(variables=copy.variables._replace(params=params))
