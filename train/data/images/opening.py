"""From a folder to a source: what is in it decides how it is read."""

from collections.abc import Sequence
from pathlib import Path

from ...errors import UsageError
from ..source import Decoding, Split
from .discovery.discover import discover
from .discovery.duplicates import refuse_duplicates
from .discovery.layout import FORMAT_NAMES, DatasetLayout, SplitLayout
from .discovery.metadata import INFO
from .index import NAME, read_index
from .readers.array_record import ArrayRecordImages
from .readers.encoded import EncodedImages
from .readers.image_files import open_class_folders, open_labelled_files
from .readers.parquet import ParquetImages
from .readers.tar import TarImages
from .readers.tfrecord import TFRecordImages

IMAGENET_CLASSES = 1000


def open_images(
  folder: str | Path,
  split: Split,
  num_classes: int | None = None,
  *,
  label_offset: int | None = None,
) -> EncodedImages:
  """Open a data set of image files.

  Args:
    folder: With an index.json that `convert` wrote and its shards; or TFRecord,
      ArrayRecord or tar shards of both splits; or train/CLASS/*.jpg and
      val/CLASS/*.jpg; see `discover`.
    split: "train" or "test".
    num_classes: Number of classes; None takes what the data says, and 1000
      where it says nothing, as shards by themselves do.
    label_offset: Label of the first class in shards and label files; None takes
      1 for image/class/label, else 0.

  Raises:
    UsageError: the data is missing, not whole, of no kind known here, has a
      shard twice, says another number of classes, or has classes of its own and
      a label offset is given.
  """
  return open_split(
    discover(folder), split, num_classes, label_offset=label_offset
  )


def open_evaluation(
  folder: str | Path,
  num_classes: int | None,
  class_names: Sequence[str] | None,
  *,
  label_offset: int | None = None,
) -> EncodedImages:
  """Open another data set than the training images' to evaluate on.

  Args:
    folder: As `open_images` takes it; class folders may lie in it directly.
    num_classes: Number of classes of the training images, where it is known.
    class_names: Their names, where they are known: class folders get their
      labels.
    label_offset: As `open_images` has it; class folders need none.

  Raises:
    UsageError: as `open_images`.
  """
  found = discover(folder, loose="test")
  where = found.splits.get("test")
  if where and where.kind in ("folders", "labelled") and class_names:
    found.class_names = tuple(class_names)
    found.num_classes = len(class_names)
  known = found.num_classes if found.num_classes is not None else num_classes
  if where and where.kind in ("podscale", "folders"):
    label_offset = None
  return open_split(found, "test", known, label_offset=label_offset)


def open_split(
  found: DatasetLayout,
  split: Split,
  num_classes: int | None = None,
  *,
  label_offset: int | None = None,
) -> EncodedImages:
  """Open a split of what `discover` has found; see `open_images`."""
  if split in found.problems:
    raise UsageError(found.problems[split])
  where = found.splits[split]
  if found.num_classes is not None:
    if num_classes not in (None, found.num_classes):
      raise UsageError(
        f"{found.folder}: has {found.num_classes} classes, but num-classes is "
        f"{num_classes}; leave it out"
      )
    num_classes = found.num_classes
  if label_offset is not None and where.kind in ("podscale", "folders"):
    raise UsageError(
      f"{where.folder}: class folders and converted data have labels of their "
      f"own; leave label-offset {label_offset} out"
    )
  source = _open(
    found, where, split, num_classes or IMAGENET_CLASSES, label_offset
  )
  if where.kind == "parquet" and num_classes not in (None, source.num_classes):
    raise UsageError(
      f"{where.folder}: its shards have {source.num_classes} class names, but "
      f"num-classes is {num_classes}; leave it out"
    )
  if source.class_names is None:
    source.class_names = found.class_names
  source.description = f"{FORMAT_NAMES[where.kind]} in {where.folder}"
  source.left_out = (*found.left_out(), *source.left_out)
  return source


def _open(
  found: DatasetLayout,
  where: SplitLayout,
  split: Split,
  num_classes: int,
  label_offset: int | None,
) -> EncodedImages:
  shards = [where.folder / name for name in where.shards]
  if where.kind == "podscale":
    return _open_indexed(found.folder, split, shards)
  if where.kind == "folders":
    return open_class_folders(where.folder, found.class_names)
  if where.kind == "labelled":
    assert where.labels is not None
    return open_labelled_files(
      where.folder,
      where.labels,
      num_classes,
      found.class_names,
      label_offset,
    )
  opens = {
    "array_record": ArrayRecordImages,
    "parquet": ParquetImages,
    "tar": TarImages,
    "tfrecord": TFRecordImages,
  }
  source = opens[where.kind](shards, num_classes, label_offset=label_offset)
  refuse_duplicates(shards)
  for path, count in zip(shards, source.counts, strict=True):
    expected = where.records.get(path.name, count)
    if count != expected:
      raise UsageError(
        f"{path}: has {count} records where {INFO} beside it has {expected}: "
        "it was cut short or is of another version; download it again"
      )
  return source


def _open_indexed(
  folder: Path, split: Split, paths: Sequence[Path]
) -> EncodedImages:
  index = read_index(folder)
  shards = index.splits[split]
  for path, shard in zip(paths, shards, strict=True):
    try:
      size = path.stat().st_size
    except OSError as error:
      raise UsageError(f"{path}: {error.strerror}, but {NAME} has it") from None
    if size != shard.bytes:
      raise UsageError(
        f"{path}: has {size:,} bytes where {NAME} has {shard.bytes:,}; "
        "convert the data again"
      )
  source = ArrayRecordImages(
    paths, index.num_classes, index.class_names, index.whole_listing(split)
  )
  for path, shard, count in zip(paths, shards, source.counts, strict=True):
    if count != shard.examples:
      raise UsageError(
        f"{path}: has {count} records where {NAME} has {shard.examples}"
      )
  source.decoding = Decoding(
    strict=index.strict, verified=index.origin is not None
  )
  source.labels_are_classes = True  # `convert` has read them all
  return source
