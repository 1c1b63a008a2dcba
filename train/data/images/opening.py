"""From a folder to a source: what is in it decides how it is read."""

from pathlib import Path

from ...errors import UsageError
from ..source import Split
from .array_record import ArrayRecordImages
from .encoded import EncodedImages
from .folder import ImageFolder
from .index import NAME, read_index
from .shard_files import find_shards
from .tar import TarImages
from .tfrecord import TFRecordImages

IMAGENET_CLASSES = 1000


def open_images(
  folder: str | Path,
  split: Split,
  num_classes: int = IMAGENET_CLASSES,
  *,
  label_offset: int | None = None,
) -> EncodedImages:
  """Open a data set of image files.

  Args:
    folder: With an index.json that `convert` wrote and its shards; or TFRecord,
      ArrayRecord or tar shards of both splits; or train/CLASS/*.jpg and
      val/CLASS/*.jpg.
    split: "train" or "test".
    num_classes: Of shards without an index; the others say it themselves.
    label_offset: Label of the first class in shards without an index; None
      takes 1 for image/class/label, else 0.

  Raises:
    UsageError: the data is missing, not whole, of no kind known here, or has
      classes of its own and a label offset is given.
  """
  folder = Path(folder)
  if (folder / NAME).is_file():
    _refuse_offset(folder, label_offset)
    return _open_indexed(folder, split)
  shards = find_shards(folder, split)
  # As imagenet_to_gcs leaves them on its own disk.
  for inside in (folder / "train", folder / "validation"):
    if shards is None and inside.is_dir():
      shards = find_shards(inside, split)
  if shards is None:
    if any((folder / name).is_dir() for name in ("train", "val")):
      _refuse_offset(folder, label_offset)
      return ImageFolder(folder, split)
    raise UsageError(
      f"{folder}: no {split} images in it: neither {NAME}, nor shards such as "
      "train-00000-of-01024 (TFRecord), train.array_record-00000-of-00064 or "
      "train-000000.tar, nor train/CLASS/*.jpg"
    )
  opens = {
    "array_record": ArrayRecordImages,
    "tar": TarImages,
    "tfrecord": TFRecordImages,
  }
  return opens[shards.kind](
    shards.paths, num_classes, label_offset=label_offset
  )


def _refuse_offset(folder: Path, label_offset: int | None) -> None:
  if label_offset is not None:
    raise UsageError(
      f"{folder}: class folders and converted data have labels of their own; "
      f"leave label-offset {label_offset} out"
    )


def _open_indexed(folder: Path, split: Split) -> EncodedImages:
  index = read_index(folder)
  shards = index.splits.get(split)
  if not shards:
    raise UsageError(f"{folder / NAME}: has no {split} images")
  paths = [folder / shard.file for shard in shards]
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
  return source
