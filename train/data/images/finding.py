"""What a folder of images holds: the one place that decides how it is read."""

import json
import os
import re
import tarfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from ...errors import UsageError
from ..source import Split
from .encoded import IMAGE_SUFFIXES
from .index import NAME, PARTIAL, read_index
from .label_files import (
  SYNSET_MAPPING,
  find_label_file,
  is_label_file,
  read_lines,
  read_synset_mapping,
)
from .paths import (
  Entry,
  as_path,
  counts_by_kind,
  file_kind,
  list_folder,
  visible,
)
from .shard_files import (
  FOLDERS,
  SPLIT_NAMES,
  SPLIT_WORDS,
  ShardKind,
  series_problem,
  shard_kind,
  split_words,
)
from .sharded import open_shard

Kind = Literal["podscale", "folders", "labelled"] | ShardKind

KIND_NAMES: dict[Kind, str] = {
  "podscale": "podscale's ArrayRecord shards with an index",
  "array_record": "ArrayRecord shards",
  "parquet": "Parquet shards",
  "tar": "tar shards",
  "tfrecord": "TFRecord shards",
  "folders": "class folders",
  "labelled": "image files and a label file",
}

OTHER_FILES = "neither images nor shards"
"""Why most files are left out; the other reasons are worth a name."""

# Read where they are needed.
INFO = "dataset_info.json"
_USED = ("features.json", INFO, "label.labels.txt", SYNSET_MAPPING)
_KAGGLE = ("ILSVRC", "Data", "CLS-LOC")
_ARCHIVES = (".zip", ".gz", ".xz", ".zst", ".bz2", ".7z", ".rar")
_IN_ARCHIVES = ("tar", *(suffix[1:] for suffix in IMAGE_SUFFIXES))
_NO_LABELS = "an archive without labels: unpack it into class folders"
_LEVELS = 3  # DATASET/CONFIG/VERSION of TensorFlow Datasets
_MOST_FOLDERS = 64  # more are classes, not versions
_MOST_NAMED = 3
# What reading JSON raises that is damaged or another program's.
_OTHERS_JSON = (
  *(ValueError, TypeError, LookupError),
  *(AttributeError, OverflowError, RecursionError),
)


@dataclass(frozen=True)
class FoundSplit:
  """Where the images of a split are.

  Attributes:
    kind: The format.
    word: What the split is called there.
    folder: The folder of the shards, of the class folders or of the images.
    shards: File names of the shards, in order; none for images in files.
    labels: The label file of images that lie in one folder.
    records: How many records each shard has, where the data says it.
  """

  kind: Kind
  word: str
  folder: Path
  shards: Sequence[str] = ()
  labels: Path | None = None
  records: Mapping[str, int] = field(default_factory=dict)


@dataclass
class FoundData:
  """What a folder holds.

  Attributes:
    folder: The folder of the data, below the one that was given or that itself.
    splits: What can be opened.
    problems: Why a split cannot be opened, with the cure.
    class_names: Names by label, where the data says them.
    num_classes: Number of classes, where the data says it.
    classes_from: What says it.
    ignored: File names that are left out, by reason.
  """

  folder: Path
  splits: dict[Split, FoundSplit] = field(default_factory=dict)
  problems: dict[Split, str] = field(default_factory=dict)
  class_names: tuple[str, ...] | None = None
  num_classes: int | None = None
  classes_from: str = ""
  ignored: dict[str, list[str]] = field(default_factory=dict)

  def ignore(self, names: Iterable[str], reason: str) -> None:
    """Add files that are left out."""
    for name in names:
      self.ignored.setdefault(reason, []).append(name)

  def left_out(self) -> tuple[str, ...]:
    """Describe the files that are left out, one phrase for each reason."""
    phrases = []
    for reason, names in self.ignored.items():
      if reason == OTHER_FILES:
        phrases.append(counts_by_kind(Counter(map(file_kind, names))))
      else:
        some = ", ".join(names[:_MOST_NAMED])
        more = len(names) - _MOST_NAMED
        rest = f" and {more} more" * (more > 0)
        phrases.append(f"{some}{rest} ({reason})")
    return tuple(phrases)


