"""Plans of the buffer's rows against the definition."""

import jax.numpy as jnp
import pytest

from podscale.kernels.depthwise_conv.tpu.buffer import Buffer
from podscale.kernels.depthwise_conv.tpu.row_fills import (
  Source,
  Sources,
  plan_fills,
)


def make_buffer(block, rows, above, below, banded):
  return Buffer(
    block=block,
    rows=rows,
    above=above,
    below=below,
    columns=5,
    left=1,
    right=1,
    registers=1,
    fill_columns=5,
    unroll=2,
    algorithm=None,
    banded=banded,
  )


def named_sources(buffer):
  """Name sources instead of refs, to recognise them in the plan."""

  def source(name):
    return Source([name], lambda registers: registers)

  sides = {"above": buffer.above, "below": buffer.below}
  bands = {
    side: source(side) for side, rows in sides.items() if rows and buffer.banded
  }
  fetched = [source(("fetched", row)) for row in buffer.fetched_rows()]
  return Sources(source("block"), fetched, bands)


def expected(buffer, row_block):
  """Name the source and its row for each row that a step has to write."""
  first = 0 if buffer.whole else row_block * buffer.block
  for row in range(-buffer.above, buffer.block + buffer.below):
    image_row = first + row
    beyond = image_row - buffer.rows
    if 0 <= row < buffer.block and beyond < 0:
      yield row, ("block", row)
    elif 0 <= image_row < buffer.rows:
      yield row, (("fetched", row), 0)
    elif image_row < 0 and buffer.banded:
      yield row, ("above", buffer.above + image_row)
    elif 0 <= beyond < buffer.below and buffer.banded:
      yield row, ("below", beyond)
    elif not buffer.whole:
      yield row, None
    # The border of a whole image is written once, in the first step.


@pytest.mark.parametrize("banded", [False, True])
@pytest.mark.parametrize(("above", "below"), [(0, 1), (1, 1), (2, 2), (3, 2)])
@pytest.mark.parametrize(("block", "rows"), [(6, 6), (3, 6), (4, 6), (2, 7)])
def test_each_row_has_one_source(block, rows, above, below, banded):
  buffer = make_buffer(block, rows, above, below, banded)
  for row_block in range(-(-rows // block)):
    written = {}
    fills = plan_fills(buffer, named_sources(buffer), jnp.int32(row_block))
    for fill in fills:
      if fill.mask is not None and not fill.mask:
        continue
      for row in range(int(fill.start), int(fill.stop)):
        assert row not in written
        written[row] = None
        if fill.source is not None:
          written[row] = fill.source.refs[0], row + int(fill.offset)
    assert written == dict(expected(buffer, row_block))
