"""A run of six steps for tests of the loop and of what surrounds it."""

import dataclasses

from podscale.train.settings.presets import get_preset

EVAL_BATCH = 40  # an evaluation has 25 of them


def smoke(workdir, **changes):
  """Six steps of the smoke recipe with a checkpoint after three."""
  settings = {
    "epochs": 1.0,
    "eval_every_epochs": 1.0,
    "eval_batch_size": EVAL_BATCH,
    "checkpoint_every_epochs": 0.5,
    "workdir": str(workdir),
  }
  return dataclasses.replace(get_preset("smoke"), **(settings | changes))
