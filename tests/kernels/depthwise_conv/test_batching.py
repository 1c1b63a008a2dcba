"""`jax.vmap` of the depthwise convolution, against a loop over examples."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.pallas import tpu as pltpu
from support.libtpu_mark import NEEDS_LIBTPU

from podscale.bench.estimated.static.compile import lowered_for
from podscale.kernels import depthwise_conv_bn

SIZE = 3
SHAPES = (4, 4, 2, 6), (3, 3, 3), (3,), (3,)


def draw(dimension):
  """Draw x, filters, scale and offset, each for one example or for all."""
  rng = np.random.default_rng(0)
  return [
    jnp.asarray(
      rng.normal(size=shape if axis is None else (SIZE, *shape)), jnp.float32
    )
    for shape, axis in zip(SHAPES, dimension, strict=True)
  ]


def results(options, *args):
  """Compute y, mean, m2 and the gradients of one example."""

  def loss(*args):
    y = depthwise_conv_bn(*args, activation="silu", **options)
    y, moments = y if options["moments"] else (y, None)
    sums = [] if moments is None else [moments.mean, moments.m2]
    # Below 1, so that the sine does not enlarge the rounding of m2.
    terms = (jnp.sum(jnp.sin(0.01 * v)) for v in (y, *sums))
    return 100 * sum(terms), (y, *sums)

  gradients, values = jax.grad(loss, argnums=(0, 1, 2, 3), has_aux=True)(*args)
  return *values, *gradients


def looped(options, dimension, args):
  examples = [
    results(
      options,
      *(a if d is None else a[i] for a, d in zip(args, dimension, strict=True)),
    )
    for i in range(SIZE)
  ]
  return [np.stack(values) for values in zip(*examples, strict=True)]


@pytest.mark.parametrize("implementation", ["xla", "pallas_tpu"])
@pytest.mark.parametrize(
  ("dimension", "options"),
  [
    ((0, None, None, None), {"bands": 2}),
    ((0, 0, 0, None), {"bands": 2, "stride": 2}),
    ((None, 0, None, 0), {"bands": 2, "moments": False}),
    ((0, None, 0, 0), {"layout": "HWCN", "moments": False}),
  ],
  ids=["shared filters", "own filters", "shared x", "HWCN"],
)
def test_an_axis_is_a_loop_over_examples(dimension, options, implementation):
  options = {"moments": True, **options}
  args = draw(dimension)
  if options.get("layout") == "HWCN":
    args[0] = args[0][..., :3].swapaxes(-1, -2)
  want = looped({**options, "implementation": "xla"}, dimension, args)
  mapped = jax.vmap(
    partial(results, {**options, "implementation": implementation}),
    in_axes=dimension,
  )
  with pltpu.force_tpu_interpret_mode():
    actual = mapped(*args)
  for a, b in zip(actual, want, strict=True):
    # Sums of at most 288 products, in another order.
    allowed = 288 * 2.0**-24 * np.abs(b).max()
    np.testing.assert_allclose(a, b, rtol=0, atol=allowed)


def test_gradients_of_examples_differentiate_again():
  args = draw((0, None, None, None))
  args[0] = args[0][..., :3]

  def gradients(x, *rest):
    return results({"moments": True}, x, *rest)[3:]

  def penalty(filters):
    mapped = jax.vmap(partial(gradients), in_axes=(0, None, None, None))
    return sum(jnp.sum(g * g) for g in mapped(args[0], filters, *args[2:]))

  def looped_penalty(filters):
    return sum(
      jnp.sum(g * g) for x in args[0] for g in gradients(x, filters, *args[2:])
    )

  actual, want = jax.grad(penalty)(args[1]), jax.grad(looped_penalty)(args[1])
  # As above, twice.
  allowed = 2 * 288 * 2.0**-24 * np.abs(want).max()
  np.testing.assert_allclose(actual, want, rtol=0, atol=allowed)


class TestOnATpu:
  pytestmark = NEEDS_LIBTPU

  def test_one_kernel_computes_all_examples(self):
    def f(x, filters):
      return jax.vmap(lambda x: depthwise_conv_bn(x, filters, layout="NHWC"))(x)

    x = jax.ShapeDtypeStruct((4, 16, 14, 14, 128), jnp.bfloat16)
    filters = jax.ShapeDtypeStruct((3, 3, 128), jnp.bfloat16)
    text = lowered_for(f, x, filters, chip="v5e", free_layouts=True).as_text()
    assert text.count("tpu_custom_call") == 1
    assert "14x14x16x512" in text  # the examples' channels side by side
