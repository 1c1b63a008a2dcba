"""Commands of the benchmarks: from arguments to tables."""

import argparse
import sys
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from ..train.errors import UsageError
from .chips import CHIPS
from .tables.compare import Rows

if TYPE_CHECKING:
  import jax

  from .layers import DepthwiseShape


class Tables(NamedTuple):
  """Result of a benchmark.

  Attributes:
    main: Rows by the title of their table; printed, and written as JSON.
    details: Further tables, printed only.
    exit_code: Exit code of the command.
  """

  main: Mapping[str, Rows]
  details: Mapping[str, Rows] = MappingProxyType({})
  exit_code: int = 0


MODELS = [f"b{i}" for i in range(8)]
"""Members of the family that benchmarks take."""

_RESOLUTION = 64  # pixels; small enough for a CPU
_CPU_DEVICES = 8


def run_kernels(args: argparse.Namespace) -> Tables:
  """Benchmark each depthwise layer of a model."""
  if args.chip:
    return _estimate_kernels(args)
  from .measured.kernels import bench_dtype, compare_depthwise

  resolution = args.resolution
  if args.model != "all":
    resolution = resolution or _RESOLUTION
  shapes = _shapes(args.model, resolution)
  rows = compare_depthwise(shapes, batch_size=args.batch_size, runs=args.runs)
  title = f"depthwise layers, forward and backward, {bench_dtype()}"
  return Tables({title: rows})


def _estimate_kernels(args: argparse.Namespace) -> Tables:
  from .estimated.kernels import estimate_depthwise, kernel_rows

  shapes = _shapes(args.model, args.resolution)
  main, details = {}, {}
  for chip in args.chip:
    rows = estimate_depthwise(shapes, batch_size=args.batch_size, chip=chip)
    title = (
      f"depthwise layers, {args.batch_size} images, bfloat16: ESTIMATES for "
      f"{chip} by its compiler"
    )
    main[title] = rows
    details[f"all fusions and kernels: ESTIMATES for {chip}"] = kernel_rows(
      rows
    )
  return Tables(main, details)


def run_collectives(args: argparse.Namespace) -> Tables:
  """Benchmark each part of a step's communication."""
  import jax

  jax.config.update("jax_num_cpu_devices", _CPU_DEVICES)
  try:
    return _count_collectives(args) if args.chip else _time_collectives(args)
  except ValueError as error:  # a group size that does not divide the devices
    raise UsageError(str(error)) from error


def _time_collectives(args: argparse.Namespace) -> Tables:
  import jax

  from .measured.collectives import time_collectives

  rows = time_collectives(
    args.model, group_size=args.group_size, runs=args.runs
  )
  title = (
    f"collectives of {args.model} on {jax.device_count()} "
    f"{jax.devices()[0].device_kind} devices, groups of {args.group_size}"
  )
  return Tables({title: rows})


def _count_collectives(args: argparse.Namespace) -> Tables:
  from .estimated.collectives import (
    count_collectives,
    hop_rows,
    moment_rows,
    paper_table_rows,
  )

  topology, devices = _slice(args)
  counted = count_collectives(args.model, devices, group_size=args.group_size)
  tables: dict[str, Rows] = {
    f"collectives of {args.model} compiled for {topology}, groups of "
    f"{args.group_size}": counted,
    f"groups on {topology}, times ESTIMATED": hop_rows(args.chip, devices),
    "batch norms' collectives, groups of 128 images, ESTIMATED": moment_rows(
      args.chip, devices
    ),
    "arXiv:2011.00071, Table 1 (v3), beside ESTIMATES": paper_table_rows(),
  }
  return Tables({title: rows for title, rows in tables.items() if rows})


def run_lars(args: argparse.Namespace) -> Tables:
  """Benchmark the update of a whole network."""
  if not args.chip:
    from .measured.lars import time_updates

    rows = time_updates(args.model, runs=args.runs)
    return Tables({f"update of {args.model} on the default device": rows})
  from .estimated.lars import estimate_updates

  topology, devices = _slice(args)
  rows = estimate_updates(args.model, chip=args.chip, devices=devices)
  return Tables({f"update of {args.model}: ESTIMATES for {topology}": rows})


