"""Images to train and evaluate on: sources, and batches made from them.

A `Source` returns examples by index. `train_batches` and `eval_batches` make
this process's share of the global batches from it, {"image": uint8
[n, h, w, 3], "label": int32 [n]}. The device normalises with the source's
`mean` and `std`, because bytes are a quarter of the size of floats.
"""

from .augment.policies import AutoAugment, Policy, RandAugment
from .loading.bad_examples import Skips
from .loading.batches import (
  OP_IDS,
  OP_VALUES,
  EvalBatches,
  TrainBatches,
  eval_batches,
  train_batches,
)
from .loading.order import Order, Shuffled, ShuffledInShards
from .loading.prefetch import Batch
from .registry import open_source, read_class_names
from .source import (
  IMAGENET_MEAN,
  IMAGENET_STD,
  Example,
  Source,
  Split,
  check_same_classes,
  describe,
)
from .sources.fashion_mnist import FashionMnist, open_fashion_mnist
from .sources.synthetic import Synthetic

__all__ = [
  "IMAGENET_MEAN",
  "IMAGENET_STD",
  "OP_IDS",
  "OP_VALUES",
  "AutoAugment",
  "Batch",
  "EvalBatches",
  "Example",
  "FashionMnist",
  "Order",
  "Policy",
  "RandAugment",
  "Shuffled",
  "ShuffledInShards",
  "Skips",
  "Source",
  "Split",
  "Synthetic",
  "TrainBatches",
  "check_same_classes",
  "describe",
  "eval_batches",
  "open_fashion_mnist",
  "open_source",
  "read_class_names",
  "train_batches",
]
