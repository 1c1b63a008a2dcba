"""Label files of images that lie in one folder, as ILSVRC's validation set."""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

from ....errors import UsageError
from ...source import BadExampleError
from ..shard_names import SPLIT_ALIASES
from .encoded import IMAGE_SUFFIXES, read_file

SYNSET_MAPPING = "LOC_synset_mapping.txt"
"""Name of Kaggle's list of classes: a synset and its names on each line."""

# Patterns of the names of label files, in order of preference.
_NAMES = (
  r"LOC_{split}_solution\.csv",
  r"{split}(_labels|_map|_annotations)?\.(txt|csv)",
  r"(.*{split}_)?synset_labels\.txt",
  r".*{split}_ground_truth\.txt",
)
_HEADERS = {"imageid", "image_id", "image", "filename", "file", "path", "id"}


def find_label_file(
  folder: Path, names: Collection[str], split_name: str
) -> Path | None:
  """Find the label file of a split among the files of a folder.

  Args:
    folder: Folder of the files.
    names: Names of the files.
    split_name: Name of the split, such as "val".

  Returns:
    Path of the label file; None if there is none.

  Raises:
    UsageError: There are two.
  """
  is_val = split_name.startswith("val")
  aliases = "val|validation|valid" if is_val else split_name
  for pattern in _NAMES:
    matcher = re.compile(pattern.format(split=f"({aliases})"), re.IGNORECASE)
    matching = sorted(filter(matcher.fullmatch, names))
    if len(matching) > 1:
      raise UsageError(
        f"{folder}: has two label files of the {split_name} images, "
        f"{matching[0]} and {matching[1]}; keep one"
      )
    if matching:
      return folder / matching[0]
  return None


def is_label_file(name: str) -> bool:
  """Test if a name is that of a label file, of any split."""
  aliases = sum(SPLIT_ALIASES.values(), ())
  return any(find_label_file(Path(), [name], alias) for alias in aliases)


def read_synset_mapping(path: Path) -> tuple[str, ...]:
  """Read the synsets of Kaggle's list, in the order of their labels."""
  return tuple(line.split()[0] for line in read_lines(path) if line.split())


def read_lines(path: Path) -> list[str]:
  """Read the lines of a text file.

  Raises:
    UsageError: The file cannot be read, or is not UTF-8.
  """
  try:
    return read_file(path).decode("utf-8-sig").splitlines()
  except BadExampleError as error:
    raise UsageError(f"{path}: {error}") from None
  except UnicodeDecodeError as error:
    raise UsageError(f"{path}: not a UTF-8 text file: {error}") from None


def read_labels(
  path: Path,
  files: Sequence[str],
  class_names: Sequence[str] | None,
  first_label: int | None,
) -> list[int]:
  """Read the label of each file.

  Args:
    path: Label file. Each line has the name of an image, with or without
      suffix, and its class, separated by blanks, a tab or a comma; or only the
      class, in the order of the images' names.
    files: Paths of the images below their folder, sorted.
    class_names: Names by label; the file may have these instead of numbers.
    first_label: Label of the first class; None takes 0 if it occurs.

  Returns:
    Labels from 0.

  Raises:
    UsageError: An image has no label, a label has no image, a class is unknown,
      or the numbers are ambiguous.
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
      f"{path}: has the class {repeated!r}, but {counts[repeated]} classes "
      "have this name; write their numbers instead"
    )
  # If class names are numbers, a number is a name and never a label.
  if not any(map(_is_number, labels)):
    labels |= _numbered(path, texts, first_label)
  return [_label(path, text, labels) for text in texts]


def _numbered(
  path: Path, texts: Iterable[str], first_label: int | None
) -> dict[str, int]:
  """Map the numbers among the classes to labels from 0."""
  numbers = {text: int(text) for text in texts if _is_number(text)}
  if first_label is None and min(numbers.values(), default=0) > 0:
    raise UsageError(
      f"{path}: has the labels {min(numbers.values())} to "
      f"{max(numbers.values())}, so they may start at 0 or at 1; give "
      "--data.label-offset 0 or 1"
    )
  return {text: number - (first_label or 0) for text, number in numbers.items()}


def _by_order(path: Path, texts: list[str], files: Sequence[str]) -> list[str]:
  if all(text.isdecimal() for text in texts):
    raise UsageError(
      f"{path}: has a number for each image, but ILSVRC2012's numbers do not "
      "follow the sorted synsets, so they are no labels; use "
      "imagenet_2012_validation_synset_labels.txt, or a file with an image's "
      "name and class on each line"
    )
  for file, by_number in zip(files, sorted(files, key=_natural), strict=True):
    if file != by_number:
      raise UsageError(
        f"{path}: has classes in the order of the images' names, but the order "
        f"of {file} and {by_number} is ambiguous, as text or by number; write "
        "an image's name and class on each line"
      )
  if len(texts) != len(files):
    raise UsageError(
      f"{path}: has {len(texts)} labels for {len(files)} images; fetch the "
      "missing images, or the labels of this data set"
    )
  return texts


def _by_name(
  path: Path, rows: list[list[str]], files: Sequence[str]
) -> list[str]:
  by_name: dict[str, str] = {}
  for row in rows:
    if len(row) < 2:
      raise UsageError(
        f"{path}: {row[0]} has no class; write it behind the name"
      )
    if len(row) > 2 and _is_number(row[1]):
      raise UsageError(
        f"{path}: has {', '.join(row[1:])} behind {row[0]}, and each may be "
        "the class; leave only the name and the class on each line"
      )
    name = _stem(row[0])
    if by_name.setdefault(name, row[1]) != row[1]:
      raise UsageError(
        f"{path}: {row[0]} has two classes, {by_name[name]} and {row[1]}; keep "
        "one"
      )
  stems = [_stem(file) for file in files]
  absent = [f for f, s in zip(files, stems, strict=True) if s not in by_name]
  if absent:
    raise UsageError(
      f"{path}: has no label for {len(absent)} of {len(files)} images, such as "
      f"{absent[0]}; add their lines, or remove the images"
    )
  if len(set(stems)) < len(files):
    raise UsageError(
      f"{path}: two images have equal names but for the suffix; rename one"
    )
  gone = by_name.keys() - set(stems)
  if gone:
    raise UsageError(
      f"{path}: names {len(gone)} missing images, such as {min(gone)}; fetch "
      "them, or remove their lines"
    )
  return [by_name[stem] for stem in stems]


def _label(path: Path, text: str, labels: Mapping[str, int]) -> int:
  if text in labels:
    return labels[text]
  if not labels:
    raise UsageError(
      f"{path}: has the class {text!r}, whose label is unknown; add class "
      f"folders in train/, or {SYNSET_MAPPING} beside this file"
    )
  raise UsageError(
    f"{path}: has the class {text!r}, which is not among the "
    f"{len(labels)} classes of the training images"
  )


def _is_number(text: str) -> bool:
  return re.fullmatch(r"-?\d{1,18}", text) is not None


def _natural(name: str) -> list[str | int]:
  """Compute a sort key that compares numbers in names by value."""
  parts = re.split(r"(\d+)", name)
  return [int(part) if i % 2 else part for i, part in enumerate(parts)]


def _stem(file: str) -> str:
  """Return the last part of a path without the suffix of an image."""
  name = file.rpartition("/")[2]
  stem, _, suffix = name.rpartition(".")
  return stem if f".{suffix.lower()}" in IMAGE_SUFFIXES else name
