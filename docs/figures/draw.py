"""Draw the diagrams of the tour: `python docs/figures/draw.py`.

Each diagram is a list of boxes and arrows on a grid of pixels; the SVG files
beside this script are what it writes.
"""

from collections.abc import Callable, Iterable
from html import escape
from pathlib import Path

BLUE, GREEN, ORANGE, GREY = "#e3ecfb", "#e2f3e6", "#fdeeda", "#f3f4f6"
PURPLE = "#eee6fa"
_INK = "#1f2937"
_LINE = 17  # pixels from one line of text to the next


def box(
  x: int,
  y: int,
  width: int,
  height: int,
  title: str,
  *lines: str,
  fill: str = GREY,
) -> str:
  """Return a rounded box with a bold title and lines below it."""
  middle = x + width / 2
  top = y + height / 2 - _LINE * len(lines) / 2 + 5
  texts = [_text(middle, top, title, bold=True)]
  texts += [
    _text(middle, top + _LINE * i, line) for i, line in enumerate(lines, 1)
  ]
  return (
    f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="6" '
    f'fill="{fill}" stroke="{_INK}" stroke-width="1.2"/>' + "".join(texts)
  )


def label(x: int, y: int, text: str, anchor: str = "middle") -> str:
  """Return a line of text without a box."""
  return _text(x, y, text, anchor=anchor)


def heading(x: int, y: int, text: str) -> str:
  """Return a bold line of text that begins at x."""
  return _text(x, y, text, bold=True, anchor="start")


def arrow(*points: tuple[int, int], dashed: bool = False) -> str:
  """Return a line through points, with an arrowhead at its end."""
  path = " ".join(f"{x},{y}" for x, y in points)
  dash = ' stroke-dasharray="5 4"' if dashed else ""
  return (
    f'<polyline points="{path}" fill="none" stroke="{_INK}" '
    f'stroke-width="1.5" marker-end="url(#head)"{dash}/>'
  )


def area(x: int, y: int, width: int, height: int, fill: str) -> str:
  """Return a coloured rectangle without an outline, to draw on."""
  return (
    f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="8" '
    f'fill="{fill}"/>'
  )


def picture(width: int, height: int, title: str, parts: Iterable[str]) -> str:
  """Return an SVG file on white, with a title for screen readers."""
  return (
    f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
    f'width="{width}" height="{height}" role="img" '
    'font-family="system-ui, Helvetica, Arial, sans-serif" font-size="13">\n'
    f"<title>{escape(title)}</title>\n"
    '<defs><marker id="head" viewBox="0 0 10 10" refX="9" refY="5" '
    'markerWidth="7" markerHeight="7" orient="auto-start-reverse">'
    f'<path d="M0,0 L10,5 L0,10 z" fill="{_INK}"/></marker></defs>\n'
    f'<rect width="{width}" height="{height}" fill="white"/>\n'
    + "\n".join(parts)
    + "\n</svg>\n"
  )