def run_step(args: argparse.Namespace) -> Tables:
  """Benchmark a whole training step."""
  if args.chip:
    return _estimate_step(args)
  import jax

  if args.cpu_baseline:
    jax.config.update("jax_platforms", "cpu")
  from .measured.step import compare_with_plain, step_config

  config = step_config(
    args.model,
    resolution=args.resolution or _RESOLUTION,
    batch_size=args.batch_size,
  )
  rows = compare_with_plain(config, runs=args.runs)
  return Tables({f"training step, {config.model.dtype}, one device": rows})


def _estimate_step(args: argparse.Namespace) -> Tables:
  if args.resolution:
    raise UsageError(
      f"--resolution {args.resolution} with --chip: estimates of a step take "
      "the model's own resolution; leave --resolution out"
    )
  from .estimated.step import estimate_step, pod_config

  topology, devices = _slice(args)
  config = pod_config(args.model, args.batch_size * len(devices))
  rows: Rows = []
  for implementation in args.implementation:
    row = estimate_step(
      config, chip=args.chip, devices=devices, implementation=implementation
    )
    first = rows[0] if rows else row
    rows.append({**row, "times faster": first["step_us"] / row["step_us"]})
  title = (
    f"step of {args.model}, {args.batch_size} images a core, {topology}: "
    "ESTIMATES"
  )
  details: dict[str, Rows] = {}
  for row in rows:
    name = row["implementation"]
    details[f"{name}: us by kind"] = [row["kinds"]]
    details[f"{name}: collectives"] = [row["collectives"]]
    details[f"{name}: longest fusions and kernels"] = row["top"]
  return Tables({title: rows}, details)


def run_scale(args: argparse.Namespace) -> Tables:
  """Estimate the paper's Table 1."""
  from .estimated.scale import scaling_rows

  rows = scaling_rows(
    args.model,
    chips=args.chip,
    per_core=args.batch_size,
    implementation=args.implementation,
  )
  title = f"{args.model}, {args.batch_size} images a core: ESTIMATES"
  return Tables({title: rows})


def run_calibrate(args: argparse.Namespace) -> Tables:
  """Compare estimates with published hardware times."""
  from .estimated.calibration.compare import (
    compare_pairs,
    errors_by_chip,
    exit_code,
  )
  from .estimated.calibration.fit import fit_rows
  from .estimated.calibration.pairs import all_pairs
  from .estimated.static.kept import cache_folder

  pairs = all_pairs()
  known = {pair.chip for pair in pairs}
  for chip in args.chip:
    if chip not in known:
      print(f"no time of {chip} is published that we know", file=sys.stderr)
  pairs = [pair for pair in pairs if pair.chip in args.chip]
  if not pairs:
    raise UsageError(f"expected one of the chips {', '.join(sorted(known))}")
  folder = cache_folder()
  rows = compare_pairs(pairs, folder)
  judged = [x for x, row in zip(pairs, rows, strict=True) if row["ratio"]]
  details = {
    "what the pairs that fitted a constant ask for": fit_rows(judged, folder),
    "errors of estimates that fitted no constant": errors_by_chip(rows),
  }
  return Tables(
    {"published hardware times, and ESTIMATES of the same programs": rows},
    {title: table for title, table in details.items() if table},
    exit_code(rows),
  )


def run_memory(args: argparse.Namespace) -> Tables:
  """Count the activations kept for the backward pass."""
  from .estimated.activations import activation_rows

  models = MODELS if args.model == "all" else [args.model]
  rows = activation_rows(models, chips=args.chip)
  title = "kept of an image for the backward pass; batches ESTIMATED"
  return Tables({title: rows})


def run_input(args: argparse.Namespace) -> Tables:
  """Benchmark the input pipeline, from JPEG to batch."""
  from .measured.input import time_input

  rows = time_input(
    args.model, path=args.path, batch_size=args.batch_size, runs=args.runs
  )
  return Tables({f"images for {args.model} on this host": rows})


def _slice(args: argparse.Namespace) -> "tuple[str, list[jax.Device]]":
  """Return the topology and devices of the requested or smallest slice."""
  from .estimated.static import slice_devices

  topology = CHIPS[args.chip].topology
  if args.topology:
    topology = f"{args.chip}:{args.topology}"
  return topology, slice_devices(topology)


def _shapes(model: str, resolution: int | None) -> "list[DepthwiseShape]":
  from .layers import depthwise_shapes, family_shapes

  if model != "all":
    return depthwise_shapes(model, resolution)
  if resolution is not None:
    raise UsageError(
      f"--resolution {resolution} with --model all: each model has its own "
      "resolution; leave --resolution out"
    )
  return family_shapes()
