"""From settings to a source."""

from ..config import DataConfig
from ..errors import UsageError
from .fashion_mnist import open_fashion_mnist
from .source import Source, Split
from .synthetic import Synthetic

_SYNTHETIC_EXAMPLES: dict[Split, int] = {"train": 10_000, "test": 1_000}


def open_source(config: DataConfig, split: Split, resolution: int) -> Source:
  """Open the data set that the settings name.

  Args:
    config: Its source, path and number of training examples.
    split: "train" or "test".
    resolution: Height and width of the images of "synthetic", in pixels; the
      other sources have sizes of their own.

  Raises:
    UsageError: the data is missing, damaged or smaller than asked for.

  >>> source = open_source(DataConfig(source="synthetic"), "test", 32)
  >>> len(source), source.num_classes
  (1000, 10)
  """
  examples = config.train_examples if split == "train" else None
  if config.source == "fashion-mnist":
    return open_fashion_mnist(config.path, split, examples)
  if config.source == "folder":
    if config.path is None:
      raise UsageError(
        "the folder source needs data.path, a folder with train/CLASS/*.jpg "
        "and val/CLASS/*.jpg"
      )
    # Not all machines that use the other sources have its JPEG decoder.
    from .folder import ImageFolder

    return ImageFolder(config.path, split, examples)
  if config.source == "synthetic":
    if config.path is not None:
      raise UsageError(
        f"the synthetic source reads no files, but data.path is {config.path}"
      )
    count = examples or _SYNTHETIC_EXAMPLES[split]
    return Synthetic(count, resolution, split=split)
  raise UsageError(
    f"the {config.source} source is not built yet; unpack the images to "
    "train/CLASS/ and val/CLASS/ and use data.source folder with data.path"
  )