def find_data(folder: str | Path, loose: Split | None = None) -> FoundData:
  """Decide what a folder of images is and where its splits are.

  Only the folders themselves are listed: no class folder, and no file is read
  but for the small ones that describe a data set.

  Args:
    folder: A local path or a URL.
    loose: The split that class folders or images are of that lie in the folder
      itself, where it has nothing else of that split.

  Raises:
    UsageError: the folder cannot be read, its description is damaged, or its
      conversion was not finished.
  """
  outer = as_path(folder)
  inner = _descend(outer)
  found = FoundData(inner)
  entries = list_folder(inner)
  if NAME in _files(entries):
    _find_converted(found)
    return found
  if PARTIAL in _files(entries):
    raise UsageError(
      f"{inner}: holds a conversion that was not finished; run the same "
      "convert again"
    )
  candidates = _candidates(found, entries)
  if loose and not candidates[loose]:
    candidates[loose] = _in_files(found, inner, SPLIT_WORDS[loose][0])
  for split in SPLIT_WORDS:
    _choose(found, split, candidates[split])
  _refuse_shared_files(found)
  _find_classes(found, outer)
  for split, where in list(found.splits.items()):
    found.splits[split] = replace(where, records=_read_records(where))
    if where.kind == "labelled" and _has_class_folders(found, where):
      if where.labels:
        found.ignore([where.labels.name], f"{KIND_NAMES['folders']} are used")
      found.splits[split] = replace(where, kind="folders", labels=None)
    elif where.kind == "labelled":
      _find_labels(found, split, where, outer)
  return found


def _descend(folder: Path) -> Path:
  """Find the one folder with data in it at or below `folder`."""
  folders = _folders(list_folder(folder))
  for start in range(len(_KAGGLE)):
    if _KAGGLE[start] in folders:
      inner = folder.joinpath(*_KAGGLE[start:])
      if inner.is_dir():
        return inner
  level = [folder]
  for _ in range(_LEVELS + 1):
    listed = [(each, list_folder(each)) for each in level]
    holding = [each for each, entries in listed if _holds_data(entries)]
    if len(holding) > 1:
      raise UsageError(
        f"{folder}: has {len(holding)} data sets in it, {holding[0]} and "
        f"{holding[1]} among them; give the folder of one"
      )
    if holding:
      return holding[0]
    level = [
      each / name for each, entries in listed for name in _folders(entries)
    ]
    if len(level) > _MOST_FOLDERS:
      break
  return folder


def _holds_data(entries: Sequence[Entry]) -> bool:
  words = sum(SPLIT_WORDS.values(), ())
  return (
    NAME in _files(entries)
    or any(name.lower() in words for name in _folders(entries))
    or any(
      shard_kind(name) and any(split_words(name, s) for s in SPLIT_WORDS)
      for name in _files(entries)
    )
  )


def _find_converted(found: FoundData) -> None:
  index = read_index(found.folder)
  found.num_classes, found.classes_from = index.num_classes, NAME
  if index.class_names is not None:
    found.class_names = tuple(index.class_names)
  for split, words in SPLIT_WORDS.items():
    shards = [shard.file for shard in index.splits.get(split, [])]
    if shards:
      found.splits[split] = FoundSplit(
        "podscale", words[0], found.folder, shards
      )
    else:
      found.problems[split] = f"{found.folder / NAME}: has no {split} images"


# --- Candidates --------------------------------------------------------------


