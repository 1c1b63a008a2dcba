"""The source that the settings name."""

from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UsageError
from ..settings.config import DataConfig
from .loading.cache import InMemory, free_memory
from .source import Decoding, Source, Split, example_count
from .sources.fashion_mnist import open_fashion_mnist
from .sources.synthetic import Synthetic

if TYPE_CHECKING:
  from .images.discovery.layout import DatasetLayout
  from .images.readers.encoded import EncodedImages

# TensorFlow's EfficientNet since 2021-11 (tensorflow/tpu, preprocessing.py).
_EVAL_SHARE = 0.875
_SYNTHETIC_EXAMPLES: dict[Split, int] = {"train": 10_000, "test": 1_000}


def open_source(config: DataConfig, split: Split, resolution: int) -> Source:
  """Open the data set that the settings name.

  Args:
    config: Settings of the data.
    split: "train" or "test".
    resolution: Height and width of the images of "synthetic", in pixels, and
      of the images that evaluation crops.

  Returns:
    The source.

  Raises:
    UsageError: The data is missing, damaged or has too few examples.

  >>> source = open_source(DataConfig(source="synthetic"), "test", 32)
  >>> len(source), source.num_classes
  (1000, 10)
  """
  examples = config.train_examples if split == "train" else None
  if config.eval_path is not None and config.source != "images":
    raise UsageError(
      f"--data.eval-path {config.eval_path} needs --data.source images, got "
      f"{config.source}"
    )
  if config.source == "fashion-mnist":
    source: Source = open_fashion_mnist(config.path, split, examples)
  elif config.source == "images":
    source = _open_images(config, split, resolution)
  else:
    if config.path is not None:
      raise UsageError(
        f"--data.path is {config.path}, but --data.source synthetic reads no "
        "files; add --data.source images"
      )
    count = examples or _SYNTHETIC_EXAMPLES[split]
    source = Synthetic(count, resolution, split=split)
  # A quarter of the free memory for each split.
  return InMemory(source, free_memory() // 4) if config.cache else source


def _open_images(
  config: DataConfig, split: Split, resolution: int
) -> "EncodedImages":
  if config.path is None:
    raise UsageError(
      "--data.source images needs --data.path: a folder of shards, or of "
      "train/CLASS/*.jpg and val/CLASS/*.jpg"
    )
  # Late, because machines that use the other sources may lack the decoders.
  from .images.discovery.discover import discover
  from .images.opening import open_evaluation, open_split

  layout = discover(config.path)
  if split == "test" and config.eval_path is not None:
    source = open_evaluation(
      config.eval_path,
      layout.num_classes or config.num_classes,
      layout.class_names,
      label_offset=config.label_offset,
    )
  else:
    source = open_split(
      layout, split, config.num_classes, label_offset=config.label_offset
    )
  source.description += _first_label(source)
  if split == "test":
    _check_evaluation_labels(config, layout, source)
  if split == "train":
    source.keep_first(
      example_count(config.train_examples, len(source), config.path)
    )
  if config.eval_crop == "share":
    source.eval_padding = round(resolution * (1 / _EVAL_SHARE - 1))
  before = source.decoding
  source.decoding = Decoding(
    strict=config.strict_jpeg,
    exif_rotation=config.exif_rotation,
    verified=before.verified and (before.strict or not config.strict_jpeg),
  )
  return source


def _first_label(source: "EncodedImages") -> str:
  """Describe the first label, unless it is 0 by default."""
  if source.label_offset is None:
    return ", labels from 1" if _are_taken_from_1(source) else ""
  return f", labels from {source.label_offset}"


def _check_evaluation_labels(
  config: DataConfig, layout: "DatasetLayout", test: "EncodedImages"
) -> None:
  """Check all labels of the test images before a run, not at its end.

  This also finds a wrong first label: a label at either end is out of range, or
  the first label is ambiguous. Test images of another data set, or in class
  folders, say nothing about the training labels; then the training labels are
  checked as well.

  Raises:
    UsageError: A label is outside the classes, or the first label is ambiguous.
  """
  from .images.labels import check_labels
  from .images.opening import open_split

  def open_train() -> "EncodedImages":
    return open_split(
      layout, "train", config.num_classes, label_offset=config.label_offset
    )

  of_one_set = config.eval_path is None and not test.labels_are_classes
  if not test.labels_are_classes:
    try:
      check_labels(test)
    except UsageError:
      if not of_one_set:
        raise
      # The last class may be among the training images only.
      check_labels(test, open_train())
  if not of_one_set:
    train = open_train()
    if not train.labels_are_classes and _are_taken_from_1(train):
      check_labels(train)


def _are_taken_from_1(source: "EncodedImages") -> bool:
  stored = next(iter(source.labels()), None)
  return source.label_offset is None and bool(stored and stored.first_label)


def read_class_names(path: str, num_classes: int) -> tuple[str, ...]:
  """Read the names of the classes, one a line, in the order of their labels.

  Raises:
    UsageError: The file cannot be read, or has another number of names.
  """
  try:
    lines = Path(path).read_text("utf-8-sig").splitlines()
  except OSError as error:
    raise UsageError(f"{path}: {error.strerror}") from None
  except UnicodeDecodeError as error:
    raise UsageError(f"{path}: not a UTF-8 text file: {error}") from None
  names = tuple(line.strip() for line in lines if line.strip())
  if len(names) != num_classes:
    raise UsageError(
      f"{path}: has {len(names)} class names, but the data has {num_classes} "
      "classes; write one name on each line, in the order of the labels"
    )
  return names
