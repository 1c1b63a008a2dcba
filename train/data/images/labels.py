"""A look at all labels of a data set before anything is done with them."""

from collections import Counter

from ...errors import UsageError
from ..source import BadExampleError
from .readers.encoded import EncodedImages, StoredLabel


def check_labels(*splits: EncodedImages) -> Counter[int]:
  """Check the labels of all examples of a data set, without its images.

  Files do not say whether labels begin at 0 or at 1. Where they are taken to
  begin at 1 and none is 0, only the highest label shows whether that is so.

  Args:
    *splits: The splits of one data set.

  Returns:
    How many examples each label has, labels as the files have them.

  Raises:
    UsageError: a label is of no class, or labels may begin at 0 as well as
      at 1; the message has the flag that settles it.
  """
  counts: Counter[int] = Counter()
  from_1 = False
  for source in splits:
    for stored in source.labels():
      if not 1 <= stored.label < source.num_classes:
        # A label at the end decides: the whole record is read, for the sake of
        # its checksum. A damaged one is reported when its image is read.
        try:
          _, label, first = source.read(stored.example)
        except BadExampleError:
          continue
        stored = StoredLabel(stored.example, label, first)
      source.class_of(stored)
      counts[stored.label] += 1
      from_1 |= stored.first == 1 and source.label_offset is None
  source, highest = splits[0], max(counts, default=0)
  if from_1 and highest < source.num_classes:
    raise UsageError(
      f"{source.where(0)} and on: labels are {min(counts)} to {highest} "
      f"of {source.num_classes} classes, so they may begin at 0 or at 1: give "
      f"--data.label-offset 0 or 1, or --data.num-classes {highest} if there "
      "are no more"
    )
  return counts
