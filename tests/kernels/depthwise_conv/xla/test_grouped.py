"""The grouped convolution, which XLA runs on TPUs, on the CPU."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.depthwise_cases import Case, check, check_without_moments

from podscale.kernels import depthwise_conv_bn
from podscale.kernels.depthwise_conv import vjp

grouped = partial(depthwise_conv_bn, implementation="xla")


@pytest.fixture
def grouped_everywhere(monkeypatch):
  """Run XLA's implementation for TPUs on this platform."""
  monkeypatch.setitem(vjp._ELSEWHERE, "xla", vjp._ON_TPU["xla"])


CASES = [
  Case(3, 1, "SAME", (5, 4, 7, 3)),
  Case(3, 2, "VALID", (5, 6, 3, 3), "HWCN", "float32", None, "offset"),
  Case(5, 2, "SAME", (6, 5, 2, 3), activation="relu", affine="scale"),
  Case(7, 1, "SAME", (2, 3, 1, 3), affine=""),
  Case(3, 2, "SAME", (6, 5, 3, 3), dtype="bfloat16"),
  Case(3, 2, 1, (6, 4, 2, 3)),
  Case((1, 5), (1, 2), ((0, 0), (3, 0)), (3, 6, 2, 3)),
  Case(3, 1, "SAME", (7, 6, 2, 3), dilation=(3, 2)),
  Case(1, 2, ((9, 0), (0, 0)), (1, 1, 1, 2), activation=None, affine=""),
]


@pytest.mark.usefixtures("grouped_everywhere")
@pytest.mark.parametrize(
  "case", CASES, ids=lambda case: "-".join(map(str, case))
)
def test_values_and_gradients(case):
  check(case, grouped)


@pytest.mark.usefixtures("grouped_everywhere")
def test_without_moments():
  check_without_moments(CASES[0], grouped)


@pytest.mark.usefixtures("grouped_everywhere")
@pytest.mark.parametrize("mean", [0.0, 100.0])
def test_the_variance_is_that_of_values_far_from_zero(mean):
  rng = np.random.default_rng(0)
  x = jnp.asarray(rng.normal(mean, 1, (6, 6, 16, 4)), jnp.float32)
  center = jnp.zeros((3, 3, 4)).at[1, 1].set(1.0)  # y is x
  _, moments = grouped(
    *(x, center, None, None),
    activation=None,
    stride=1,
    padding="SAME",
    layout="HWNC",
  )
  variance = np.float64(moments.m2) / np.float64(moments.count)
  # The public op has the same bound for |mean| / std up to 100.
  exact = np.asarray(x, np.float64).var((0, 1, 2))
  np.testing.assert_allclose(variance, exact, rtol=1e-4)


@pytest.mark.parametrize("platform", ["cpu", "tpu"])
def test_each_platform_gets_its_own_implementation(platform):
  arguments = (jnp.ones((4, 4, 2, 3)), jnp.ones((3, 3, 3)))

  def grads(*args):
    def loss(*args):
      y, moments = depthwise_conv_bn(*args, implementation="xla")
      return jnp.sum(y) + jnp.sum(moments.m2)

    return jax.grad(loss, argnums=(0, 1))(*args)

  lowered = (
    jax.jit(grads).trace(*arguments).lower(lowering_platforms=(platform,))
  )
  convolutions = len(re.findall("stablehlo.convolution", lowered.as_text()))
  assert (convolutions > 0) == (platform == "tpu")
