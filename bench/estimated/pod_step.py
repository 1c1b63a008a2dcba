"""The training step of a preset for a TPU slice that is not there."""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from ...collectives import ALL_DEVICES, MEMBER, group_mesh, group_size_for
from ...kernels import Packed
from ...model import EfficientNet, ModelSpec
from ...train.data.source import IMAGENET_MEAN, IMAGENET_STD
from ...train.optimizer import make_optimizer
from ...train.schedule import make_schedule
from ...train.settings.config import Config
from ...train.setup import resolve_model
from ...train.sharding import Placement
from ...train.state import first_state
from ...train.step import ImageScale, make_train_step
from ..plain.model import PlainEfficientNet
from ..plain.step import make_plain_step, plain_state

_IMAGES = 1_281_167  # of ImageNet
_CLASSES = 1000
_SCALE = ImageScale(IMAGENET_MEAN, IMAGENET_STD)


class _Parts(NamedTuple):
  spec: ModelSpec
  mesh: Mesh
  schedule: optax.Schedule


def lower_step(
  config: Config, devices: Sequence[jax.Device]
) -> jax.stages.Lowered:
  """The real training step, lowered for devices that it need not run on.

  Args:
    config: A preset's settings, with ImageNet's classes unless it names others.
    devices: Of a whole slice, such as `static.slice_devices` gives.

  Returns:
    What is to be compiled.
  """
  parts = _parts(config, devices)
  placement = Placement(parts.mesh)
  optimizer = make_optimizer(config.optimizer, parts.schedule)
  create = partial(_create, EfficientNet, config, parts.spec)
  step: Any = make_train_step(
    nnx.eval_shape(lambda: create(nnx.Rngs(0))),
    optimizer,
    parts.schedule,
    config=config,
    scale=_SCALE,
    placement=placement,
  )
  shapes = jax.eval_shape(
    lambda: first_state(create, optimizer, seed=0, shards=len(devices))
  )
  state = jax.tree.map(
    lambda part, spec: _placed(part, parts.mesh, spec),
    shapes,
    placement.specs(shapes),
    is_leaf=lambda part: isinstance(part, Packed),
  )
  return step.lower(state, *_batch(config, parts))


def lower_plain_step(
  config: Config, devices: Sequence[jax.Device]
) -> jax.stages.Lowered:
  """The same recipe in plain JAX, `plain_step`, lowered for the same devices.

  Args:
    config: As of `lower_step`.
    devices: Likewise.
  """
  parts = _parts(config, devices)
  create = partial(_create, PlainEfficientNet, config, parts.spec)
  step = make_plain_step(
    nnx.eval_shape(lambda: create(nnx.Rngs(0))),
    parts.schedule,
    config=config,
    scale=_SCALE,
    mesh=parts.mesh,
  )
  shapes = jax.eval_shape(
    lambda: plain_state(create(nnx.Rngs(0)), config, parts.schedule)
  )
  state = _placed(shapes, parts.mesh, P())
  return step.lower(state, *_batch(config, parts))


def _parts(config: Config, devices: Sequence[jax.Device]) -> _Parts:
  mesh = group_mesh(
    devices,
    config.batch_norm.group_size
    or group_size_for(
      config.batch_norm.images_per_group, config.batch_size, len(devices)
    ),
  )
  steps_per_epoch = _IMAGES / config.batch_size
  schedule = make_schedule(
    config.schedule,
    batch_size=config.batch_size,
    steps_per_epoch=steps_per_epoch,
    total_steps=int(config.epochs * steps_per_epoch),
  )
  return _Parts(resolve_model(config.model), mesh, schedule)


def _create[Network: EfficientNet](
  network: type[Network], config: Config, spec: ModelSpec, rngs: nnx.Rngs
) -> Network:
  return network(
    spec,
    num_classes=config.model.num_classes or _CLASSES,
    dtype=config.model.dtype,
    axis_name=MEMBER,
    momentum=config.batch_norm.momentum,
    rngs=rngs,
  )


def _batch(config: Config, parts: _Parts) -> Any:
  """The shapes of images and labels."""
  size, side = config.batch_size, parts.spec.resolution
  images = jax.ShapeDtypeStruct((size, side, side, 3), jnp.uint8)
  labels = jax.ShapeDtypeStruct((size,), jnp.int32)
  return _placed((images, labels), parts.mesh, P(ALL_DEVICES))


def _placed(tree: Any, mesh: Mesh, spec: P) -> Any:
  sharding = NamedSharding(mesh, spec)
  return jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree
  )
