"""Winograd's transforms against sums of products."""

import numpy as np
import pytest

from podscale.kernels.depthwise_conv.tpu.winograd import ALGORITHMS

KERNEL_SIZES = pytest.mark.parametrize("kernel_size", [3, 5])


def draw(kernel_size):
  a = ALGORITHMS[kernel_size]
  rng = np.random.default_rng(kernel_size)
  sizes = a.points, a.taps, a.outputs
  return a, *(list(rng.normal(size=(size, 4))) for size in sizes)


def product(xs, ys):
  return [x * y for x, y in zip(xs, ys, strict=True)]


@KERNEL_SIZES
def test_a_tile_of_outputs(kernel_size):
  a, inputs, taps, _ = draw(kernel_size)
  outputs = a.output_transform(
    product(a.input_transform(inputs), a.filter_transform(taps))
  )
  assert (a.points, a.taps) == (a.outputs + kernel_size - 1, kernel_size)
  for i, output in enumerate(outputs):
    exact = sum(inputs[i + b] * taps[b] for b in range(kernel_size))
    # A few dozen operations in float64 with coefficients up to 16.
    np.testing.assert_allclose(output, exact, atol=1e-13)


@KERNEL_SIZES
def test_the_gradient_of_the_taps(kernel_size):
  a, inputs, _, cotangents = draw(kernel_size)
  gradient = a.filter_transposed(
    product(a.input_transform(inputs), a.output_transposed(cotangents))
  )
  for b, tap in enumerate(gradient):
    exact = sum(inputs[i + b] * cotangents[i] for i in range(a.outputs))
    np.testing.assert_allclose(tap, exact, atol=1e-13)


@KERNEL_SIZES
def test_none_is_zero(kernel_size):
  a, inputs, _, cotangents = draw(kernel_size)
  for transform, values in (
    (a.input_transform, inputs),
    (a.output_transposed, cotangents),
  ):
    for absent in range(len(values)):
      with_none = list(values)
      with_none[absent] = None
      with_zero = list(values)
      with_zero[absent] = np.zeros(4)
      for got, want in zip(
        transform(with_none), transform(with_zero), strict=True
      ):
        np.testing.assert_allclose(0.0 if got is None else got, want)
