"""Functions of one tile against the definition, without a kernel.

One row of a filter is enough: a tile adds up its rows.
"""

from collections import defaultdict

import numpy as np
import pytest

from podscale.kernels.common.tpu_prologue import Prologue
from podscale.kernels.depthwise_conv.tpu import backward_tile, forward_tile
from podscale.kernels.depthwise_conv.tpu.taps import output_columns, reach
from podscale.kernels.depthwise_conv.tpu.winograd import ALGORITHMS
from podscale.kernels.depthwise_conv.window import window

SIZE = 8
TAP_ROWS = (0, 2)  # a row near the border misses some rows of the filter


class Row:
  """A row of an image, its filter and its cotangent, in float64."""

  def __init__(self, kernel_size, stride):
    rng = np.random.default_rng(kernel_size)
    self.window = window(SIZE, kernel_size, stride, "SAME")
    self.taps = list(rng.normal(size=(3, kernel_size)))
    self.z = rng.normal(size=(3, SIZE))
    self.dy = rng.normal(size=(3, self.window.out))

  def meetings(self):
    """List (filter row, tap, input, output) of all products."""
    w = self.window
    for a in TAP_ROWS:
      for output in range(w.out):
        for tap in range(w.kernel_size):
          column = output * w.stride + tap - w.low
          if 0 <= column < w.size:
            yield a, tap, column, output

  def outputs(self):
    y = np.zeros(self.window.out)
    for a, tap, column, output in self.meetings():
      y[output] += self.taps[a][tap] * self.z[a, column]
    return y

  def gradients(self):
    """Gradients of the middle row of z, and of the filter."""
    dz, dfilters = np.zeros(SIZE), defaultdict(float)
    for a, tap, column, output in self.meetings():
      dz[column] += self.taps[a][tap] * self.dy[a, output]
      dfilters[a, tap] += self.z[1, column] * self.dy[a, output]
    return dz, dfilters


def as_filters(taps, algorithm=None, step=1):
  if algorithm is None:
    return [list(row) for row in taps]
  return [algorithm.filter_transform(list(row[::step])) for row in taps]


def points(rows, left, algorithm):
  """Transform rows tile by tile, as the buffer has them."""
  padded = np.pad(rows, ((0, 0), (left, algorithm.points)))
  tiles = range(0, rows.shape[1], algorithm.outputs)
  return [
    [
      point
      for first in tiles
      for point in algorithm.input_transform(
        list(row[first : first + algorithm.points])
      )
    ]
    for row in padded
  ]


@pytest.mark.parametrize(
  ("kernel_size", "stride"), [(3, 1), (3, 2), (5, 1), (5, 2), (7, 2)]
)
def test_each_tap_by_itself(kernel_size, stride):
  row = Row(kernel_size, stride)
  w = row.window
  padded = np.pad(row.z, ((0, 0), (w.low, kernel_size)))
  inside = range(w.low, w.low + SIZE)
  padding = [j for j in range(padded.shape[1]) if j not in inside]

  def read(a, column):
    assert column in inside
    return padded[a, column]

  y = forward_tile.convolve(
    read, as_filters(row.taps), TAP_ROWS, w.out, stride, padding
  )
  np.testing.assert_allclose(y, row.outputs(), atol=1e-14)

  dfilters = defaultdict(float)

  def add_to_filter(a, tap, value):
    dfilters[a, tap] += value

  dz = backward_tile.gradients(
    lambda a, column: row.dy[a, column],
    as_filters(row.taps),
    list(row.z[1]),
    TAP_ROWS,
    output_columns(w, 0, SIZE),
    add_to_filter,
  )
  exact_dz, exact_dfilters = row.gradients()
  np.testing.assert_allclose(
    [0.0 if value is None else value for value in dz], exact_dz, atol=1e-14
  )
  assert dfilters.keys() == exact_dfilters.keys()
  for key, value in exact_dfilters.items():
    np.testing.assert_allclose(dfilters[key], value, atol=1e-14)


@pytest.mark.parametrize("kernel_size", [3, 5])
def test_winograd(kernel_size):
  row = Row(kernel_size, 1)
  w, algorithm = row.window, ALGORITHMS[kernel_size]
  buffer = points(row.z, w.low, algorithm)
  y = forward_tile.convolve_winograd(
    lambda a, j: buffer[a][j],
    as_filters(row.taps, algorithm),
    TAP_ROWS,
    w.out,
    algorithm,
  )
  # A few dozen operations in float64 with coefficients up to 16.
  np.testing.assert_allclose(y, row.outputs(), atol=1e-12)

  left, _ = reach(w)
  buffer = points(row.dy, left, algorithm)
  sums = [[0.0] * algorithm.points for _ in range(3)]

  def add_to_filter(a, j, value):
    sums[a][j] += value

  dz = backward_tile.gradients_winograd(
    lambda a, j: buffer[a][j],
    as_filters(row.taps, algorithm, step=-1),
    list(row.z[1]),
    TAP_ROWS,
    algorithm,
    add_to_filter,
  )
  exact_dz, exact_dfilters = row.gradients()
  np.testing.assert_allclose(dz, exact_dz, atol=1e-12)
  for a in TAP_ROWS:
    taps = algorithm.filter_transposed(sums[a])[::-1]
    exact = [exact_dfilters[a, tap] for tap in range(kernel_size)]
    np.testing.assert_allclose(taps, exact, atol=1e-12)


def test_gradients_of_a_scale_and_an_offset():
  rng = np.random.default_rng(0)
  x, slopes, dz = (list(rng.normal(size=4)) for _ in range(3))
  prologue = Prologue(scale=3.0, offset=1.0, activation="relu")
  start = backward_tile.PrologueSums(scale=10.0, offset=20.0)
  dx, sums = backward_tile.prologue_gradients(prologue, x, slopes, dz, start)
  du = np.multiply(slopes, dz)
  np.testing.assert_allclose(dx, 3 * du)
  np.testing.assert_allclose(sums.scale, 10 + np.dot(du, x))
  np.testing.assert_allclose(sums.offset, 20 + du.sum())
