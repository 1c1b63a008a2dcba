"""The command line: `python -m podscale.bench BENCHMARK`, see `--help`."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from ..train.errors import UsageError
from . import commands
from .commands import MODELS, Tables
from .estimated.static import CHIPS
from .estimated.ways import WAYS
from .tables.compare import all_rows, changes, compilers, read_run
from .tables.paper_table import SLICES


def main(argv: Sequence[str] | None = None) -> int:
  """Runs one benchmark and prints its table; returns the exit code."""
  parser = _parser()
  args = parser.parse_args(argv)
  if getattr(args, "topology", None) and not args.chip:
    parser.error("--topology is of a --chip")
  from ..train.processes.devices import keep_freed_memory

  keep_freed_memory()
  try:
    before = read_run(args.compare) if args.compare else None
    tables: Tables = args.run(args)
    if args.plot:
      from .tables.plot import write_plot

      write_plot(args.plot, *next(iter(tables.items())))
  except UsageError as error:
    print(f"podscale-bench: {error}", file=sys.stderr)
    return 2
  _print(tables, as_json=args.json)
  if before is None:
    return 0
  # A table for people may have others behind it that say more.
  one = isinstance(before, list)
  after = next(iter(tables.values())) if one else all_rows(tables)
  before = all_rows(before)
  compiled_by = [", ".join(compilers(rows)) for rows in (before, after)]
  if len(set(compiled_by)) > 1:
    print("compiled by {} -> {}".format(*compiled_by), file=sys.stderr)
  changed = changes(before, after)
  for change in changed:
    print(
      "{row}: {figure} {before:.5g} -> {after:.5g} ({ratio:.2f})".format(
        **change
      ),
      file=sys.stderr,
    )
  return 1 if changed else 0


def _print(tables: Tables, *, as_json: bool) -> None:
  if as_json:
    only, *others = tables.values()
    print(json.dumps(tables if others else only, indent=2))
    return
  from .tables.report import print_table

  for title, rows in tables.items():
    print_table(title, rows)


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog="podscale-bench",
    description="Benchmarks on the devices at hand; with --chip ESTIMATES for "
    "a TPU that is not there, by its compiler alone.",
  )
  names = parser.add_subparsers(required=True, metavar="BENCHMARK")
  kernels = _command(
    names,
    "kernels",
    commands.run_kernels,
    "each depthwise layer against plain JAX, with gradients",
    models=[*MODELS, "all"],
  )
  collectives = _command(
    names,
    "collectives",
    commands.run_collectives,
    "a step's communication, each part in several ways",
  )
  collectives.add_argument(
    "--group-size",
    type=_positive,
    default=4,
    help="devices in a batch-norm group",
  )
  lars = _command(
    names,
    "lars",
    commands.run_lars,
    "the update of a whole network, by tensor and packed",
  )
  step = _command(
    names,
    "step",
    commands.run_step,
    "a whole training step against plain JAX, on one device or, with --chip, "
    "on each core of a slice with LARS; with --chip it takes minutes",
  )
  step.add_argument(
    "--cpu-baseline",
    action="store_true",
    help="run on the CPU even where there is a TPU or GPU",
  )
  step.add_argument(
    "--implementation",
    nargs="+",
    choices=WAYS,
    default=("plain", "best"),
    help="with --chip: the recipe in plain JAX, the step as it is run, all ops "
    "by XLA, kernels wherever they can do it",
  )
  scale = _command(
    names,
    "scale",
    commands.run_scale,
    "the paper's Table 1: throughput of slices of all sizes, estimated with "
    "the TPU's compiler alone; takes minutes",
  )
  scale.add_argument(
    "--chip", nargs="+", choices=SLICES, default=["v3"], help="of the slices"
  )
  scale.add_argument(
    "--implementation", choices=WAYS, default="best", help="see step --help"
  )
  memory = _command(
    names,
    "memory",
    commands.run_memory,
    "what the networks keep for their backward pass, and how many images fit, "
    "estimated",
    models=[*MODELS, "all"],
  )
  memory.add_argument(
    "--chip",
    nargs="+",
    choices=CHIPS,
    default=["v3", "v5e", "v4", "v6e"],
    help="that the images are to fit on",
  )
  input_ = _command(
    names,
    "input",
    commands.run_input,
    "the host's part of training: JPEG files to batches",
  )
  input_.add_argument(
    "--path",
    help="a data set that training reads; else files like ImageNet's are made",
  )
  for command in (kernels, collectives, lars, step):
    command.add_argument(
      "--chip",
      choices=CHIPS,
      help="estimate for this TPU with its compiler alone, in bfloat16",
    )
  for command in (collectives, lars, step):
    command.add_argument(
      "--topology",
      help="with --chip: sides of the slice in chips, such as 16x32; else the "
      "smallest there is",
    )
  for command in (kernels, step):
    command.add_argument(
      "--resolution",
      type=_positive,
      help="in pixels; 64, or the model's own with --chip",
    )
  for command, images in ((kernels, 64), (step, 64), (scale, 32), (input_, 64)):
    command.add_argument(
      *("--batch-size", "--batch-per-core"),
      type=_positive,
      default=images,
      help=f"images on a device, {images}",
    )
  for command in (kernels, collectives, lars, step, input_):
    command.add_argument(
      "--runs", type=_positive, default=5, help="how often to time each, 5"
    )
  return parser


def _command(names, name, run, text, *, models=MODELS):
  """A benchmark's parser, with what all have."""
  command = names.add_parser(name, help=text, description=text)
  command.set_defaults(run=run)
  command.add_argument("--model", default="b0", choices=models)
  command.add_argument(
    "--json", action="store_true", help="print JSON instead of a table"
  )
  command.add_argument(
    "--plot",
    type=Path,
    metavar="PICTURE",
    help="draw the first table: of the bound achieved, and ratios",
  )
  command.add_argument(
    "--compare",
    type=Path,
    metavar="RUN.json",
    help="say what differs by more than a tenth from what --json printed "
    "before; exit 1 if anything does",
  )
  return command


def _positive(text: str) -> int:
  value = int(text)
  if value < 1:
    raise argparse.ArgumentTypeError(f"must be above 0, got {value}")
  return value


if __name__ == "__main__":
  raise SystemExit(main())
