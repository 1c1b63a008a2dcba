"""A member of the family, as choices about its blocks see it."""

import jax.numpy as jnp

from podscale.model.bands import Sizes
from podscale.model.spec import block_specs, model_spec


def sizes_and_blocks(name, batch):
  """What enters the first block, in bfloat16, and all blocks."""
  spec = model_spec(name)
  side = spec.resolution
  images = Sizes(side, side, batch, jnp.dtype(jnp.bfloat16))
  return images.strided(spec.stem_stride), block_specs(spec)
