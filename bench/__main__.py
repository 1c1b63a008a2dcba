"""Command line of the benchmarks: `python -m podscale.bench BENCHMARK`."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..train.errors import UsageError
from . import commands
from .chips import CHIPS
from .commands import MODELS, Tables
from .estimated.implementations import STEP_IMPLEMENTATIONS
from .tables.compare import (
  Rows,
  all_rows,
  changes,
  compilers,
  missing_rows,
  read_run,
)
from .tables.paper_table import SLICES


def main(argv: Sequence[str] | None = None) -> int:
  """Run one benchmark and print its tables.

  Args:
    argv: Arguments; None takes the process's.

  Returns:
    Exit code: 0; 1 for a loss against `--compare`, or for `calibrate` with an
    estimate outside its band; 2 for a usage error.
  """
  parser = _parser()
  args = parser.parse_args(argv)
  if getattr(args, "topology", None) and not args.chip:
    parser.error("--topology needs a --chip, such as --chip v5e")
  from ..train.processes.devices import keep_freed_memory

  keep_freed_memory()
  try:
    before = read_run(args.compare) if args.compare else None
    tables = _saved(args.rows_from) if args.rows_from else args.run(args)
    if args.plot:
      from .tables.plot import draw, write_figure

      figure = draw(args.benchmark, all_rows(tables.main))
      write_figure(args.plot, figure)
  except UsageError as error:
    print(f"podscale-bench: {error}", file=sys.stderr)
    return 2
  _print(tables, as_json=args.json)
  return tables.exit_code if before is None else _compare(before, tables)


def _saved(paths: list[Path]) -> Tables:
  """Read tables that `--json` wrote."""
  main: dict[str, Rows] = {}
  for path in paths:
    run = read_run(path, "--from")
    main |= run if isinstance(run, dict) else {path.name: run}
  return Tables(main)


def _compare(before: Any, tables: Tables) -> int:
  """Print the differences to an earlier run; return 1 if there is a loss.

  Losses of estimates that another version of the compiler made do not count.
  """
  before, after = all_rows(before), all_rows(tables.main)
  found, missing = changes(before, after), missing_rows(before, after)
  lines = [*map(str, found), *(f"{name}: row is missing" for name in missing)]
  made_by = [", ".join(compilers(rows)) for rows in (before, after)]
  losses = sum(change.is_loss for change in found) + len(missing)
  if len(set(made_by)) > 1:
    lines = ["compiled by {} -> {}".format(*made_by), *lines]
    if losses:
      lines.append(f"losses: {losses}, not a failure as the compiler differs")
    losses = 0
  elif losses:
    lines.append(f"losses: {losses} of {len(lines)} differences")
  for line in lines:
    print(line, file=sys.stderr)
  return 1 if losses else 0


def _print(tables: Tables, *, as_json: bool) -> None:
  if as_json:
    only, *others = tables.main.values()
    print(json.dumps(dict(tables.main) if others else only, indent=2))
    return
  from .tables.report import print_table

  for title, rows in {**tables.main, **tables.details}.items():
    print_table(title, rows)


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog="podscale-bench",
    description="Benchmarks on the devices at hand or, with --chip, ESTIMATES "
    "for a TPU from its compiler alone, without the TPU.",
  )
  names = parser.add_subparsers(
    required=True, metavar="BENCHMARK", dest="benchmark"
  )
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
    "a step's communication, each part in several implementations",
  )
  collectives.add_argument(
    "--group-size",
    type=_positive,
    default=4,
    help="devices in a batch-norm group (default: 4)",
  )
  lars = _command(
    names,
    "lars",
    commands.run_lars,
    "the LARS update of a whole network, tensor by tensor and packed",
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
    help="run on the CPU even if there is a TPU or GPU",
  )
  step.add_argument(
    "--implementation",
    nargs="+",
    choices=STEP_IMPLEMENTATIONS,
    default=("plain", "best"),
    help="with --chip: the recipe in plain JAX; the step that training runs; "
    "all ops by XLA; kernels wherever an op has one (default: plain best)",
  )
  scale = _command(
    names,
    "scale",
    commands.run_scale,
    "the paper's Table 1: throughput of slices of all sizes, estimated from "
    "the TPU's compiler alone; takes minutes",
  )
  scale.add_argument(
    "--chip",
    nargs="+",
    choices=SLICES,
    default=["v3"],
    help="chips of the slices (default: v3)",
  )
  scale.add_argument(
    "--implementation",
    choices=STEP_IMPLEMENTATIONS,
    default="best",
    help="implementation of the step, see step --help (default: best)",
  )
  calibrate = _command(
    names,
    "calibrate",
    commands.run_calibrate,
    "published hardware times beside estimates of the same programs; exit 1 if "
    "an estimate that fitted no constant is outside its band; the first run "
    "compiles for many minutes, later ones read what it kept",
    models=None,
  )
  calibrate.add_argument(
    "--chip",
    nargs="+",
    choices=CHIPS,
    default=[*CHIPS],
    help="chips of the programs (default: all)",
  )
  memory = _command(
    names,
    "memory",
    commands.run_memory,
    "bytes that the networks keep for their backward pass, and the largest "
    "batches that fit, estimated",
    models=[*MODELS, "all"],
  )
  memory.add_argument(
    "--chip",
    nargs="+",
    choices=CHIPS,
    default=["v3", "v5e", "v4", "v6e"],
    help="chips whose memory holds the batches (default: v3 v5e v4 v6e)",
  )
  input_ = _command(
    names,
    "input",
    commands.run_input,
    "the input pipeline of this host, from JPEG to batch",
  )
  input_.add_argument(
    "--path",
    help="data set that training reads (default: files like ImageNet's, made "
    "for the benchmark)",
  )
  kernels.add_argument(
    "--chip",
    nargs="+",
    choices=CHIPS,
    help="estimate for these TPUs with their compiler alone, in bfloat16",
  )
  for command in (collectives, lars, step):
    command.add_argument(
      "--chip",
      choices=CHIPS,
      help="estimate for this TPU with its compiler alone, in bfloat16",
    )
    command.add_argument(
      "--topology",
      help="with --chip: sides of the slice in chips, such as 16x32 (default: "
      "the smallest slice)",
    )
  for command in (kernels, step):
    command.add_argument(
      "--resolution",
      type=_positive,
      help="height and width of the images in pixels (default: 64, or with "
      "--chip the model's own)",
    )
  for command, images in ((kernels, 64), (step, 64), (scale, 32), (input_, 64)):
    command.add_argument(
      *("--batch-size", "--batch-per-core"),
      type=_positive,
      default=images,
      help=f"images on each device (default: {images})",
    )
  for command in (kernels, collectives, lars, step, input_):
    command.add_argument(
      "--runs",
      type=_positive,
      default=5,
      help="number of timed runs (default: 5)",
    )
  return parser


def _command(names, name, run, text, *, models=MODELS):
  """Add a benchmark's parser, with the flags that all benchmarks have."""
  command = names.add_parser(name, help=text, description=text)
  command.set_defaults(run=run)
  if models:
    command.add_argument(
      "--model",
      default="b0",
      choices=models,
      help="member of the family (default: b0)",
    )
  command.add_argument(
    "--json", action="store_true", help="print JSON instead of tables"
  )
  command.add_argument(
    "--plot",
    type=Path,
    metavar="PICTURE",
    help="draw the result, in the format of the suffix (.png, .svg, .pdf)",
  )
  command.add_argument(
    "--from",
    dest="rows_from",
    nargs="+",
    type=Path,
    metavar="RUN.json",
    help="print and draw what --json printed before, instead of running",
  )
  command.add_argument(
    "--compare",
    type=Path,
    metavar="RUN.json",
    help="list the differences to what --json printed before: estimates from "
    "2 per cent on, times from 10; exit 1 if one is a loss, unless another "
    "version of the compiler made the estimates",
  )
  return command


def _positive(text: str) -> int:
  value = int(text)
  if value < 1:
    raise argparse.ArgumentTypeError(f"must be at least 1, got {value}")
  return value


if __name__ == "__main__":
  raise SystemExit(main())
