"""The layers that are benchmarked."""

from podscale.bench.layers import DepthwiseShape, depthwise_shapes


def test_b0_has_these_layers():
  # Tan and Le 2019, table 1, with each stage's first and later blocks.
  assert depthwise_shapes("b0") == [
    DepthwiseShape(112, 32, 3, 1),
    DepthwiseShape(112, 96, 3, 2),
    DepthwiseShape(56, 144, 3, 1),
    DepthwiseShape(56, 144, 5, 2),
    DepthwiseShape(28, 240, 5, 1),
    DepthwiseShape(28, 240, 3, 2),
    DepthwiseShape(14, 480, 3, 1),
    DepthwiseShape(14, 480, 5, 1),
    DepthwiseShape(14, 672, 5, 1),
    DepthwiseShape(14, 672, 5, 2),
    DepthwiseShape(7, 1152, 5, 1),
    DepthwiseShape(7, 1152, 3, 1),
  ]


def test_odd_sizes_are_rounded_up():
  sizes = [shape.size for shape in depthwise_shapes("b0", 65)]
  assert sizes[0] == 33
  assert sizes[2] == 17
  assert sizes[-1] == 3


def test_no_layer_twice():
  for model in ("b0", "b5", "l2"):
    shapes = depthwise_shapes(model)
    assert len(shapes) == len(set(shapes))
