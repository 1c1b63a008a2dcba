"""Memory that a long run of batches keeps."""

import subprocess
import sys

import pytest

PROGRAM = """
import gc, resource, sys
from podscale.train.data import AutoAugment, train_batches
from podscale.train.data.images import open_images

def megabytes():
  with open("/proc/self/statm") as file:
    return int(file.read().split()[1]) * resource.getpagesize() / 1e6

source = open_images(sys.argv[1], "train", 10)
batches = train_batches(
  source, batch_size=32, resolution=32, seed=0, crop="resized", flip=True,
  policy=AutoAugment(),
)
for step in range(int(sys.argv[2]) + 1):
  next(batches)
  if step == 1_000:
    first = megabytes()
batches.close()
print(megabytes() - first)
"""


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_ten_thousand_batches_need_no_more_than_one_thousand(tmp_path):
  """320,000 images in 10,000 epochs: order, decoding, augmentation, queues."""
  from podscale.train.data.tools.synthesize import synthesize

  synthesize(
    tmp_path, "array-record", examples={"train": 32}, width=48, height=40
  )
  grown = subprocess.run(
    [sys.executable, "-c", PROGRAM, str(tmp_path), "10000"],
    check=True,
    capture_output=True,
    text=True,
  ).stdout
  # A batch is 0.1 MB: one in a hundred kept would be 9 MB.
  assert float(grown) < 5
