"""Opening of a folder of images with the reader of its format."""

from collections.abc import Sequence
from pathlib import Path

from ...errors import UsageError
from ..source import Decoding, Split
from .discovery.discover import discover
from .discovery.duplicates import refuse_duplicates
from .discovery.layout import FORMAT_NAMES, DatasetLayout, SplitLayout
from .discovery.metadata import DATASET_INFO
from .index import INDEX_FILE, read_index
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
    folder: Folder of an index.json from `convert` and its shards; of TFRecord,
      ArrayRecord, Parquet or tar shards; or of train/CLASS/*.jpg and
      val/CLASS/*.jpg. See `discover`.
    split: "train" or "test".
    num_classes: Number of classes; None takes the number in the data, or 1000
      if the data has none.
    label_offset: Label of the first class in shards and label files; None takes
      1 for image/class/label, otherwise 0.

  Returns:
    The split.

  Raises:
    UsageError: The data is missing, incomplete or in an unknown format, has a
      shard twice or another number of classes, or defines its labels while a
      label offset is given.
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
  """Open a data set of its own to evaluate on.

  Args:
    folder: Folder, see `open_images`; class folders may lie directly in it.
    num_classes: Number of classes of the training images, if known.
    class_names: Class names of the training images, if known; class folders
      get their labels from them.
    label_offset: Label of the first class, see `open_images`; class folders
      ignore it.

  Returns:
    The test split.

  Raises:
    UsageError: The data cannot be opened, see `open_images`.
  """
  layout = discover(folder, loose="test")
  split_layout = layout.splits.get("test")
  if (
    split_layout
    and split_layout.format in ("folders", "labelled")
    and class_names
  ):
    layout.class_names = tuple(class_names)
    layout.num_classes = len(class_names)
  known = layout.num_classes if layout.num_classes is not None else num_classes
  if split_layout and split_layout.format in ("podscale", "folders"):
    label_offset = None
  return open_split(layout, "test", known, label_offset=label_offset)


def open_split(
  layout: DatasetLayout,
  split: Split,
  num_classes: int | None = None,
  *,
  label_offset: int | None = None,
) -> EncodedImages:
  """Open a split of a layout from `discover`; see `open_images`."""
  if split in layout.problems:
    raise UsageError(layout.problems[split])
  split_layout = layout.splits[split]
  if layout.num_classes is not None:
    if num_classes not in (None, layout.num_classes):
      raise UsageError(
        f"{layout.folder}: has {layout.num_classes} classes, but "
        f"--data.num-classes is {num_classes}; leave the flag out"
      )
    num_classes = layout.num_classes
  if label_offset is not None and split_layout.format in (
    "podscale",
    "folders",
  ):
    raise UsageError(
      f"{split_layout.folder}: class folders and converted data define their "
      f"labels; leave --data.label-offset {label_offset} out"
    )
  source = _open(
    layout, split_layout, split, num_classes or IMAGENET_CLASSES, label_offset
  )
  if split_layout.format == "parquet" and num_classes not in (
    None,
    source.num_classes,
  ):
    raise UsageError(
      f"{split_layout.folder}: its shards have {source.num_classes} class "
      f"names, but --data.num-classes is {num_classes}; leave the flag out"
    )
  if source.class_names is None:
    source.class_names = layout.class_names
  source.description = (
    f"{FORMAT_NAMES[split_layout.format]} in {split_layout.folder}"
  )
  source.left_out = (*layout.left_out(), *source.left_out)
  return source


def _open(
  layout: DatasetLayout,
  split_layout: SplitLayout,
  split: Split,
  num_classes: int,
  label_offset: int | None,
) -> EncodedImages:
  shards = [split_layout.folder / name for name in split_layout.shards]
  if split_layout.format == "podscale":
    return _open_indexed(layout.folder, split, shards)
  if split_layout.format == "folders":
    return open_class_folders(split_layout.folder, layout.class_names)
  if split_layout.format == "labelled":
    assert split_layout.labels is not None
    return open_labelled_files(
      split_layout.folder,
      split_layout.labels,
      num_classes,
      layout.class_names,
      label_offset,
    )
  opens = {
    "array_record": ArrayRecordImages,
    "parquet": ParquetImages,
    "tar": TarImages,
    "tfrecord": TFRecordImages,
  }
  source = opens[split_layout.format](
    shards, num_classes, label_offset=label_offset
  )
  refuse_duplicates(shards)
  for path, count in zip(shards, source.counts, strict=True):
    expected = split_layout.records.get(path.name, count)
    if count != expected:
      raise UsageError(
        f"{path}: has {count} records, but {DATASET_INFO} has {expected}: the "
        "shard is cut short or of another version; download it again"
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
      raise UsageError(
        f"{path}: {error.strerror}, but {INDEX_FILE} lists it; restore it or "
        "convert the data again"
      ) from None
    if size != shard.bytes:
      raise UsageError(
        f"{path}: has {size:,} bytes, but {INDEX_FILE} has {shard.bytes:,}; "
        "convert the data again"
      )
  source = ArrayRecordImages(
    paths, index.num_classes, index.class_names, index.whole_listing(split)
  )
  for path, shard, count in zip(paths, shards, source.counts, strict=True):
    if count != shard.examples:
      raise UsageError(
        f"{path}: has {count} records, but {INDEX_FILE} has {shard.examples}; "
        "convert the data again"
      )
  source.decoding = Decoding(
    strict=index.strict, verified=index.origin is not None
  )
  source.labels_are_classes = True  # `convert` checked them all
  return source
