"""The command line of data sets: `python -m podscale.train.data COMMAND`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from rich.console import Console

from ..errors import UsageError


def main(argv: Sequence[str] | None = None) -> int:
  """Runs one command; returns the exit code."""
  args = _parser().parse_args(argv)
  try:
    args.run(args, Console())
  except UsageError as error:
    print(f"podscale-data: {error}", file=sys.stderr)
    return 2
  except OSError as error:
    print(f"podscale-data: {error.filename}: {error.strerror}", file=sys.stderr)
    return 2
  return 0


def _convert(args: argparse.Namespace, console: Console) -> None:
  from .convert import convert
  from .skipping import Skips

  skips = Skips(args.skip_bad)
  index = convert(
    args.source,
    args.destination,
    num_classes=args.num_classes,
    examples_per_shard=args.examples_per_shard,
    skips=skips,
    console=console,
  )
  for split, shards in index.splits.items():
    examples = sum(shard.examples for shard in shards)
    size = sum(shard.bytes for shard in shards)
    console.print(
      f"{split}: {examples:,} images of {index.num_classes} classes, "
      f"{size / 1e6:,.1f} MB in {len(shards)} shards",
      highlight=False,
    )
  if skips:
    console.print(skips.summary(), highlight=False, markup=False)


def _verify(args: argparse.Namespace, console: Console) -> None:
  from .convert import verify

  count = verify(args.folder, console)
  console.print(f"{count} shards are as they were written", highlight=False)


def _synthesize(args: argparse.Namespace, console: Console) -> None:
  from .synthetic_jpegs import synthesize

  synthesize(
    args.folder,
    args.layout,
    examples={"train": args.train, "test": args.test},
    classes=args.classes,
    shards=args.shards,
    width=args.width,
    height=args.height,
  )
  console.print(
    f"{args.train} training and {args.test} test images in {args.folder}",
    highlight=False,
  )


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog="podscale-data", description="Data sets of image files."
  )
  commands = parser.add_subparsers(required=True, metavar="COMMAND")

  add = commands.add_parser(
    "convert",
    help="TFRecord, ArrayRecord, tar shards or folders to ArrayRecord",
  )
  add.set_defaults(run=_convert)
  add.add_argument("source", type=Path, help="folder of the data set")
  add.add_argument("destination", type=Path, help="new or begun folder")
  add.add_argument(
    *("--num-classes", "--num_classes"),
    type=_positive,
    default=1000,
    help="of shards, whose labels are below it; folders know (1000)",
  )
  add.add_argument(
    *("--examples-per-shard", "--examples_per_shard"),
    type=_positive,
    default=10_000,
    help="the last of a split may have fewer (10000)",
  )
  add.add_argument(
    *("--skip-bad", "--skip_bad"),
    type=int,
    default=0,
    help="leave out up to so many images that cannot be decoded (0)",
  )

  add = commands.add_parser(
    "verify", help="compare a converted data set with its checksums"
  )
  add.set_defaults(run=_verify)
  add.add_argument("folder", type=Path)

  add = commands.add_parser(
    "synthesize", help="make JPEG files to try things out without data"
  )
  add.set_defaults(run=_synthesize)
  add.add_argument("folder", type=Path)
  from .synthetic_jpegs import Layout

  add.add_argument("--layout", choices=get_args(Layout), default="tfrecord")
  for name, default, what in (
    ("train", 1000, "training images"),
    ("test", 100, "test images"),
    ("classes", 10, "classes"),
    ("shards", 2, "shards of each split"),
    ("width", 500, "pixels"),
    ("height", 375, "pixels"),
  ):
    add.add_argument(
      f"--{name}", type=_positive, default=default, help=f"{what} ({default})"
    )
  return parser


def _positive(text: str) -> int:
  number = int(text)
  if number < 1:
    raise argparse.ArgumentTypeError(f"{number} is not above 0")
  return number


if __name__ == "__main__":
  raise SystemExit(main())
