"""Label files of images that lie in one folder, as ILSVRC's validation does."""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

from ....errors import UsageError
from ...source import BadExampleError
from ..shard_names import SPLIT_ALIASES
from .encoded import IMAGE_SUFFIXES, read_file

SYNSET_MAPPING = "LOC_synset_mapping.txt"
"""Kaggle's list of classes: a synset and its names on each line."""

# The first is what tells a label file from other text.
_NAMES = (
  r"LOC_{word}_solution\.csv",
  r"{word}(_labels|_map|_annotations)?\.(txt|csv)",
  r"(.*{word}_)?synset_labels\.txt",
  r".*{word}_ground_truth\.txt",
)
_HEADERS = {"imageid", "image_id", "image", "filename", "file", "path", "id"}


def find_label_file(
  folder: Path, names: Collection[str], word: str
) -> Path | None:
  """Find the label file of a split among the files of a folder.

  Args:
    folder: The folder of the files.
    names: Their names.
    word: What the split is called: "val", "validation", ...

  Raises:
    UsageError: there are two.
  """
  words = "val|validation|valid" if word.startswith("val") else word
  for pattern in _NAMES:
    matcher = re.compile(pattern.format(word=f"({words})"), re.IGNORECASE)
    matching = sorted(filter(matcher.fullmatch, names))
    if len(matching) > 1:
      raise UsageError(
        f"{folder}: has two label files of the {word} images, {matching[0]} "
        f"and {matching[1]}; keep one"
      )
    if matching:
      return folder / matching[0]
  return None


def is_label_file(name: str) -> bool:
  """Tell a label file of any split by its name."""
  words = sum(SPLIT_ALIASES.values(), ())
  return any(find_label_file(Path(), [name], word) for word in words)


def read_synset_mapping(path: Path) -> tuple[str, ...]:
  """Read the synsets of Kaggle's list, in the order of their labels."""
  return tuple(line.split()[0] for line in read_lines(path) if line.split())


def read_lines(path: Path) -> list[str]:
  """Read the lines of a text file.

  Raises:
    UsageError: it cannot be read, or is no text.
  """
  try:
    return read_file(path).decode("utf-8-sig").splitlines()
  except BadExampleError as error:
    raise UsageError(f"{path}: {error}") from None
  except UnicodeDecodeError as error:
    raise UsageError(f"{path}: is no text in UTF-8: {error}") from None


def read_labels(
  path: Path,
  files: Sequence[str],
  class_names: Sequence[str] | None,
  first_label: int | None,
) -> list[int]:
  """Read the label of each file.

  Args:
    path: The label file: on each line a file's name, with or without suffix,
      and its class, separated by blanks, a tab or a comma; or only the class,
      in the order of the files' names.
    files: Paths of the images below their folder, sorted.
    class_names: Names that classes may have instead of a number.
    first_label: The number of the first class; None takes 0 where it occurs.

  Returns:
    Labels from 0.

  Raises:
    UsageError: a file without label, a label without file, a class without
      name, or numbers whose meaning is not known.
  """
  rows = [re.split(r"[\s,]+", line.strip()) for line in read_lines(path)]
  rows = [row for row in rows if row[0]]
  if rows and rows[0][0].lower() in _HEADERS:
    del rows[0]
  if rows and all(len(row) == 1 for row in rows):
    texts = _by_order(path, [text for (text,) in rows], files)
  else:
    texts = _by_name(path, rows, files)
  labels = {name: label for label, name in enumerate(class_names or ())}
  counts = Counter(class_names or ())
  repeated = next((text for text in texts if counts[text] > 1), None)
  if repeated is not None:
    raise UsageError(
      f"{path}: has the class {repeated!r}, the name of {counts[repeated]} "
      "classes; write their numbers instead"
    )
  # Where numbers are names, others than these are no labels.
  if not any(map(_is_number, labels)):
    labels |= _numbered(path, texts, first_label)
  return [_label(path, text, labels) for text in texts]


