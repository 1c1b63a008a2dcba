"""Ops of podscale.kernels in float64 NumPy, with their gradients.

Written from the definitions, one output at a time, without importing podscale.
Activations are [h, w, n, c]. Functions named `*_gradients` take the cotangents
of the results and return the cotangents of the arguments by name.
"""

import math

import numpy as np


def depthwise_conv_bn(
  x, filters, scale, offset, *, activation, stride, padding, dilation=1
):
  """Compute y [ho, wo, n, c] and its count, mean and m2."""
  x, filters, scale, offset = _float64(x, filters, scale, offset)
  z = _activate(_affine(x, scale, offset), activation)
  y = _convolve(z, filters, stride, padding, dilation)
  return {"y": y, **moments(y)}


def depthwise_conv_bn_gradients(
  x,
  filters,
  scale,
  offset,
  dy,
  dmean,
  dm2,
  *,
  activation,
  stride,
  padding,
  dilation=1,
):
  """Compute dx, dfilters, dscale and doffset."""
  x, filters, scale, offset, dy = _float64(x, filters, scale, offset, dy)
  u = _affine(x, scale, offset)
  z = _activate(u, activation)
  y = _convolve(z, filters, stride, padding, dilation)
  dy = dy + moments_gradient(y, dmean, dm2)
  dz, dfilters = _convolve_gradients(z, filters, dy, stride, padding, dilation)
  du = dz * _slope(u, activation)
  gradients = _affine_gradients(x, scale, offset, du)
  return {"dx": gradients.pop("dx"), "dfilters": dfilters, **gradients}


def moments(x):
  """Compute count, mean [c] and m2 [c], the sum of squared deviations."""
  (x,) = _float64(x)
  mean = x.mean(axis=(0, 1, 2))
  m2 = ((x - mean) ** 2).sum(axis=(0, 1, 2))
  return {"count": np.float64(x[..., 0].size), "mean": mean, "m2": m2}


def moments_gradient(x, dmean, dm2):
  """Compute dx."""
  x, dmean, dm2 = _float64(x, dmean, dm2)
  deviation = x - x.mean(axis=(0, 1, 2))
  return dmean / x[..., 0].size + 2 * deviation * dm2


def batch_norm_affine(count, mean, m2, gamma, beta, *, epsilon):
  """Compute scale and offset, [c] each."""
  count, mean, m2, gamma, beta = _float64(count, mean, m2, gamma, beta)
  scale = gamma / np.sqrt(m2 / count + epsilon)
  return {"scale": scale, "offset": beta - mean * scale}


def batch_norm_affine_gradients(
  count, mean, m2, gamma, beta, dscale, doffset, *, epsilon
):
  """Compute dmean, dm2, dgamma and dbeta; the count is a constant."""
  count, mean, m2, gamma, beta, dscale, doffset = _float64(
    count, mean, m2, gamma, beta, dscale, doffset
  )
  inverse = 1 / np.sqrt(m2 / count + epsilon)
  dscale = dscale - mean * doffset
  return {
    "dmean": -gamma * inverse * doffset,
    "dm2": dscale * gamma * -0.5 * inverse**3 / count,
    "dgamma": dscale * inverse,
    "dbeta": doffset,
  }


def batch_norm(x, scale, offset, *, activation):
  """Compute y and its spatial mean [n, c]."""
  x, scale, offset = _float64(x, scale, offset)
  y = _activate(_affine(x, scale, offset), activation)
  return {"y": y, "mean": y.mean(axis=(0, 1))}


def batch_norm_gradients(x, scale, offset, dy, dmean, *, activation):
  """Compute dx, dscale and doffset; dmean belongs to the spatial mean."""
  x, scale, offset, dy, dmean = _float64(x, scale, offset, dy, dmean)
  dy = dy + dmean / (x.shape[0] * x.shape[1])
  du = dy * _slope(_affine(x, scale, offset), activation)
  return _affine_gradients(x, scale, offset, du)


def _float64(*arrays):
  return [None if a is None else np.asarray(a, np.float64) for a in arrays]


def _affine(x, scale, offset):
  return x * (1 if scale is None else scale) + (0 if offset is None else offset)


def _affine_gradients(x, scale, offset, du):
  gradients = {"dx": du * (1 if scale is None else scale)}
  if scale is not None:
    gradients["dscale"] = (du * x).sum(axis=(0, 1, 2))
  if offset is not None:
    gradients["doffset"] = du.sum(axis=(0, 1, 2))
  return gradients


_erf = np.vectorize(math.erf)
_GELU_SLOPE = np.sqrt(2 / np.pi)


