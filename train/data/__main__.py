"""Command line of data sets: `python -m podscale.train.data COMMAND`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn, get_args

from rich.console import Console

from ..errors import UsageError, printable
from .tools.flags import bounded_integer

_PROGRAM = "python -m podscale.train.data"
_MOST_EXAMPLES = 2**31 - 1
_MOST_CLASSES = 2**20  # as in training


def main(argv: Sequence[str] | None = None) -> int:
  """Run one command and return the exit code."""
  try:
    args = _parser().parse_args(argv)
    return args.run(args, Console())
  except KeyboardInterrupt:
    return _complain("interrupted", 130)
  except UsageError as error:
    return _complain(str(error), 2)
  except OSError as error:
    place = f"{error.filename}: " if error.filename is not None else ""
    return _complain(f"{place}{error.strerror or error}", 2)


def _complain(problem: str, code: int) -> int:
  print(f"{_PROGRAM}: {printable(problem)}", file=sys.stderr)
  return code


def _convert(args: argparse.Namespace, console: Console) -> int:
  from .images.paths import as_path
  from .loading.bad_examples import Skips
  from .tools.convert import convert

  skips = Skips(args.skip_bad)
  index = convert(
    as_path(args.source),
    _local(args.destination),
    num_classes=args.num_classes,
    label_offset=args.label_offset,
    examples_per_shard=args.examples_per_shard,
    strict_jpeg=args.strict_jpeg,
    skips=skips,
    console=console,
  )
  for split, shards in index.splits.items():
    size = sum(shard.bytes for shard in shards)
    console.print(
      f"{split}: {index.examples(split):,} images of {index.num_classes} "
      f"classes, {size / 1e6:,.1f} MB in {len(shards)} "
      f"shard{'s' * (len(shards) != 1)}",
      highlight=False,
    )
  if skips:
    console.print(skips.summary(), highlight=False, markup=False)
  return 0


def _inspect(args: argparse.Namespace, console: Console) -> int:
  from .tools.inspect import inspect

  wrong = inspect(
    args.folder,
    console,
    num_classes=args.num_classes,
    label_offset=args.label_offset,
  )
  return 1 if wrong else 0


def _verify(args: argparse.Namespace, console: Console) -> int:
  from .images.paths import as_path
  from .tools.verify import verify

  wrong = verify(
    as_path(args.folder),
    console,
    num_classes=args.num_classes,
    label_offset=args.label_offset,
    strict_jpeg=args.strict_jpeg,
  )
  return 1 if wrong else 0


def _synthesize(args: argparse.Namespace, console: Console) -> int:
  from .tools.synthesize import synthesize

  synthesize(
    _local(args.folder),
    args.layout,
    examples={"train": args.train, "test": args.test},
    classes=args.classes,
    shards=args.shards,
    width=args.width,
    height=args.height,
  )
  advice = (
    ""
    if args.layout == "folder"
    else f"; train with --data.num-classes {args.classes}"
  )
  console.print(
    f"{args.train} training and {args.test} test images in "
    f"{args.folder}{advice}",
    highlight=False,
    markup=False,
    soft_wrap=True,
  )
  return 0


def _local(text: str) -> Path:
  """Return the path of a folder to write to."""
  if "://" in text:
    raise UsageError(
      f"{text}: podscale does not write to URLs; give a local folder, and copy "
      "it afterwards"
    )
  return Path(text)


class _Parser(argparse.ArgumentParser):
  """A parser that reports errors in one line, without its usage."""

  def error(self, message: str) -> NoReturn:
    raise UsageError(f"{message}; see {self.prog} --help")


def _parser() -> argparse.ArgumentParser:
  parser = _Parser(
    prog=_PROGRAM,
    description="Inspect, convert, verify or synthesize image data sets.",
    allow_abbrev=False,
  )
  commands = parser.add_subparsers(required=True, metavar="COMMAND")

  add = commands.add_parser(
    "inspect",
    help="print how podscale reads a folder, and any problems",
    allow_abbrev=False,
  )
  add.set_defaults(run=_inspect)
  add.add_argument("folder", help="folder or URL of the data set")
  _add_labels(add)

  add = commands.add_parser(
    "convert",
    help="write a data set as ArrayRecord shards with an index and checksums",
    allow_abbrev=False,
  )
  add.set_defaults(run=_convert)
  add.add_argument("source", help="folder or URL of the data set")
  add.add_argument(
    "destination", help="new folder, or the folder of an unfinished conversion"
  )
  _add_labels(add)
  add.add_argument(
    *("--examples-per-shard", "--examples_per_shard"),
    type=bounded_integer(1, _MOST_EXAMPLES),
    default=10_000,
    help="examples of a shard; the last of a split may have fewer (10000)",
  )
  add.add_argument(
    *("--skip-bad", "--skip_bad", "--data.skip-bad"),
    type=bounded_integer(0, _MOST_EXAMPLES),
    default=0,
    help="number of images to skip that cannot be decoded (0)",
  )
  _add_strict_jpeg(add, default=False)

  add = commands.add_parser(
    "verify",
    help="decode every image, or compare converted data with its checksums, "
    "and list all damage",
    allow_abbrev=False,
  )
  add.set_defaults(run=_verify)
  add.add_argument("folder", help="folder or URL of the data set")
  _add_labels(add)
  _add_strict_jpeg(add, default=True)

  from .tools.synthesize import LIMITS, Layout

  add = commands.add_parser(
    "synthesize",
    help="write synthetic JPEG files, for trials without data",
    allow_abbrev=False,
  )
  add.set_defaults(run=_synthesize)
  add.add_argument("folder", help="new or empty folder")
  add.add_argument(
    "--layout",
    choices=get_args(Layout),
    default="tfrecord",
    help="format of the files (tfrecord)",
  )
  for name, default, what in (
    ("train", 1000, "number of training images"),
    ("test", 100, "number of test images"),
    ("classes", 10, "number of classes"),
    ("shards", 2, "number of shards of each split"),
    ("width", 500, "width of the images in pixels"),
    ("height", 375, "height of the images in pixels"),
  ):
    add.add_argument(
      f"--{name}",
      type=bounded_integer(1, LIMITS[name]),
      default=default,
      help=f"{what} ({default})",
    )
  return parser


def _add_strict_jpeg(parser: argparse.ArgumentParser, *, default: bool) -> None:
  parser.add_argument(
    *("--strict-jpeg", "--strict_jpeg"),
    action=argparse.BooleanOptionalAction,
    default=default,
    help="refuse every JPEG that libjpeg warns about; otherwise only those "
    f"that training refuses ({'on' if default else 'off'})",
  )


def _add_labels(parser: argparse.ArgumentParser) -> None:
  # Error messages name the flags of the training command line, so these exist
  # here, too.
  parser.add_argument(
    *("--num-classes", "--num_classes", "--data.num-classes"),
    type=bounded_integer(1, _MOST_CLASSES),
    help="number of classes, if the data has none (1000)",
  )
  parser.add_argument(
    *("--label-offset", "--label_offset", "--data.label-offset"),
    type=bounded_integer(0, _MOST_CLASSES),
    help="label of the first class in shards and label files (1 for "
    "image/class/label, otherwise 0)",
  )


if __name__ == "__main__":
  raise SystemExit(main())
