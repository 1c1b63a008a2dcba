"""Settings of a run of six steps, for tests of the training loop."""

import dataclasses

from podscale.train.settings.presets import get_preset

EVAL_BATCH = 40  # 25 batches in an evaluation


def smoke(workdir, **changes):
  """Make settings of six smoke steps, with a checkpoint after three."""
  settings = {
    "epochs": 1.0,
    "eval_every_epochs": 1.0,
    "eval_batch_size": EVAL_BATCH,
    "checkpoint_every_epochs": 0.5,
    "workdir": str(workdir),
  }
  return dataclasses.replace(get_preset("smoke"), **(settings | changes))
