"""The training step and the evaluation step: one `shard_map` each."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import lax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from jax.typing import ArrayLike

from ..collectives import (
  ALL_DEVICES,
  EvaluationSums,
  device_varying,
  evaluation_sums,
  gather_shards,
  merge_running_statistics,
  own_shard,
  scatter_mean,
)
from ..kernels import Packed, Shard, leaf_norms
from ..model import EfficientNet
from .data import OP_IDS, OP_VALUES
from .data.augment.device_augment import augment_on_device
from .ema import update_ema
from .mixup import mixup
from .optimizer import Optimizer, l2_penalty
from .settings.config import Config
from .sharding import Placement
from .state import TrainState, Variables, merge_variables, split_variables

Metrics = dict[str, jax.Array]
TrainStep = Callable[
  [TrainState, ArrayLike, ArrayLike], tuple[TrainState, Metrics]
]
EvalStep = Callable[[Variables, ArrayLike, ArrayLike], EvaluationSums]

_MIXUP = 1  # folded into the step's key, which the dropout has as it is


class ImageScale(NamedTuple):
  """How uint8 images become the network's input.

  Attributes:
    mean: To subtract from each channel, 0 to 255.
    std: To divide each channel by, 0 to 255.
  """

  mean: tuple[float, ...]
  std: tuple[float, ...]

  def __call__(self, images: jax.Array) -> jax.Array:
    """Images [n, h, w, c], normalised, in float32."""
    mean = jnp.array(self.mean, jnp.float32)[None, None, None]
    std = jnp.array(self.std, jnp.float32)[None, None, None]
    return (images.astype(jnp.float32) - mean) / std


def make_train_step(
  model: EfficientNet,
  optimizer: Optimizer,
  schedule: optax.Schedule,
  *,
  config: Config,
  scale: ImageScale,
  placement: Placement,
) -> TrainStep:
  """The jitted training step: images in, updated state out.

  Each device gathers the weights, takes the gradient of its own images' mean
  loss, with batch norm over its group, gets its shard of the mean gradient over
  all devices, and updates its shard of the weights. Running statistics are
  averaged over all devices. The random numbers of an image depend on the seed,
  the step and its place in the batch only.

  The weights are gathered in float32: in bfloat16 they would travel in half the
  time, but batch norm's would lose digits.

  Args:
    model: For its structure; its arrays are not used.
    optimizer: What the weights are updated with.
    schedule: For the reported learning rate, the optimizer's own.
    config: Settings of the loss, the average and the seed.
    scale: How images are normalised.
    placement: Of the state.

  Returns:
    A function of the state (donated), images uint8 `[n, h, w, c]` and labels
    int32 `[n]`, both split over all devices, to the state after the step and
    its metrics: float32 scalars `loss` (with L2), `learning_rate` and
    `gradient_norm`, and `leaf_gradient_norms` `[leaves]`.
  """
  model.train()
  graph = nnx.graphdef(model)
  torus = placement.torus
  alpha = config.data.mixup_alpha

  def loss_of(params, means, variances, images, labels, key):
    variables = Variables(params, means.unpack(), variances.unpack())
    network = merge_variables(graph, variables)
    images, mixed = scale(images), None
    if alpha:
      mixed = mixup(
        images,
        labels,
        alpha=alpha,
        key=jax.random.fold_in(key, _MIXUP),
        first_image=first_image(images),
      )
      images = mixed.images
    logits = network(
      images, rngs=nnx.Rngs(dropout=key), first_image=first_image(images)
    )
    losses = cross_entropy(logits, labels, config.label_smoothing)
    if mixed:
      partners = cross_entropy(logits, mixed.partners, config.label_smoothing)
      losses = mixed.share * losses + (1 - mixed.share) * partners
    return jnp.mean(losses), split_variables(network)

  def local_step(state, images, labels):
    params, means, variances = state.variables
    shard = own_shard(torus)
    whole = params.packing.unpack(gather_shards(params.buffer, torus))
    (loss, updated), grads = jax.value_and_grad(loss_of, has_aux=True)(
      whole,
      *device_varying((means, variances)),
      *(images, labels, step_key(config, state.step)),
    )
    packed = params.packing.pack(grads, implementation=None)
    grads = Packed(scatter_mean(packed, torus), params.packing)
    loss = lax.pmean(loss, ALL_DEVICES)
    loss, grads = _add_l2(loss, grads, params, shard, config)
    norms = leaf_norms(grads, shard=shard)
    with jax.named_scope("update"):
      params, optimizer_state = optimizer.update(
        params, grads, state.optimizer, shard
      )
    after = Variables(
      params,
      *_merge_statistics(updated, means, variances, config.batch_norm.momentum),
    )
    average = update_ema(
      state.average,
      after,
      num_updates=state.step + 1,
      max_decay=config.ema_decay,
    )
    metrics = {
      "loss": loss,
      "learning_rate": jnp.asarray(schedule(state.step), jnp.float32),
      "gradient_norm": jnp.linalg.norm(norms),
      "leaf_gradient_norms": norms,
    }
    return TrainState(state.step + 1, after, optimizer_state, average), metrics

  def step(state, images, labels):
    specs = placement.specs(state)
    return jax.shard_map(
      local_step,
      mesh=placement.mesh,
      in_specs=(specs, P(ALL_DEVICES), P(ALL_DEVICES)),
      out_specs=(specs, P()),
    )(state, images, labels)

  return jax.jit(step, donate_argnums=0)


def make_augment(config: Config, mesh: Mesh) -> Callable[..., jax.Array]:
  """What the images of a batch go through before the training step.

  Args:
    config: Whether the host has left their augmentation to the devices.
    mesh: From `collectives.group_mesh`.

  Returns:
    A function of a batch on the devices, a dict, to its images.
  """
  if config.data.augment == "none" or config.data.augment_on == "host":
    return lambda batch: batch["image"]
  spread = P(ALL_DEVICES)
  later = jax.jit(
    jax.shard_map(
      augment_on_device,
      mesh=mesh,
      in_specs=(spread, spread, spread),
      out_specs=spread,
    )
  )
  return lambda batch: later(batch["image"], batch[OP_IDS], batch[OP_VALUES])


def make_eval_step(
  model: EfficientNet, *, scale: ImageScale, mesh: Mesh
) -> EvalStep:
  """The jitted evaluation step.

  Args:
    model: For its structure; its arrays are not used.
    scale: How images are normalised.
    mesh: From `collectives.group_mesh`.

  Returns:
    A function of the variables to evaluate, images uint8 `[n, h, w, c]` and
    labels int32 `[n]` (-1 for padding) split over all devices, to the sums over
    all of them.
  """
  model.eval()
  graph = nnx.graphdef(model)

  def local_step(variables, images, labels):
    logits = merge_variables(graph, variables)(scale(images))
    return evaluation_sums(logits, labels)

  sharded = jax.shard_map(
    local_step,
    mesh=mesh,
    in_specs=(P(), P(ALL_DEVICES), P(ALL_DEVICES)),
    out_specs=P(),
  )
  return jax.jit(sharded)


def cross_entropy(
  logits: jax.Array, labels: jax.Array, smoothing: float
) -> jax.Array:
  """Cross-entropy in nats of each example against its smoothed label.

  The label has probability `1 - smoothing + smoothing / classes`, each other
  class `smoothing / classes` (Szegedy et al. 2016, section 7).

  Args:
    logits: `[n, classes]` float32.
    labels: `[n]` integer.
    smoothing: In [0, 1).

  Returns:
    float32 `[n]`.

  >>> import jax.numpy as jnp
  >>> round(cross_entropy(jnp.zeros((1, 4)), jnp.array([2]), 0.1).item(), 4)
  1.3863
  """
  log_probs = jax.nn.log_softmax(logits)
  own = jnp.take_along_axis(log_probs, labels[:, None], axis=1)[:, 0]
  smooth = jnp.mean(log_probs, axis=1)
  return -((1 - smoothing) * own + smoothing * smooth)


def step_key(config: Config, step: jax.Array) -> jax.Array:
  """The random numbers of a step, the same on all devices."""
  return jax.random.fold_in(jax.random.key(config.seed), step)


def first_image(images: jax.Array) -> jax.Array:
  """Where this device's images begin in the batch, inside `shard_map`."""
  return lax.axis_index(ALL_DEVICES) * len(images)


def _merge_statistics(
  updated: Variables, means: Packed, variances: Packed, momentum: float
) -> tuple[Packed, Packed]:
  """The running statistics of all groups, with what lies between them."""
  # The buffers: the two trees have the same layers but other names at leaves.
  merged = merge_running_statistics(
    means.packing.pack(updated.means, implementation=None),
    variances.packing.pack(updated.variances, implementation=None),
    old_means=means.buffer,
    momentum=momentum,
  )
  return (
    Packed(merged[0], means.packing),
    Packed(merged[1], variances.packing),
  )


def _add_l2(
  loss: jax.Array,
  grads: Packed,
  params: Packed,
  shard: Shard,
  config: Config,
) -> tuple[jax.Array, Packed]:
  coefficient = config.optimizer.l2
  if coefficient == 0:
    return loss, grads
  penalty, decay = l2_penalty(params, shard)
  loss += coefficient * lax.psum(penalty, ALL_DEVICES)
  grads = jax.tree.map(lambda g, d: g + coefficient * d, grads, decay)
  return loss, grads
