"""Calls of `depthwise_conv_bn`, and their comparison with the oracle."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from support import oracle
from support.banded import in_bands
from support.plain_activation import activate
from support.tolerance import assert_accurate, half_ulp

from podscale.kernels import Moments, depthwise_conv_bn, to_bands

F32, BF16 = jnp.float32, jnp.bfloat16


class Case(NamedTuple):
  """Sizes and settings of one call."""

  kernel_size: int | tuple[int, int]
  stride: int | tuple[int, int]
  padding: str | int | tuple
  shape: tuple[int, int, int, int]  # h, w, n, c
  layout: str = "HWNC"
  dtype: str = "float32"
  activation: str | None = "silu"
  affine: str = "scale and offset"
  bands: int = 1
  dilation: int | tuple[int, int] = 1

  @property
  def settings(self):
    return {
      "activation": self.activation,
      "stride": self.stride,
      "padding": self.padding,
      "dilation": self.dilation,
    }


def draw(case):
  """Draw x, filters, scale, offset and cotangents of y, mean and m2; HWNC."""
  rng = np.random.default_rng(case.shape)
  h, w, n, c = case.shape
  x = jnp.asarray(rng.normal(size=case.shape), case.dtype)
  filters = jnp.asarray(
    rng.normal(size=(*oracle.pair(case.kernel_size), c)), case.dtype
  )
  scale = offset = None
  if "scale" in case.affine:
    scale = jnp.asarray(rng.uniform(0.5, 2, c), F32)
  if "offset" in case.affine:
    offset = jnp.asarray(rng.normal(size=c), F32)
  ho, wo = oracle.depthwise_conv_bn(
    *(x, filters, scale, offset), **case.settings
  )["y"].shape[:2]
  dy = jnp.asarray(rng.normal(size=(ho, wo, n, c)), case.dtype)
  # With this factor y, mean and m2 have the same weight in the gradients.
  dmean = jnp.asarray(ho * wo * n * rng.normal(size=c), F32)
  dm2 = jnp.asarray(rng.normal(size=c), F32)
  return x, filters, scale, offset, dy, dmean, dm2


def plain(
  x, filters, scale, offset, *, activation, stride, padding, dilation=1
):
  """Compute the equivalent of the op that its docstring gives, HWNC."""
  z = x.astype(F32)
  if scale is not None:
    z = z * scale[None, None, None]
  if offset is not None:
    z = z + offset[None, None, None]
  z = activate(z, activation)
  y = lax.conv_general_dilated(
    z.astype(x.dtype),
    filters[:, :, None],
    oracle.pair(stride),
    [(padding, padding)] * 2 if isinstance(padding, int) else padding,
    rhs_dilation=oracle.pair(dilation),
    feature_group_count=x.shape[3],
    dimension_numbers=("HWNC", "HWIO", "HWNC"),
  )
  values = y.astype(F32)
  mean = jnp.mean(values, axis=(0, 1, 2))
  m2 = jnp.sum(jnp.square(values - mean[None, None, None]), axis=(0, 1, 2))
  return y, Moments(jnp.float32(y[..., 0].size), mean, m2)


def in_layout(layout, x):
  return jnp.swapaxes(x, 2, 3) if layout == "HWCN" else x


def everything(op, layout, x, filters, scale, offset, dy, dmean, dm2):
  """Return results and gradients of `op` by name, all HWNC."""
  (y, moments), vjp = jax.vjp(op, in_layout(layout, x), filters, scale, offset)
  dmoments = Moments(jnp.zeros(()), dmean, dm2)
  dx, *rest = vjp((in_layout(layout, dy), dmoments))
  names = ("dfilters", "dscale", "doffset")
  return {
    "y": in_layout(layout, y),
    **moments._asdict(),
    "dx": in_layout(layout, dx),
    **{n: g for n, g in zip(names, rest, strict=True) if g is not None},
  }


def exact(x, filters, scale, offset, dy, dmean, dm2, **settings):
  args = x, filters, scale, offset
  return {
    **oracle.depthwise_conv_bn(*args, **settings),
    **oracle.depthwise_conv_bn_gradients(*args, dy, dmean, dm2, **settings),
  }


def check(case, op=depthwise_conv_bn):
  """Compare an op's values and gradients with the float64 oracle."""
  inputs = draw(case)
  op = partial(op, layout=case.layout, **case.settings)
  if case.bands > 1:
    op = in_bands(op, case.bands)
  actual = jax.jit(partial(everything, op, case.layout))(*inputs)
  reference = partial(plain, **case.settings)
  assert_accurate(
    actual,
    jax.jit(partial(everything, reference, "HWNC"))(*inputs),
    partial(exact, **case.settings),
    *inputs,
  )
  for name in ("y", "dx", "dfilters"):
    assert actual[name].dtype == case.dtype, name
  for name in actual.keys() - {"y", "dx", "dfilters"}:
    assert actual[name].dtype == F32, name


def check_without_moments(case, op=depthwise_conv_bn):
  """Compare an op without moments with itself, with cotangents of zero.

  The same terms are added up in another order: half an ulp for each of about a
  hundred, of values near the largest.
  """
  x, filters, scale, offset, dy, _, _ = draw(case)
  x, dy = in_layout(case.layout, x), in_layout(case.layout, dy)
  if case.bands > 1:
    x, dy = to_bands(x, case.bands), to_bands(dy, case.bands)
  op = partial(op, layout=case.layout, bands=case.bands, **case.settings)

  @jax.jit
  def alone(x, filters, scale, offset, dy):
    y, vjp = jax.vjp(partial(op, moments=False), x, filters, scale, offset)
    return y, vjp(dy)

  @jax.jit
  def both(x, filters, scale, offset, dy):
    (y, moments), vjp = jax.vjp(op, x, filters, scale, offset)
    return y, vjp((dy, jax.tree.map(jnp.zeros_like, moments)))

  inputs = x, filters, scale, offset, dy
  pairs = zip(
    *(jax.tree.leaves(f(*inputs)) for f in (alone, both)), strict=True
  )
  for actual, want in pairs:
    assert actual.dtype == want.dtype
    error = 100 * half_ulp(want.dtype) * np.abs(np.float64(want)).max()
    np.testing.assert_allclose(
      np.float64(actual), np.float64(want), rtol=0, atol=error
    )