def _activate(u, activation):
  if activation == "silu":
    return u / (1 + np.exp(-u))
  if activation == "relu":
    return np.where(u > 0, u, 0)
  if activation == "relu6":
    return np.minimum(np.maximum(u, 0), 6)
  if activation == "hard_swish":
    return u * np.minimum(np.maximum(u + 3, 0), 6) / 6
  if activation == "gelu":
    return u * (1 + _erf(u / np.sqrt(2))) / 2
  if activation == "gelu_tanh":
    return u * (1 + np.tanh(_GELU_SLOPE * (u + 0.044715 * u**3))) / 2
  assert activation is None
  return u


def _slope(u, activation):
  if activation == "silu":
    sigmoid = 1 / (1 + np.exp(-u))
    return sigmoid + u * sigmoid * (1 - sigmoid)
  if activation == "relu":
    return np.where(u > 0, 1, 0)
  if activation == "relu6":
    return np.where((u > 0) & (u < 6), 1, 0)
  if activation == "hard_swish":
    return np.where(np.abs(u) < 3, u / 3 + 0.5, np.where(u > 0, 1, 0))
  if activation == "gelu":
    density = np.exp(-(u**2) / 2) / np.sqrt(2 * np.pi)
    return (1 + _erf(u / np.sqrt(2))) / 2 + u * density
  if activation == "gelu_tanh":
    t = np.tanh(_GELU_SLOPE * (u + 0.044715 * u**3))
    dt = (1 - t**2) * _GELU_SLOPE * (1 + 3 * 0.044715 * u**2)
    return (1 + t + u * dt) / 2
  assert activation is None
  return np.ones_like(u)


def pair(value):
  """Return a setting for rows and columns."""
  return value if isinstance(value, tuple) else (value, value)


def output_size_and_padding(size, kernel, stride, padding):
  """Return (outputs, zeros before, zeros after) of one dimension.

  `tf.nn`, "Notes on padding": SAME has ceil(size / stride) outputs and as few
  zeros as they need; an odd zero goes to the end. `torch.nn.Conv2d`: padding is
  the number of zeros at both ends.
  """
  if padding == "SAME":
    last = size % stride or stride
    total = max(kernel - last, 0)
    return -(-size // stride), total // 2, total - total // 2
  before, after = (0, 0) if padding == "VALID" else pair(padding)
  return (size + before + after - kernel) // stride + 1, before, after


def _pad(z, taps, stride, padding):
  """Return padded z, the outputs as a list of (row, column), top and left."""
  sides = padding if isinstance(padding, tuple) else (padding, padding)
  (rows, top, bottom), (columns, left, right) = (
    output_size_and_padding(*axis)
    for axis in zip(z.shape[:2], taps, pair(stride), sides, strict=True)
  )
  z = np.pad(z, ((top, bottom), (left, right), (0, 0), (0, 0)))
  outputs = [(a, b) for a in range(rows) for b in range(columns)]
  return z, outputs, (top, left)


def _patch(row, column, taps, stride):
  top, left = row * pair(stride)[0], column * pair(stride)[1]
  return slice(top, top + taps[0]), slice(left, left + taps[1])


def _dilated(filters, dilation):
  """Put zeros between the taps."""
  down, right = pair(dilation)
  height, width, channels = filters.shape
  shape = (height - 1) * down + 1, (width - 1) * right + 1, channels
  dilated = np.zeros(shape)
  dilated[::down, ::right] = filters
  return dilated


def _convolve(z, filters, stride, padding, dilation):
  filters = _dilated(filters, dilation)
  taps = filters.shape[:2]
  z, outputs, _ = _pad(z, taps, stride, padding)
  rows, columns = np.max(outputs, axis=0) + 1
  y = np.empty((rows, columns, *z.shape[2:]))
  for a, b in outputs:
    patch = z[_patch(a, b, taps, stride)]
    y[a, b] = np.einsum("ijnc,ijc->nc", patch, filters)
  return y


def _convolve_gradients(z, filters, dy, stride, padding, dilation):
  filters, (height, width) = _dilated(filters, dilation), z.shape[:2]
  taps = filters.shape[:2]
  z, outputs, (top, left) = _pad(z, taps, stride, padding)
  dz, dfilters = np.zeros_like(z), np.zeros_like(filters)
  for a, b in outputs:
    patch = _patch(a, b, taps, stride)
    dz[patch] += np.einsum("nc,ijc->ijnc", dy[a, b], filters)
    dfilters += np.einsum("nc,ijnc->ijc", dy[a, b], z[patch])
  down, right = pair(dilation)
  return (
    dz[top : top + height, left : left + width],
    dfilters[::down, ::right],
  )
