"""Winograd's minimal filtering: a row of taps with fewer products.

A Winograd tile of m neighbouring outputs of a filter with k taps reads
m + k - 1 inputs. Computed directly it takes k * m products. Linear transforms
of the inputs, the taps and the products need only m + k - 1 products, one per
point:

  outputs = output_transform(filter_transform(taps) * input_transform(inputs))

(Winograd, Arithmetic Complexity of Computations, 1980; Lavin and Gray 2015.)
All rows of a filter share the inputs' transform, and all tiles share the taps'
transform. The gradient of the taps uses the transposed transforms:

  dtaps = filter_transposed(input_transform(inputs) *
                            output_transposed(doutputs))

A value of None stands for zero and takes no operation.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

Value = Any
"""An array, or None for zero."""

Values = list[Value]


class Algorithm(NamedTuple):
  """Transforms of a Winograd tile.

  Attributes:
    outputs: Outputs of a tile, m.
    taps: Taps of a filter's row, k.
    input_transform: Transform of m + k - 1 inputs to the points.
    filter_transform: Transform of k taps to the points.
    output_transform: Transform of the points to m outputs.
    output_transposed: Transform of m output cotangents to the points.
    filter_transposed: Transform of the points to k tap cotangents.
  """

  outputs: int
  taps: int
  input_transform: Callable[[Sequence[Value]], Values]
  filter_transform: Callable[[Sequence[Value]], Values]
  output_transform: Callable[[Sequence[Value]], Values]
  output_transposed: Callable[[Sequence[Value]], Values]
  filter_transposed: Callable[[Sequence[Value]], Values]

  @property
  def points(self) -> int:
    """Products of a tile, m + k - 1."""
    return self.outputs + self.taps - 1


def plus(a: Value, b: Value) -> Value:
  """Add two values."""
  if a is None or b is None:
    return b if a is None else a
  return a + b


def minus(a: Value, b: Value) -> Value:
  """Subtract b from a."""
  if b is None:
    return a
  return -b if a is None else a - b


def times(factor: float, a: Value) -> Value:
  """Multiply a value by a factor."""
  return None if a is None else factor * a


def _both(a: Value, b: Value) -> Values:
  return [plus(a, b), minus(a, b)]


# Two outputs of three taps: points 0, 1, -1 and infinity.


def _input_3(d: Sequence[Value]) -> Values:
  return [minus(d[0], d[2]), *_both(d[2], d[1]), minus(d[3], d[1])]


def _filter_3(g: Sequence[Value]) -> Values:
  half = times(0.5, plus(g[0], g[2]))
  return [g[0], *_both(half, times(0.5, g[1])), g[2]]


def _output_3(m: Sequence[Value]) -> Values:
  return [
    plus(m[0], plus(m[1], m[2])),
    plus(minus(m[1], m[2]), m[3]),
  ]


def _output_3_transposed(y: Sequence[Value]) -> Values:
  return [y[0], *_both(y[0], y[1]), y[1]]


def _filter_3_transposed(s: Sequence[Value]) -> Values:
  even, odd = (times(0.5, half) for half in _both(s[1], s[2]))
  return [plus(s[0], even), odd, plus(s[3], even)]


# Four outputs of five taps: points 0, 1, -1, 1/2, -1/2, 2, -2 and infinity.


def _input_5(d: Sequence[Value]) -> Values:
  five_3, five_4 = times(5, d[3]), times(5, d[4])

  def quadratic(a, b, subtracted):
    return minus(plus(a, times(4, b)), subtracted)

  return [
    plus(minus(d[0], d[6]), times(21 / 4, minus(d[4], d[2]))),
    *_both(
      minus(plus(d[2], d[6]), times(17 / 4, d[4])),
      minus(plus(d[1], d[5]), times(17 / 4, d[3])),
    ),
    *_both(
      times(2, quadratic(d[6], d[2], five_4)), quadratic(d[5], d[1], five_3)
    ),
    *_both(
      quadratic(d[2], d[6], five_4), times(2, quadratic(d[1], d[5], five_3))
    ),
    plus(minus(d[7], d[1]), times(21 / 4, minus(d[3], d[5]))),
  ]


def _filter_5(g: Sequence[Value]) -> Values:
  def even(a, b, c):
    return plus(plus(times(a, g[0]), times(b, g[2])), times(c, g[4]))

  def odd(a, b):
    return plus(times(a, g[1]), times(b, g[3]))

  one, half, two = -2 / 9, 1 / 360, 1 / 360
  return [
    g[0],
    *_both(even(one, one, one), odd(one, one)),
    *_both(even(16 * half, 4 * half, half), odd(8 * half, 2 * half)),
    *_both(even(two, 4 * two, 16 * two), odd(2 * two, 8 * two)),
    g[4],
  ]


def _output_5(m: Sequence[Value]) -> Values:
  one, half, two = _both(m[1], m[2]), _both(m[3], m[4]), _both(m[5], m[6])

  def total(sign, of_half, of_two, rest):
    both = plus(times(of_half, half[sign]), times(of_two, two[sign]))
    return plus(plus(one[sign], both), rest)

  return [
    plus(plus(m[0], one[0]), plus(times(8, half[0]), two[0])),
    total(1, 4, 2, None),
    total(0, 2, 4, None),
    plus(plus(m[7], one[1]), plus(half[1], times(8, two[1]))),
  ]


def _output_5_transposed(y: Sequence[Value]) -> Values:
  def fourfold(a, b):
    return plus(times(4, a), b)

  return [
    y[0],
    *_both(plus(y[0], y[2]), plus(y[1], y[3])),
    *_both(times(2, fourfold(y[0], y[2])), fourfold(y[1], y[3])),
    *_both(fourfold(y[2], y[0]), times(2, fourfold(y[3], y[1]))),
    y[3],
  ]


def _filter_5_transposed(s: Sequence[Value]) -> Values:
  one, half, two = (
    [times(factor, value) for value in _both(s[i], s[i + 1])]
    for factor, i in ((-2 / 9, 1), (1 / 360, 3), (1 / 360, 5))
  )

  def tap(i, rest):
    sign = i % 2
    both = plus(times(2.0 ** (4 - i), half[sign]), times(2.0**i, two[sign]))
    return plus(plus(one[sign], both), rest)

  return [tap(0, s[0]), tap(1, None), tap(2, None), tap(3, None), tap(4, s[7])]


ALGORITHMS = {
  3: Algorithm(
    *(2, 3, _input_3, _filter_3, _output_3),
    *(_output_3_transposed, _filter_3_transposed),
  ),
  5: Algorithm(
    *(4, 5, _input_5, _filter_5, _output_5),
    *(_output_5_transposed, _filter_5_transposed),
  ),
}
"""Algorithm by kernel_size."""
