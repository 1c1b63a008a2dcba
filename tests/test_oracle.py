"""The oracle's gradients are the derivatives of its values."""

import numpy as np
import pytest
from support import oracle

from podscale.kernels.common.activation import ACTIVATIONS


def assert_gradients(function, gradients, inputs, names):
  """Compare with central differences along a random direction.

  Args:
    function: Function from the inputs to a dict of results.
    gradients: Function from the inputs and the cotangents to a dict.
    inputs: Inputs, float64 arrays.
    names: Names of the differentiated results, in the order of the cotangents.
  """
  rng = np.random.default_rng(0)
  results = function(*inputs)
  cotangents = [rng.normal(size=results[name].shape) for name in names]
  direction = [rng.normal(size=x.shape) for x in inputs]
  step = 1e-5

  def along(t):
    moved = [x + t * d for x, d in zip(inputs, direction, strict=True)]
    results = function(*moved)
    pairs = zip(names, cotangents, strict=True)
    return sum((results[name] * cotangent).sum() for name, cotangent in pairs)

  slope = (along(step) - along(-step)) / (2 * step)
  grads = gradients(*inputs, *cotangents).values()
  want = sum((g * d).sum() for g, d in zip(grads, direction, strict=True))
  # The differences have an error of step^2 times a third derivative (about
  # 1e3), and of the sum's roundoff over the step: 1e-16 * 1e3 / 1e-5.
  np.testing.assert_allclose(slope, want, rtol=1e-6)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize("stride", [1, 2])
def test_depthwise_conv_bn(stride, padding, activation):
  rng = np.random.default_rng(1)
  inputs = [rng.normal(size=s) for s in ((6, 5, 2, 3), (3, 3, 3), (3,), (3,))]
  settings = dict(stride=stride, padding=padding, activation=activation)

  assert_gradients(
    lambda *args: oracle.depthwise_conv_bn(*args, **settings),
    lambda *args: oracle.depthwise_conv_bn_gradients(*args, **settings),
    inputs,
    ["y", "mean", "m2"],
  )


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_batch_norm(activation):
  rng = np.random.default_rng(2)
  inputs = [rng.normal(size=s) for s in ((3, 4, 2, 3), (3,), (3,))]
  assert_gradients(
    lambda *args: oracle.batch_norm(*args, activation=activation),
    lambda *args: oracle.batch_norm_gradients(*args, activation=activation),
    inputs,
    ["y", "mean"],
  )


def test_batch_norm_affine():
  rng = np.random.default_rng(3)
  mean, gamma, beta = rng.normal(size=(3, 4))
  assert_gradients(
    lambda *args: oracle.batch_norm_affine(7, *args, epsilon=0.1),
    lambda *args: oracle.batch_norm_affine_gradients(7, *args, epsilon=0.1),
    [mean, rng.uniform(1, 2, 4), gamma, beta],
    ["scale", "offset"],
  )