def _numbered(
  path: Path, texts: Iterable[str], first_label: int | None
) -> dict[str, int]:
  """Find the labels that the numbers among classes stand for."""
  numbers = {text: int(text) for text in texts if _is_number(text)}
  if first_label is None and min(numbers.values(), default=0) > 0:
    raise UsageError(
      f"{path}: has the labels {min(numbers.values())} to "
      f"{max(numbers.values())}, so they may begin at 0 or at 1: give "
      "--data.label-offset 0 or 1"
    )
  return {text: number - (first_label or 0) for text, number in numbers.items()}


def _by_order(path: Path, texts: list[str], files: Sequence[str]) -> list[str]:
  if all(text.isdecimal() for text in texts):
    raise UsageError(
      f"{path}: has a number for each image; ILSVRC2012's numbers are not in "
      "the order of the sorted synsets, so they cannot be used as labels; "
      "take imagenet_2012_validation_synset_labels.txt instead, or a file with "
      "an image's name and class on each line"
    )
  for file, by_number in zip(files, sorted(files, key=_natural), strict=True):
    if file != by_number:
      raise UsageError(
        f"{path}: has a class for each image in the order of their names, but "
        f"that of {file} and {by_number} is not known, as text or by number; "
        "write an image's name and class on each line"
      )
  if len(texts) != len(files):
    raise UsageError(
      f"{path}: has {len(texts)} labels for {len(files)} images; the set is "
      "not whole, or the labels are of another"
    )
  return texts


def _by_name(
  path: Path, rows: list[list[str]], files: Sequence[str]
) -> list[str]:
  by_name: dict[str, str] = {}
  for row in rows:
    if len(row) < 2:
      raise UsageError(f"{path}: {row[0]} has no class behind it")
    if len(row) > 2 and _is_number(row[1]):
      raise UsageError(
        f"{path}: has {', '.join(row[1:])} behind {row[0]}, of which any may "
        "be the class; leave only the name and the class on each line"
      )
    name = _stem(row[0])
    if by_name.setdefault(name, row[1]) != row[1]:
      raise UsageError(
        f"{path}: {row[0]} has two classes, {by_name[name]} and {row[1]}"
      )
  stems = [_stem(file) for file in files]
  absent = [f for f, s in zip(files, stems, strict=True) if s not in by_name]
  if absent:
    raise UsageError(
      f"{path}: has no label for {len(absent)} of {len(files)} images, the "
      f"first is {absent[0]}"
    )
  if len(set(stems)) < len(files):
    raise UsageError(f"{path}: two images have one name up to the suffix")
  gone = by_name.keys() - set(stems)
  if gone:
    raise UsageError(
      f"{path}: names {len(gone)} images that are not there, such as "
      f"{min(gone)}; fetch them, or take out their lines"
    )
  return [by_name[stem] for stem in stems]


def _label(path: Path, text: str, labels: Mapping[str, int]) -> int:
  if text in labels:
    return labels[text]
  if not labels:
    raise UsageError(
      f"{path}: has the class {text!r}, whose label is not known: that takes "
      f"class folders in train/, or {SYNSET_MAPPING} beside it"
    )
  raise UsageError(
    f"{path}: has the class {text!r}, which is not among the {len(labels)} of "
    "the training images"
  )


def _is_number(text: str) -> bool:
  return re.fullmatch(r"-?\d{1,18}", text) is not None


def _natural(name: str) -> list[str | int]:
  """Make a key that sorts numbers in names by their size."""
  parts = re.split(r"(\d+)", name)
  return [int(part) if i % 2 else part for i, part in enumerate(parts)]


def _stem(file: str) -> str:
  """Take the last part of a path, without a suffix of images."""
  name = file.rpartition("/")[2]
  stem, _, suffix = name.rpartition(".")
  return stem if f".{suffix.lower()}" in IMAGE_SUFFIXES else name