def _candidates(
  found: FoundData, entries: Sequence[Entry]
) -> dict[Split, list[FoundSplit]]:
  """List all that may be the images of each split."""
  candidates: dict[Split, list[FoundSplit]] = {s: [] for s in SPLIT_WORDS}
  by_word: dict[tuple[Split, str], list[str]] = {}
  other = []
  for name in _files(entries):
    words = {split: split_words(name, split) for split in SPLIT_WORDS}
    if not shard_kind(name) or not any(words.values()):
      other.append(name)
      continue
    for split, (word, *_) in ((s, w) for s, w in words.items() if w):
      by_word.setdefault((split, word), []).append(name)
  for (split, word), names in by_word.items():
    candidates[split] += _shard_groups(found.folder, word, names)
  for split, words_of_split in SPLIT_WORDS.items():
    for name in _folders(entries):
      if name.lower() in words_of_split:
        candidates[split] += _look_inside(found, split, name)
  _ignore_others(found, other)
  return candidates


def _look_inside(found: FoundData, split: Split, name: str) -> list[FoundSplit]:
  """List what a split's own folder may be read as."""
  folder, word = found.folder / name, name.lower()
  entries = list_folder(folder)
  files = _files(entries)
  shards = [file for file in files if shard_kind(file)]
  _ignore_others(
    found,
    (
      name
      for name in files
      if not shard_kind(name) and not name.lower().endswith(IMAGE_SUFFIXES)
    ),
  )
  return _shard_groups(folder, word, shards) + _in_files(found, folder, word)


def _in_files(found: FoundData, folder: Path, word: str) -> list[FoundSplit]:
  """List class folders, or images outside of class folders."""
  entries = list_folder(folder)
  files, folders = _files(entries), _folders(entries)
  images = [file for file in files if file.lower().endswith(IMAGE_SUFFIXES)]
  labels = find_label_file(folder, files, word)
  if (labels and (images or folders)) or (images and not folders):
    return [FoundSplit("labelled", word, folder, labels=labels)]
  if folders:
    found.ignore(images, f"outside of the class folders in {folder.name}/")
    return [FoundSplit("folders", word, folder)]
  return []


def _shard_groups(
  folder: Path, word: str, names: Sequence[str]
) -> list[FoundSplit]:
  by_kind: dict[ShardKind, list[str]] = {}
  for name in names:
    if kind := shard_kind(name):
      by_kind.setdefault(kind, []).append(name)
  return [
    FoundSplit(kind, word, folder, group) for kind, group in by_kind.items()
  ]


# --- Choice ------------------------------------------------------------------


def _choose(
  found: FoundData, split: Split, candidates: list[FoundSplit]
) -> None:
  """Choose one of a split's candidates; name those that are left out."""
  candidates = _without_archives(found, candidates)
  there = {candidate.word for candidate in candidates}
  words = [word for word in SPLIT_WORDS[split] if word in there]
  if not words:
    found.problems[split] = _nothing(found, split)
    return
  for candidate in candidates:
    if candidate.word != words[0]:
      found.ignore([_pattern(found.folder, candidate)], f"{words[0]} is used")
  candidates = [c for c in candidates if c.word == words[0]]
  if len(candidates) > 1:
    what = " and ".join(sorted(KIND_NAMES[c.kind] for c in candidates))
    found.problems[split] = (
      f"{found.folder}: has {split} images of several kinds: {what}; give a "
      "folder that has one of them"
    )
    return
  (chosen,) = candidates
  problem = _of_other_split(chosen, split) or series_problem(chosen.shards)
  if problem:
    found.problems[split] = f"{chosen.folder}: {problem}"
  else:
    found.splits[split] = chosen


def _refuse_shared_files(found: FoundData) -> None:
  """Refuse test images that are training images by a link."""
  if len(found.splits) < 2:
    return
  train, test = found.splits["train"], found.splits["test"]
  known = {_inode(path) for path in _paths(train)} - {None}
  shared = [path for path in _paths(test) if _inode(path) in known]
  if shared:
    del found.splits["test"]
    found.problems["test"] = (
      f"{shared[0]}: is among the training images by a link; to evaluate on "
      f"them on purpose give --data.eval-path {train.folder}"
    )


def _paths(split: FoundSplit) -> list[Path]:
  """List the shards of a split, or its folder."""
  return [split.folder / name for name in split.shards] or [split.folder]


