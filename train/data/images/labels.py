"""A check of all labels of a data set before a run or a conversion."""

from collections import Counter

from ...errors import UsageError
from ..source import BadExampleError
from .readers.encoded import EncodedImages, StoredLabel


def check_labels(*splits: EncodedImages) -> Counter[int]:
  """Check the labels of all examples of a data set, without its images.

  Files do not record if labels start at 0 or at 1. If the format implies 1 and
  no label is 0, only the highest label can confirm it.

  Args:
    *splits: Splits of one data set.

  Returns:
    Number of examples of each label, with the labels of the files.

  Raises:
    UsageError: A label is outside the classes, or labels may start at 0 as well
      as at 1; the message names the flag that decides.
  """
  counts: Counter[int] = Counter()
  from_1 = False
  for source in splits:
    for stored in source.labels():
      if not 1 <= stored.label < source.num_classes:
        # A label at either end decides, so read the whole record to compare its
        # checksum. A damaged record is reported when its image is read.
        try:
          _, label, first = source.read(stored.example)
        except BadExampleError:
          continue
        stored = StoredLabel(stored.example, label, first)
      source.class_of(stored)
      counts[stored.label] += 1
      from_1 |= stored.first_label == 1 and source.label_offset is None
  source, highest = splits[0], max(counts, default=0)
  if from_1 and highest < source.num_classes:
    raise UsageError(
      f"{source.where(0)} and following: labels are {min(counts)} to {highest} "
      f"of {source.num_classes} classes, so they may start at 0 or at 1; give "
      f"--data.label-offset 0 or 1, or --data.num-classes {highest} if there "
      "are no more classes"
    )
  return counts
