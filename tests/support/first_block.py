"""Input sizes and blocks of a member of the family."""

import jax.numpy as jnp

from podscale.model.bands import Sizes
from podscale.model.spec import block_specs, model_spec


def sizes_and_blocks(name, batch):
  """Return the sizes of the first block's bfloat16 input, and all blocks."""
  spec = model_spec(name)
  side = spec.resolution
  images = Sizes(side, side, batch, jnp.dtype(jnp.bfloat16))
  return images.strided(spec.stem_stride), block_specs(spec)