def data_flow() -> str:
  """Return the way from image files to updated weights."""
  host = [
    ("Image files", "TFRecord, ArrayRecord, tar,", "Parquet, class folders"),
    ("Source", "one example by its index"),
    ("Order", "shuffled by seed and epoch"),
    ("Decode and vary", "crop, mirror, resize,", "AutoAugment; threads"),
    ("Batch", "uint8 [n, h, w, 3]", "and int32 labels"),
    ("Device prefetch", "the next batches wait", "on the devices"),
  ]
  device = [
    ("gather_shards", "all devices' shards become", "the whole weights"),
    ("Forward pass", "normalise; stem, blocks, head;", "loss of own images"),
    ("Backward pass", "gradients of own images,", "packed into one buffer"),
    ("scatter_mean", "own shard of the mean", "gradient, plus L2"),
    ("LARS", "norms of whole tensors;", "update of own shard"),
    ("New state", "weights, momenta, averages,", "running statistics"),
  ]
  parts = [
    area(10, 34, 240, 590, "#f8fafc"),
    area(330, 34, 515, 590, "#f8fafc"),
    heading(20, 24, "Host: each process, its images"),
    heading(340, 24, "Devices: one shard_map for the whole step"),
  ]
  for i, step in enumerate(host):
    parts.append(box(25, 50 + 96 * i, 210, 76, *step, fill=BLUE))
    if i:
      parts.append(arrow((130, 30 + 96 * i), (130, 49 + 96 * i)))
  for i, step in enumerate(device):
    fill = ORANGE if step[0] in ("gather_shards", "scatter_mean") else GREEN
    parts.append(box(345, 50 + 96 * i, 220, 76, *step, fill=fill))
    if i:
      parts.append(arrow((455, 30 + 96 * i), (455, 49 + 96 * i)))
  parts += [
    # The batch enters the forward pass.
    arrow((235, 568), (290, 568), (290, 184), (344, 184)),
    box(
      630, 146, 200, 76, "group_moments", "batch norm's statistics", fill=ORANGE
    ),
    arrow((565, 174), (629, 174)),
    arrow((629, 194), (566, 194)),
    label(597, 165, "moments"),
    box(630, 242, 200, 76, "group_moments", "their gradients", fill=ORANGE),
    arrow((565, 270), (629, 270)),
    arrow((629, 290), (566, 290)),
    box(630, 434, 200, 76, "psum", "squared norms of leaves", fill=ORANGE),
    arrow((565, 462), (629, 462)),
    arrow((629, 482), (566, 482)),
    box(
      *(630, 530, 200, 76, "merge_running_statistics"),
      *("mean of all groups",),
      fill=ORANGE,
    ),
    arrow((629, 568), (566, 568)),
    # The state is the next step's.
    arrow((345, 590), (312, 590), (312, 88), (344, 88), dashed=True),
    label(590, 62, "Orange: collectives", "start"),
    label(590, 80, "Dashed: the next step", "start"),
  ]
  return picture(855, 640, "Data flow from image files to weights", parts)


def activation() -> str:
  """Return the life of one activation in an MBConv block."""
  parts = [
    heading(10, 22, "Activations in HBM, bfloat16"),
    heading(318, 22, "Fused ops"),
    heading(620, 22, "Per channel, float32"),
    area(10, 34, 220, 600, "#f8fafc"),
    area(610, 34, 240, 600, "#f8fafc"),
    box(25, 48, 190, 50, "x", "[h, w, n, c]", fill=BLUE),
    box(25, 196, 190, 50, "raw expansion", "[h, w, n, 6c]", fill=BLUE),
    box(25, 344, 190, 50, "raw depthwise", "[ho, wo, n, 6c]", fill=BLUE),
    box(25, 492, 190, 50, "raw projection", "[ho, wo, n, d]", fill=BLUE),
    box(25, 572, 190, 50, "block's result", "[ho, wo, n, d]", fill=BLUE),
  ]
  ops = [
    ("pointwise_conv_bn", "1x1 product, moments of its result"),
    ("depthwise_conv_bn", "scale, offset, swish; taps; moments"),
    ("gated_pointwise_conv_bn", "scale, offset, swish; gate; 1x1"),
  ]
  for i, (name, what) in enumerate(ops):
    y = 116 + 148 * i
    parts += [
      box(300, y, 260, 58, name, what, fill=GREEN),
      # The input enters, the result leaves.
      arrow(
        (216, 73 + 148 * i), (265, 73 + 148 * i), (265, y + 20), (299, y + 20)
      ),
      arrow(
        (299, y + 42), (265, y + 42), (265, 221 + 148 * i), (217, 221 + 148 * i)
      ),
      # The moments cross the group and come back as scale and offset.
      box(
        *(625, y + 62, 210, 58, "group_moments"),
        "batch_norm_affine",
        fill=ORANGE,
      ),
      arrow((561, y + 44), (790, y + 44), (790, y + 61)),
      label(680, y + 38, "moments"),
    ]
    if i < 2:
      parts += [
        arrow((680, y + 120), (680, y + 162), (561, y + 162)),
        label(625, y + 156, "scale, offset"),
      ]
  parts += [
    box(
      *(300, 560, 260, 58, "batch_norm, then the shortcut"),
      *("added to x where shapes agree",),
      fill=GREEN,
    ),
    arrow((680, 532), (680, 589), (561, 589)),
    label(625, 583, "scale, offset"),
    arrow((216, 517), (265, 517), (265, 578), (299, 578)),
    arrow((299, 600), (217, 600)),
  ]
  return picture(860, 650, "An activation in an MBConv block", parts)


