import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.libtpu_mark import NEEDS_LIBTPU

from podscale.bench.estimated.static.compile import compiled, lowered_for
from podscale.kernels.packed.leaf_rows import from_rows, rows_of, to_rows


@pytest.mark.parametrize(
  ("shape", "rows"),
  [
    ((), 8),
    ((1024,), 8),
    ((1025,), 16),
    ((8, 128), 8),
    ((9, 128), 16),
    ((9, 129), 32),
    ((3, 3, 256), 32),
    ((256, 8), 16),  # transposed
    ((0, 5), 0),
  ],
)
def test_rows(shape, rows):
  assert rows_of(shape) == rows
  leaf = np.random.default_rng(0).normal(size=shape).astype(np.float32)
  lying = to_rows(jnp.asarray(leaf))
  assert lying.shape == (rows, 128)
  np.testing.assert_array_equal(from_rows(lying, shape), leaf)


def test_rows_hold_one_tile_after_the_other():
  matrix = np.arange(16 * 256, dtype=np.float32).reshape(16, 256)
  rows = to_rows(jnp.asarray(matrix))
  for i, tile in enumerate(np.reshape(rows, (4, 8, 128))):
    down, across = divmod(i, 2)
    np.testing.assert_array_equal(
      tile, matrix[8 * down :][:8, 128 * across :][:, :128]
    )


class TestOnTpu:
  pytestmark = NEEDS_LIBTPU

  @pytest.mark.parametrize("chip", ["v3", "v5e", "v6e"])
  @pytest.mark.parametrize("shape", [(512, 1536), (1536, 40)])
  def test_a_matrix_is_read_in_place(self, shape, chip):
    """Check that one kernel reads the rows and writes the model's bfloat16."""
    rows = jax.ShapeDtypeStruct((8192, 128), jnp.float32)

    def read(buffer):
      leaf = from_rows(buffer[64 : 64 + rows_of(shape)], shape)
      return leaf.astype(jnp.bfloat16)

    lowered = lowered_for(read, rows, chip=chip, free_layouts=True)
    with compiled(lowered) as compilation:
      entry = compilation.hlo[compilation.hlo.index("ENTRY") :]
    operations = re.findall(r" = \S+ ([\w-]+)\(", entry)
    # The slice also rounds to bfloat16.
    assert operations == ["parameter", "slice", "bitcast"]