def _inode(path: Path) -> tuple[int, int] | None:
  """Identify a local file or folder, whatever its name."""
  if not isinstance(path, os.PathLike):
    return None
  status = path.stat()
  return status.st_dev, status.st_ino


def _of_other_split(chosen: FoundSplit, split: Split) -> str | None:
  """Say which shard is of the other split by its name."""
  for name in chosen.shards:
    for other in SPLIT_WORDS:
      words = split_words(name, other)
      if other != split and words:
        return (
          f"{name} is taken for {chosen.word} and for {words[0]}; images of "
          "one split must not be in the other, so give it the name of one"
        )
  return None


def _without_archives(
  found: FoundData, candidates: list[FoundSplit]
) -> list[FoundSplit]:
  """Leave out the archives that images were downloaded in."""
  files = [c for c in candidates if c.kind in ("folders", "labelled")]
  kept = []
  for candidate in candidates:
    if candidate.kind != "tar":
      kept.append(candidate)
    elif files:
      reason = f"{KIND_NAMES[files[0].kind]} are used"
      found.ignore([_pattern(found.folder, candidate)], reason)
    else:
      plain = _plain_archives(candidate)
      found.ignore(plain, _NO_LABELS)
      rest = [name for name in candidate.shards if name not in plain]
      if rest:
        kept.append(FoundSplit("tar", candidate.word, candidate.folder, rest))
  return kept


def _plain_archives(tars: FoundSplit) -> list[str]:
  """List tars of no series whose first member has no label beside it."""
  shapes = Counter(_shape(name) for name in tars.shards)
  return [
    name
    for name in tars.shards
    if shapes[_shape(name)] == 1 and not _has_labels(tars.folder / name)
  ]


def _shape(name: str) -> str:
  return re.sub(r"\d+", "#", name)


def _has_labels(path: Path) -> bool:
  """Look for a label beside the first image; True where only reading tells."""
  first = None
  try:
    with (
      open_shard(path) as file,
      tarfile.open(fileobj=file, mode="r:") as tar,
    ):
      for member in tar:
        stem, _, suffix = member.name.rpartition("/")[2].partition(".")
        if suffix in ("cls", "json"):
          return True
        if member.isfile() and suffix.lower() in _IN_ARCHIVES:
          if first not in (None, stem):
            return False
          first = stem
  except (UsageError, tarfile.TarError):
    return True
  return first is None


def _pattern(root: Path, split: FoundSplit) -> str:
  """Name the shards or the folder of a split that is left out."""
  folder = "" if split.folder == root else f"{split.folder.name}/"
  if len(split.shards) == 1:
    return f"{folder}{split.shards[0]}"
  if split.shards:
    return f"{folder}{split.shards[0]} and {len(split.shards) - 1} more"
  return folder


def _nothing(found: FoundData, split: Split) -> str:
  name, word = SPLIT_NAMES[split], FOLDERS[split]
  left_out = [text for text in found.left_out() if text.endswith(")")]
  also = f"; left out: {', '.join(left_out)}" if left_out else ""
  if found.folder.name.lower() in sum(SPLIT_WORDS.values(), ()):
    also += f"; if this is the folder of one split, give {found.folder.parent}"
  return (
    f"{found.folder}: no {split} images in it: neither {NAME}, nor shards such "
    f"as {name}-00000-of-01024 (TFRecord), {name}.array_record-00000-of-00064, "
    f"{name}-000000.tar or {name}-00000-of-00294.parquet, nor "
    f"{word}/CLASS/*.jpg{also}"
  )


# --- Classes and labels ------------------------------------------------------


def _find_classes(found: FoundData, outer: Path) -> None:
  """Find names and number of the classes, from what describes the data."""
  train = found.splits.get("train")
  if train and train.kind == "folders":
    found.class_names = tuple(_folders(list_folder(train.folder)))
    found.classes_from = f"the folders in {train.folder.name}/"
  else:
    _read_tfds(found)
    mapping = _beside(found.folder, outer, SYNSET_MAPPING)
    if mapping and found.class_names is None:
      found.class_names = read_synset_mapping(mapping)
      found.classes_from = mapping.name
  if found.class_names is not None:
    found.num_classes = len(found.class_names)