def mesh() -> str:
  """Return sixteen devices in four groups, and which collective spans what."""
  fills = (BLUE, GREEN, PURPLE, ORANGE)
  parts = [heading(20, 24, "16 devices: mesh ('group', 'member') of 4 x 4")]
  for row in range(4):
    for column in range(4):
      group = row // 2 * 2 + column // 2
      # Snake order within a tile of 2 x 2.
      member = (0, 1, 3, 2)[row % 2 * 2 + column % 2]
      x, y = 30 + 100 * column, 48 + 78 * row
      parts.append(
        box(
          x, y, 84, 60, f"group {group}", f"member {member}", fill=fills[group]
        )
      )
  spans = [
    ("Within a group (one colour)", ["group_moments, forward and backward"]),
    (
      "Over all devices, one ring per torus dimension",
      [
        "gather_shards: shards to whole weights",
        "scatter_mean: gradients to shards of their mean",
      ],
    ),
    (
      "Over all devices, small",
      [
        "leaf norms and the loss",
        "merge_running_statistics",
        "evaluation_sums",
      ],
    ),
  ]
  y = 62
  for title, lines in spans:
    parts.append(heading(460, y, title))
    for line in lines:
      y += 20
      parts.append(label(474, y, line, "start"))
    y += 40
  return picture(830, 374, "Mesh of batch-norm groups", parts)


def bands() -> str:
  """Return an image of 24 channels, whole and in four bands."""
  fills = (BLUE, GREEN, PURPLE, ORANGE)
  parts = [
    heading(20, 24, "[112, w, n, 24]"),
    label(20, 44, "rows by channels", "start"),
    heading(330, 24, "to_bands(x, 4): [28, w, n, 96]"),
    label(
      330, 44, "a register holds 128 channels: 96 of them are used", "start"
    ),
  ]
  for i, fill in enumerate(fills):
    rows = f"{28 * i} to {28 * i + 27}"
    parts.append(
      box(20, 58 + 56 * i, 110, 54, f"band {i}", f"rows {rows}", fill=fill)
    )
    parts.append(
      box(330 + 112 * i, 58, 110, 54, f"band {i}", "24 channels", fill=fill)
    )
  parts += [
    arrow((150, 85), (318, 85)),
    label(232, 76, "to_bands"),
    arrow((318, 105), (150, 105)),
    label(232, 124, "from_bands"),
    label(
      330,
      150,
      "A depthwise convolution reads halo rows of the next band;",
      "start",
    ),
    label(330, 170, "1x1 convolutions take a block-diagonal matrix.", "start"),
  ]
  return picture(800, 294, "An image in bands", parts)


def _text(
  x: float, y: float, text: str, *, bold: bool = False, anchor: str = "middle"
) -> str:
  weight = ' font-weight="600"' if bold else ""
  return (
    f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" fill="{_INK}"{weight}>'
    f"{escape(text)}</text>"
  )


PICTURES: dict[str, Callable[[], str]] = {
  "data_flow.svg": data_flow,
  "activation.svg": activation,
  "mesh.svg": mesh,
  "bands.svg": bands,
}


def main() -> None:
  """Write every picture beside this script."""
  for name, draw in PICTURES.items():
    Path(__file__).with_name(name).write_text(draw(), encoding="utf-8")


if __name__ == "__main__":
  main()
