"""The command line: `python -m podscale.bench BENCHMARK`, see `--help`."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..train.errors import UsageError
from .compare import Rows, changes, read_rows
from .static import CHIPS
from .table_1 import SLICES
from .ways import WAYS

if TYPE_CHECKING:
  from .shapes import DepthwiseShape

_RESOLUTION = 64  # pixels; small enough for a CPU
_CPU_DEVICES = 8


def main(argv: Sequence[str] | None = None) -> int:
  """Runs one benchmark and prints its table; returns the exit code."""
  args = _parser().parse_args(argv)
  from ..train.devices import keep_freed_memory

  keep_freed_memory()
  try:
    before = read_rows(args.compare) if args.compare else None
    tables: dict[str, Rows] = args.run(args)
  except UsageError as error:
    print(f"podscale-bench: {error}", file=sys.stderr)
    return 2
  if args.json:
    only, *others = tables.values()
    print(json.dumps(tables if others else only, indent=2))
  else:
    from .report import print_table

    for title, rows in tables.items():
      print_table(title, rows)
  if before is None:
    return 0
  changed = changes(before, next(iter(tables.values())))
  for change in changed:
    print(
      "{row}: {figure} {before:.5g} -> {after:.5g} ({ratio:.2f})".format(
        **change
      ),
      file=sys.stderr,
    )
  return 1 if changed else 0


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog="podscale-bench",
    description="Benchmarks on the devices at hand; times are wall clock.",
  )
  commands = parser.add_subparsers(required=True, metavar="BENCHMARK")
  step = commands.add_parser(
    "step", help="a whole training step against plain JAX, on one device"
  )
  step.add_argument(
    "--cpu-baseline",
    action="store_true",
    help="run on the CPU even where there is a TPU or GPU",
  )
  step.add_argument(
    "--chip",
    choices=CHIPS,
    help="estimate for this TPU with its compiler alone, in bfloat16, with "
    "LARS; takes minutes",
  )
  step.add_argument(
    "--topology",
    help="with --chip: sides of the slice in chips, such as 16x32; else the "
    "smallest there is",
  )
  step.add_argument(
    "--implementation",
    nargs="+",
    choices=WAYS,
    default=("plain", "best"),
    help="with --chip: the recipe in plain JAX, the step as it is run, all ops "
    "by XLA, kernels wherever they can do it",
  )
  step.set_defaults(run=_run_step)
  kernels = commands.add_parser(
    "kernels", help="each depthwise layer against plain JAX, with gradients"
  )
  kernels.set_defaults(run=_run_kernels)
  kernels.add_argument(
    "--chip",
    choices=CHIPS,
    help="estimate for this TPU with its compiler alone, in bfloat16",
  )
  collectives = commands.add_parser(
    "collectives", help="a step's communication, each part in several ways"
  )
  collectives.set_defaults(run=_run_collectives)
  collectives.add_argument(
    "--topology",
    help="count for this TPU slice with its compiler alone, such as v3:16x32, "
    "and estimate what groups on it take",
  )
  collectives.add_argument(
    "--group-size",
    type=_positive,
    default=4,
    help="devices in a batch-norm group",
  )
  lars = commands.add_parser(
    "lars", help="the update of a whole network, by tensor and packed"
  )
  lars.set_defaults(run=_run_lars)
  lars.add_argument(
    "--topology",
    help="estimate for a core of this TPU slice, and for its shard, with the "
    "compiler alone, such as v3:16x32",
  )
  scale = commands.add_parser(
    "scale",
    help="the paper's Table 1: throughput of slices of all sizes, estimated "
    "with the TPU's compiler alone; takes minutes",
  )
  scale.set_defaults(run=_run_scale)
  scale.add_argument(
    *("--batch-size", "--batch-per-core"),
    type=_positive,
    default=32,
    help="images on a core",
  )
  scale.add_argument(
    "--chip", nargs="+", choices=SLICES, default=["v3"], help="of the slices"
  )
  scale.add_argument(
    "--implementation", choices=WAYS, default="best", help="see step --help"
  )
  models = [f"b{i}" for i in range(8)]
  for command in (step, kernels):
    command.add_argument(
      "--resolution",
      type=_positive,
      help="in pixels; 64, or the model's own with --chip",
    )
    command.add_argument(
      *("--batch-size", "--batch-per-core"),
      type=_positive,
      default=64,
      help="images on a device",
    )
  for command, names in (
    (step, models),
    (kernels, [*models, "all"]),
    (collectives, models),
    (lars, models),
    (scale, models),
  ):
    command.add_argument("--model", default="b0", choices=names)
    if command is not scale:
      command.add_argument("--runs", type=_positive, default=5)
    command.add_argument(
      "--json", action="store_true", help="print JSON instead of a table"
    )
    command.add_argument(
      "--compare",
      type=Path,
      metavar="RUN.json",
      help="say what differs by more than a tenth from what --json printed "
      "before; exit 1 if anything does",
    )
  return parser


def _positive(text: str) -> int:
  value = int(text)
  if value < 1:
    raise argparse.ArgumentTypeError(f"must be above 0, got {value}")
  return value


def _run_step(args: argparse.Namespace) -> dict[str, Rows]:
  if args.chip:
    return _estimate_step(args)
  import jax

  if args.cpu_baseline:
    jax.config.update("jax_platforms", "cpu")
  from .step import compare_with_plain, step_config

  config = step_config(
    args.model,
    resolution=args.resolution or _RESOLUTION,
    batch_size=args.batch_size,
  )
  rows = compare_with_plain(config, runs=args.runs)
  return {"training step, float32, one device": rows}


def _estimate_step(args: argparse.Namespace) -> dict[str, Rows]:
  if args.resolution:
    raise UsageError("--chip takes the model's own resolution: no --resolution")
  from .static import slice_devices
  from .step_estimates import estimate_step, pod_config

  topology = CHIPS[args.chip].topology
  if args.topology:
    topology = f"{args.chip}:{args.topology}"
  devices = slice_devices(topology)
  config = pod_config(args.model, args.batch_size * len(devices))
  rows = [
    estimate_step(config, chip=args.chip, devices=devices, way=way)
    for way in args.implementation
  ]
  title = (
    f"step of {args.model}, {args.batch_size} images a core, {topology}: "
    "ESTIMATES"
  )
  tables = {title: rows}
  if args.json:
    return tables
  for row in rows:
    way = row["implementation"]
    tables[f"{way}: us by kind"] = [row["kinds"]]
    tables[f"{way}: what takes longest"] = row["top"]
  return tables


def _run_kernels(args: argparse.Namespace) -> dict[str, Rows]:
  if args.chip:
    from .kernel_estimates import estimate_depthwise

    shapes = _shapes(args.model, args.resolution)
    title = (
      f"depthwise layers, {args.batch_size} images, bfloat16: ESTIMATES for "
      f"{args.chip} by its compiler"
    )
    rows = estimate_depthwise(
      shapes, batch_size=args.batch_size, chip=args.chip
    )
    return {title: rows}
  from .kernels import bench_dtype, compare_depthwise

  resolution = args.resolution
  if args.model != "all":
    resolution = resolution or _RESOLUTION
  shapes = _shapes(args.model, resolution)
  rows = compare_depthwise(shapes, batch_size=args.batch_size, runs=args.runs)
  return {f"depthwise layers, forward and backward, {bench_dtype()}": rows}


def _run_collectives(args: argparse.Namespace) -> dict[str, Rows]:
  import jax

  jax.config.update("jax_num_cpu_devices", _CPU_DEVICES)
  try:
    return _count(args) if args.topology else _time(args)
  except ValueError as error:  # a group that does not divide the devices
    raise UsageError(str(error)) from error


def _time(args: argparse.Namespace) -> dict[str, Rows]:
  import jax

  from .collectives import time_collectives

  rows = time_collectives(
    args.model, group_size=args.group_size, runs=args.runs
  )
  title = (
    f"collectives of {args.model} on {jax.device_count()} "
    f"{jax.devices()[0].device_kind} devices, groups of {args.group_size}"
  )
  return {title: rows}


def _count(args: argparse.Namespace) -> dict[str, Rows]:
  from .collective_estimates import hop_rows, table_1_rows
  from .collectives import count_collectives
  from .static import slice_devices

  devices = slice_devices(args.topology)
  counted = count_collectives(args.model, devices, group_size=args.group_size)
  chip = args.topology.partition(":")[0]
  return {
    f"collectives of {args.model} compiled for {args.topology}, groups of "
    f"{args.group_size}": counted,
    f"groups on {args.topology}, times ESTIMATED": hop_rows(chip, devices),
    "arXiv:2011.00071, Table 1 (v3): ESTIMATES beside it": table_1_rows(),
  }


def _run_lars(args: argparse.Namespace) -> dict[str, Rows]:
  from .lars import estimate_updates, time_updates

  if not args.topology:
    rows = time_updates(args.model, runs=args.runs)
    return {f"update of {args.model} on the default device": rows}
  from .static import slice_devices

  chip = args.topology.partition(":")[0]
  rows = estimate_updates(
    args.model, chip=chip, devices=slice_devices(args.topology)
  )
  return {f"update of {args.model}: ESTIMATES for {args.topology}": rows}


def _run_scale(args: argparse.Namespace) -> dict[str, Rows]:
  from .scale import scaling_rows

  rows = scaling_rows(
    args.model,
    chips=args.chip,
    per_core=args.batch_size,
    way=args.implementation,
  )
  return {f"{args.model}, {args.batch_size} images a core: ESTIMATES": rows}


def _shapes(model: str, resolution: int | None) -> "list[DepthwiseShape]":
  from .shapes import depthwise_shapes, family_shapes

  if model != "all":
    return depthwise_shapes(model, resolution)
  if resolution is not None:
    raise UsageError("--model all has its own resolutions: no --resolution")
  return family_shapes()


if __name__ == "__main__":
  raise SystemExit(main())
