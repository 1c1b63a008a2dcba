"""The training step of a preset for a TPU slice that is not there."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from ..collectives import ALL_DEVICES, MEMBER, group_mesh, group_size_for
from ..kernels import Packed
from ..model import EfficientNet
from ..train.config import Config
from ..train.data.source import IMAGENET_MEAN, IMAGENET_STD
from ..train.optimizer import make_optimizer
from ..train.placement import Placement
from ..train.schedule import make_schedule
from ..train.setup import resolve_model
from ..train.state import first_state
from ..train.step import ImageScale, make_train_step

_IMAGES = 1_281_167  # of ImageNet
_CLASSES = 1000


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
  spec = resolve_model(config.model)
  mesh = group_mesh(
    devices,
    config.batch_norm.group_size
    or group_size_for(
      config.batch_norm.images_per_group, config.batch_size, len(devices)
    ),
  )
  placement = Placement(mesh)
  steps_per_epoch = _IMAGES / config.batch_size
  schedule = make_schedule(
    config.schedule,
    batch_size=config.batch_size,
    steps_per_epoch=steps_per_epoch,
    total_steps=int(config.epochs * steps_per_epoch),
  )
  optimizer = make_optimizer(config.optimizer, schedule)

  def create(rngs: nnx.Rngs) -> EfficientNet:
    return EfficientNet(
      spec,
      num_classes=config.model.num_classes or _CLASSES,
      dtype=config.model.dtype,
      axis_name=MEMBER,
      momentum=config.batch_norm.momentum,
      rngs=rngs,
    )

  step: Any = make_train_step(
    nnx.eval_shape(lambda: create(nnx.Rngs(0))),
    optimizer,
    schedule,
    config=config,
    scale=ImageScale(IMAGENET_MEAN, IMAGENET_STD),
    placement=placement,
  )

  def sharded(x, spec):
    return jax.ShapeDtypeStruct(
      x.shape, x.dtype, sharding=NamedSharding(mesh, spec)
    )

  shapes = jax.eval_shape(
    lambda: first_state(create, optimizer, seed=0, shards=len(devices))
  )
  state = jax.tree.map(
    lambda part, spec: jax.tree.map(lambda x: sharded(x, spec), part),
    shapes,
    placement.specs(shapes),
    is_leaf=lambda part: isinstance(part, Packed),
  )
  side = spec.resolution
  images = jax.ShapeDtypeStruct((config.batch_size, side, side, 3), jnp.uint8)
  labels = jax.ShapeDtypeStruct((config.batch_size,), jnp.int32)
  return step.lower(
    state, sharded(images, P(ALL_DEVICES)), sharded(labels, P(ALL_DEVICES))
  )
