"""Time of a network of this folder, divided by that with podscale's ops.

Both run forward and backward. `python gain.py mobilenet_v2` measures on this
machine in float32; with `--chip v5e` it estimates one core of that TPU in
bfloat16, for which it needs libtpu and no TPU.
"""

import argparse
import statistics
import time

import convnext
import efficientnet_lite
import jax
import jax.numpy as jnp
import mnasnet
import mobilenet_v2
import mobilenet_v3
import mobilenet_v4
import plain_networks
from flax import nnx

from podscale.bench.estimated.static import estimate_function

NETWORKS = {
  "mobilenet_v2": (
    mobilenet_v2.MobileNetV2,
    plain_networks.mobilenet_v2_logits,
  ),
  "mobilenet_v3": (
    mobilenet_v3.MobileNetV3Large,
    plain_networks.mobilenet_v3_logits,
  ),
  "mnasnet": (mnasnet.MnasNetB1, plain_networks.mnasnet_logits),
  "efficientnet_lite": (
    efficientnet_lite.efficientnet_lite0,
    plain_networks.efficientnet_lite0_logits,
  ),
  "mobilenet_v4": (
    mobilenet_v4.MobileNetV4ConvSmall,
    plain_networks.mobilenet_v4_logits,
  ),
  "convnext": (convnext.ConvNeXtTiny, plain_networks.convnext_logits),
}


def gradient_functions(create, plain, dtype):
  """Make functions of weights and images to the loss and its gradients."""
  model = nnx.eval_shape(lambda: create(1000, rngs=nnx.Rngs(0)))
  if hasattr(model, "dtype"):
    model.dtype = dtype
  graph, params, rest = nnx.split(model, nnx.Param, ...)

  def fused(params, images):
    # Training reads no running statistics.
    statistics = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), rest)
    return nnx.merge(graph, nnx.State(params), statistics)(images)

  def gradients_of(logits_of):
    def loss(params, images):
      return -jax.nn.log_softmax(logits_of(params, images))[:, 0].mean()

    return jax.value_and_grad(loss)

  return nnx.to_pure_dict(params), gradients_of(fused), gradients_of(plain)


def measure(function, params, images, runs):
  """Measure the median milliseconds of a call on this machine."""
  keys = iter(jax.random.split(jax.random.key(0), 1000))

  def draw(leaf):
    return 0.1 * jax.random.normal(next(keys), leaf.shape, leaf.dtype)

  params, images = jax.tree.map(draw, (params, images))
  compiled = jax.jit(function).lower(params, images).compile()
  times = []
  for _ in range(runs + 1):
    start = time.perf_counter()
    jax.block_until_ready(compiled(params, images))
    times.append(time.perf_counter() - start)
  return 1e3 * statistics.median(times[1:])


def main() -> None:
  """Print a line for each network."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("networks", nargs="+", choices=NETWORKS)
  parser.add_argument("--chip", help="TPU to estimate; measured without")
  parser.add_argument("--batch-size", type=int, default=128)
  parser.add_argument("--runs", type=int, default=5)
  options = parser.parse_args()
  dtype = jnp.bfloat16 if options.chip else jnp.float32
  images = jax.ShapeDtypeStruct((options.batch_size, 224, 224, 3), dtype)
  for name in options.networks:
    params, fused, plain = gradient_functions(*NETWORKS[name], dtype)
    ours, theirs = (
      estimate_function(
        f, params, images, chip=options.chip, free_layouts=True
      ).microseconds
      / 1e3
      if options.chip
      else measure(f, params, images, options.runs)
      for f in (fused, plain)
    )
    print(
      f"{name}, {options.batch_size} images: plain {theirs:.1f} ms, podscale "
      f"{ours:.1f} ms, ratio {theirs / ours:.2f}",
      flush=True,
    )


if __name__ == "__main__":
  main()