def _has_class_folders(found: FoundData, where: FoundSplit) -> bool:
  """Tell whether images beside a label file lie in folders of their classes."""
  folders = _folders(list_folder(where.folder))
  return bool(folders) and set(folders) <= set(found.class_names or ())


def _read_tfds(found: FoundData) -> None:
  """Read what TensorFlow Datasets writes beside its shards."""
  names = found.folder / "label.labels.txt"
  if names.is_file():
    found.class_names = tuple(line for line in read_lines(names) if line)
    found.classes_from = names.name
  path = found.folder / "features.json"
  if not path.is_file():
    return
  try:
    features = json.loads("\n".join(read_lines(path)))
    features = features.get("featuresDict", features.get("content", {}))
    label = features.get("features", features)["label"]
    number = label.get("classLabel", label.get("content", {}))
    classes = int(number.get("numClasses", number.get("num_classes")))
  except _OTHERS_JSON:
    return  # its labels are of another kind; the readers say so
  if classes < 1:
    raise UsageError(f"{path}: has {classes} classes")
  found.num_classes = classes
  found.classes_from = found.classes_from or path.name
  if found.class_names and len(found.class_names) != found.num_classes:
    raise UsageError(
      f"{names}: has {len(found.class_names)} names, but {path.name} beside it "
      f"says {found.num_classes} classes"
    )


def _read_records(where: FoundSplit) -> dict[str, int]:
  """Read how many records TensorFlow Datasets has written to each shard."""
  path = where.folder / INFO
  if not where.shards or not path.is_file():
    return {}
  try:
    splits = json.loads("\n".join(read_lines(path)))["splits"]
    (split,) = (each for each in splits if each["name"] == where.word)
    counts = [int(count) for count in split["shardLengths"]]
    return dict(zip(where.shards, counts, strict=True))
  except _OTHERS_JSON:
    return {}  # it is another program's, or says nothing of its shards


def _find_labels(
  found: FoundData, split: Split, where: FoundSplit, outer: Path
) -> None:
  """Find the label file of a split whose images lie in one folder."""
  labels = where.labels
  for folder in _between(found.folder, outer):
    names = _files(list_folder(folder))
    labels = labels or find_label_file(folder, names, where.word)
  if labels:
    found.splits[split] = replace(where, labels=labels)
    return
  del found.splits[split]
  found.problems[split] = (
    f"{where.folder}: has images outside class folders and no label file; put "
    f"them into a folder for each class, or beside {where.word}/ a file "
    f"{where.word}.txt with an image's name and class on each line "
    "(for Kaggle's ILSVRC give the folder that holds ILSVRC/ and "
    "LOC_val_solution.csv)"
  )


def _between(inner: Path, outer: Path) -> list[Path]:
  """List the folders from the data's up to the one that was given."""
  folders = [inner]
  while folders[-1] != outer:
    folders.append(folders[-1].parent)
  return folders


def _beside(inner: Path, outer: Path, name: str) -> Path | None:
  paths = (folder / name for folder in _between(inner, outer))
  return next((path for path in paths if path.is_file()), None)


# --- Listings ----------------------------------------------------------------


def _files(entries: Iterable[Entry]) -> list[str]:
  return [e.name for e in visible(entries) if not e.is_dir]


def _folders(entries: Iterable[Entry]) -> list[str]:
  return [e.name for e in visible(entries) if e.is_dir]


def _ignore_others(found: FoundData, names: Iterable[str]) -> None:
  """Note the files that are not looked at further, each with the reason."""
  for name in names:
    if shard_kind(name):
      found.ignore([name], "no split in its name")
    elif name.lower().endswith(_ARCHIVES):
      found.ignore([name], "a packed archive")
    elif name.lower().endswith(".arrow"):
      found.ignore([name], "Arrow files are not read, Parquet files are")
    elif name not in _USED and not is_label_file(name):
      found.ignore([name], OTHER_FILES)
