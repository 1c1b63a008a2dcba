"""The command line: `python -m podscale.bench step|kernels`."""

import argparse
import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..train.errors import UsageError
from .static import CHIPS

if TYPE_CHECKING:
  from .shapes import DepthwiseShape

_RESOLUTION = 64  # pixels; small enough for a CPU


def main(argv: Sequence[str] | None = None) -> int:
  """Runs one benchmark and prints its table; returns the exit code."""
  args = _parser().parse_args(argv)
  from ..train.devices import keep_freed_memory

  keep_freed_memory()
  try:
    rows = args.run(args)
  except UsageError as error:
    print(f"podscale-bench: {error}", file=sys.stderr)
    return 2
  if args.json:
    print(json.dumps(rows, indent=2))
  else:
    from .report import print_table

    print_table(args.title, rows)
  return 0


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
  step.set_defaults(run=_run_step, title="training step, float32, one device")
  kernels = commands.add_parser(
    "kernels", help="each depthwise layer against plain JAX, with gradients"
  )
  kernels.set_defaults(run=_run_kernels)
  kernels.add_argument(
    "--chip",
    choices=CHIPS,
    help="estimate for this TPU with its compiler alone, in bfloat16",
  )
  models = [f"b{i}" for i in range(8)]
  for command, names in ((step, models), (kernels, [*models, "all"])):
    command.add_argument("--model", default="b0", choices=names)
    command.add_argument(
      "--resolution",
      type=_positive,
      help="in pixels; 64, or the model's own with --chip",
    )
    command.add_argument("--batch-size", type=_positive, default=64)
    command.add_argument("--runs", type=_positive, default=5)
    command.add_argument(
      "--json", action="store_true", help="print JSON instead of a table"
    )
  return parser


def _positive(text: str) -> int:
  value = int(text)
  if value < 1:
    raise argparse.ArgumentTypeError(f"must be above 0, got {value}")
  return value


def _run_step(args: argparse.Namespace) -> list[dict[str, Any]]:
  import jax

  if args.cpu_baseline:
    jax.config.update("jax_platforms", "cpu")
  from .step import compare_with_plain, step_config

  config = step_config(
    args.model,
    resolution=args.resolution or _RESOLUTION,
    batch_size=args.batch_size,
  )
  return compare_with_plain(config, runs=args.runs)


def _run_kernels(args: argparse.Namespace) -> list[dict[str, Any]]:
  if args.chip:
    from .kernel_estimates import estimate_depthwise

    shapes = _shapes(args.model, args.resolution)
    args.title = (
      f"depthwise layers, {args.batch_size} images, bfloat16: ESTIMATES for "
      f"{args.chip} by its compiler"
    )
    return estimate_depthwise(
      shapes, batch_size=args.batch_size, chip=args.chip
    )
  from .kernels import bench_dtype, compare_depthwise

  resolution = args.resolution
  if args.model != "all":
    resolution = resolution or _RESOLUTION
  shapes = _shapes(args.model, resolution)
  args.title = f"depthwise layers, forward and backward, {bench_dtype()}"
  return compare_depthwise(shapes, batch_size=args.batch_size, runs=args.runs)


def _shapes(model: str, resolution: int | None) -> "list[DepthwiseShape]":
  from .shapes import depthwise_shapes, family_shapes

  if model != "all":
    return depthwise_shapes(model, resolution)
  if resolution is not None:
    raise UsageError("--model all has its own resolutions: no --resolution")
  return family_shapes()


if __name__ == "__main__":
  raise SystemExit(main())
