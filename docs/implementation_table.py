"""MkDocs hook: write the table of implementations into its page."""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from podscale import kernels

_CHIPS = {
  "v3": "TPU v3",
  "v4": "TPU v4",
  "v5e": "TPU v5 lite",
  "v5p": "TPU v5",
  "v6e": "TPU v6 lite",
  "tpu7x": "TPU7x",
}
_DEPTHWISE = kernels.depthwise_conv_bn


class _Call(NamedTuple):
  """Call of an op, in words and in shapes."""

  text: str
  op: Callable[..., Any]
  x: tuple[int, ...]
  weights: tuple[int, ...]
  settings: dict[str, Any] = {}
  dtype: Any = jnp.bfloat16
  takes_affine: bool = False


_X = (28, 28, 64, 240)
_CALLS = (
  *(
    _Call(text, _DEPTHWISE, _X, (*size, 240), settings)
    for text, size, settings in (
      ("3x3, stride 1", (3, 3), {}),
      ("3x3, stride 2, padding 1", (3, 3), {"stride": 2, "padding": 1}),
      ("5x5, stride 2, 'SAME'", (5, 5), {"stride": 2}),
      ("7x7, no moments", (7, 7), {"moments": False}),
      ("3x3, 'VALID'", (3, 3), {"padding": "VALID"}),
      ("3x3, stride (1, 2)", (3, 3), {"stride": (1, 2)}),
      ("3x3, dilation 2", (3, 3), {"dilation": 2}),
      ("2x2", (2, 2), {}),
      ("1x5", (1, 5), {}),
      ("9x9", (9, 9), {}),
    )
  ),
  _Call("3x3, m = 2", _DEPTHWISE, _X, (3, 3, 240, 2)),
  _Call("3x3, 24 channels", _DEPTHWISE, (28, 28, 64, 24), (3, 3, 24)),
  _Call("3x3, one image", _DEPTHWISE, (28, 28, 1, 240), (3, 3, 240)),
  _Call("3x3, float32", _DEPTHWISE, _X, (3, 3, 240), {}, jnp.float32),
  *(
    _Call(
      f"3x3, {layout}, 128 images",
      *(_DEPTHWISE, shape, (3, 3, 240), {"layout": layout}),
    )
    for layout, shape in (
      ("HWCN", (28, 28, 240, 128)),
      ("NHWC", (128, 28, 28, 240)),
    )
  ),
  _Call(
    "40 to 240 channels",
    *(kernels.pointwise_conv_bn, (28, 28, 64, 40), (40, 240)),
  ),
  *(
    _Call(
      text,
      *(kernels.gated_pointwise_conv_bn, shape, (240, 40), {"layout": layout}),
      takes_affine=True,
    )
    for text, layout, shape in (
      ("240 to 40 channels", "HWNC", _X),
      ("the same, NHWC, 128 images", "NHWC", (128, 28, 28, 240)),
    )
  ),
)


def on_page_markdown(markdown: str, **kwargs: Any) -> str:
  """Put the table where a page has a comment with its name."""
  del kwargs
  mark = "<!-- implementations -->"
  return markdown.replace(mark, table()) if mark in markdown else markdown


def table() -> str:
  """Return a table with a row for each call and a column for each chip."""
  columns = ["op", "call", *_CHIPS, "the kernel, if it is named"]
  lines = [columns, ["---"] * len(columns)]
  for call in _CALLS:
    chosen = [_on(chip, call).implementation for chip in _CHIPS]
    cells = ["kernel" if name == "pallas_tpu" else "XLA" for name in chosen]
    lines.append([f"`{call.op.__name__}`", call.text, *cells, _refusal(call)])
  return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _on(chip: str, call: _Call, **options: Any) -> kernels.Selection:
  """Describe a call for a chip."""
  device = jax.sharding.AbstractDevice(
    _CHIPS[chip], num_cores=1, platform="tpu"
  )
  mesh = jax.sharding.AbstractMesh((), (), abstract_device=device)
  x, weights = (
    jax.ShapeDtypeStruct(shape, call.dtype) for shape in (call.x, call.weights)
  )
  affine = (None, None) if call.takes_affine else ()
  with jax.sharding.use_abstract_mesh(mesh):
    return kernels.describe(
      call.op, x, weights, *affine, **call.settings, **options
    )


def _refusal(call: _Call) -> str:
  """Return what the kernel lacks for a call on v5e, or "runs"."""
  try:
    _on("v5e", call, implementation="pallas_tpu")
  except NotImplementedError as error:
    found = re.search("does not support (.*) for x", str(error))
    return f"does not support {found[1]}" if found else str(error)
  return "runs"
