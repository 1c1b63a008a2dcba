"""Training step and evaluation step, one `shard_map` each."""

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
from .sharding import StateSharding
from .state import TrainState, Variables, merge_variables, split_variables

Metrics = dict[str, jax.Array]
TrainStep = Callable[
  [TrainState, ArrayLike, ArrayLike], tuple[TrainState, Metrics]
]
EvalStep = Callable[[Variables, ArrayLike, ArrayLike], EvaluationSums]

# Folded into the step's key, so that mixup and dropout draw different numbers.
_MIXUP = 1


class ImageScale(NamedTuple):
  """Normalisation of uint8 images.

  Attributes:
    mean: Mean of each channel, 0 to 255.
    std: Standard deviation of each channel, 0 to 255.
  """

  mean: tuple[float, ...]
  std: tuple[float, ...]

  def __call__(self, images: jax.Array) -> jax.Array:
    """Normalise images `[n, h, w, c]` to float32."""
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
  sharding: StateSharding,
) -> TrainStep:
  """Make the jitted training step.

  Each device gathers the weights and computes the gradient of the mean loss of
  its own images, with batch norm over its group. It receives its shard of the
  gradient's mean over all devices and updates its shard of the weights. The
  step averages the running statistics over all devices. The random numbers of
  an image depend only on the seed, the step and its position in the batch.

  The devices exchange the weights in float32. In bfloat16 the exchange would
  take half the time, but batch norm's parameters would lose precision.

  Args:
    model: Network whose structure is used; its arrays are ignored.
    optimizer: Update rule of the weights.
    schedule: Function from the step to its learning rate.
    config: Settings of the loss, the average and the seed.
    scale: Normalisation of the images.
    sharding: Layout of the state.

  Returns:
    A function from the state (donated), images uint8 `[n, h, w, c]` and labels
    int32 `[n]`, both split over all devices, to the state after the step and
    its metrics: float32 scalars `loss` (L2 penalty included), `learning_rate`
    and `gradient_norm`, and `leaf_gradient_norms` `[leaves]`.
  """
  model.train()
  graph = nnx.graphdef(model)
  torus = sharding.torus
  momentum = model.stem.norm.momentum  # all batch norms of a network share it
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
    gathered = params.packing.unpack(gather_shards(params.buffer, torus))
    (loss, updated), grads = jax.value_and_grad(loss_of, has_aux=True)(
      gathered,
      *device_varying((means, variances)),
      *(images, labels, step_key(config, state.step)),
    )
    packed = params.packing.pack(grads, implementation=None)
    grads = Packed(scatter_mean(packed, torus), params.packing)
    loss = lax.pmean(loss, ALL_DEVICES)
    loss, grads = _add_l2(loss, grads, params, shard, config)
    norms = leaf_norms(grads, shard=shard)
    learning_rate = jnp.asarray(schedule(state.step), jnp.float32)
    with jax.named_scope("update"):
      params, optimizer_state = optimizer.update(
        params, grads, state.optimizer, shard, learning_rate
      )
    after = Variables(
      params, *_merge_statistics(updated, means, variances, momentum)
    )
    average = update_ema(
      state.average,
      after,
      num_updates=state.step + 1,
      max_decay=config.ema_decay,
    )
    metrics = {
      "loss": loss,
      "learning_rate": learning_rate,
      "gradient_norm": jnp.linalg.norm(norms),
      "leaf_gradient_norms": norms,
    }
    return TrainState(state.step + 1, after, optimizer_state, average), metrics

  def step(state, images, labels):
    specs = sharding.specs(state)
    return jax.shard_map(
      local_step,
      mesh=sharding.mesh,
      in_specs=(specs, P(ALL_DEVICES), P(ALL_DEVICES)),
      out_specs=(specs, P()),
    )(state, images, labels)

  return jax.jit(step, donate_argnums=0)


def make_augment(config: Config, mesh: Mesh) -> Callable[..., jax.Array]:
  """Make the function that augments the images of a batch on the devices.

  Args:
    config: Settings; with `augment_on="host"` the function changes nothing.
    mesh: Mesh from `collectives.group_mesh`.

  Returns:
    A function from a batch on the devices, a dict, to its images.
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
  """Make the jitted evaluation step.

  Args:
    model: Network whose structure is used; its arrays are ignored.
    scale: Normalisation of the images.
    mesh: Mesh from `collectives.group_mesh`.

  Returns:
    A function from the variables to evaluate, images uint8 `[n, h, w, c]` and
    labels int32 `[n]` (-1 for padding), both split over all devices, to the
    sums over all devices.
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
  """Compute each example's cross-entropy in nats with its smoothed label.

  The label has probability `1 - smoothing + smoothing / classes`, every other
  class `smoothing / classes` (Szegedy et al. 2016, section 7).

  Args:
    logits: Logits, float32 `[n, classes]`.
    labels: Labels, integer `[n]`.
    smoothing: Share of the probability spread over all classes, in [0, 1).

  Returns:
    Cross-entropies, float32 `[n]`.

  >>> import jax.numpy as jnp
  >>> round(cross_entropy(jnp.zeros((1, 4)), jnp.array([2]), 0.1).item(), 4)
  1.3863
  """
  log_probs = jax.nn.log_softmax(logits)
  own = jnp.take_along_axis(log_probs, labels[:, None], axis=1)[:, 0]
  smooth = jnp.mean(log_probs, axis=1)
  return -((1 - smoothing) * own + smoothing * smooth)


def step_key(config: Config, step: jax.Array) -> jax.Array:
  """Return the PRNG key of a step, the same on all devices."""
  return jax.random.fold_in(jax.random.key(config.seed), step)


def first_image(images: jax.Array) -> jax.Array:
  """Return the index in the batch of this device's first image.

  Call it inside `shard_map`.

  Args:
    images: This device's images, `[n, ...]`.
  """
  return lax.axis_index(ALL_DEVICES) * len(images)


def _merge_statistics(
  updated: Variables, means: Packed, variances: Packed, momentum: float
) -> tuple[Packed, Packed]:
  """Merge the running statistics of all groups; see the collective."""
  # Buffers, because the two trees name their leaves differently.
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
