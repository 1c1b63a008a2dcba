"""What each benchmark's command runs: from arguments to tables by title."""

import argparse
from typing import TYPE_CHECKING

from ..train.errors import UsageError
from .estimated.static import CHIPS
from .tables.compare import Rows

if TYPE_CHECKING:
  import jax

  from .layers import DepthwiseShape

Tables = dict[str, Rows]
"""Rows by the title of their table, those that matter most first."""

MODELS = [f"b{i}" for i in range(8)]
"""Those of the family that benchmarks take."""

_RESOLUTION = 64  # pixels; small enough for a CPU
_CPU_DEVICES = 8


def run_kernels(args: argparse.Namespace) -> Tables:
  """Each depthwise layer of a model."""
  if args.chip:
    return _estimate_kernels(args)
  from .measured.kernels import bench_dtype, compare_depthwise

  resolution = args.resolution
  if args.model != "all":
    resolution = resolution or _RESOLUTION
  shapes = _shapes(args.model, resolution)
  rows = compare_depthwise(shapes, batch_size=args.batch_size, runs=args.runs)
  return {f"depthwise layers, forward and backward, {bench_dtype()}": rows}


def _estimate_kernels(args: argparse.Namespace) -> Tables:
  from .estimated.kernels import estimate_depthwise, kernel_rows

  shapes = _shapes(args.model, args.resolution)
  rows = estimate_depthwise(shapes, batch_size=args.batch_size, chip=args.chip)
  title = (
    f"depthwise layers, {args.batch_size} images, bfloat16: ESTIMATES for "
    f"{args.chip} by its compiler"
  )
  if args.json:
    return {title: rows}
  kernels = f"every fusion and kernel of them: ESTIMATES for {args.chip}"
  return {title: rows, kernels: kernel_rows(rows)}


def run_collectives(args: argparse.Namespace) -> Tables:
  """A step's communication, part by part."""
  import jax

  jax.config.update("jax_num_cpu_devices", _CPU_DEVICES)
  try:
    return _count_collectives(args) if args.chip else _time_collectives(args)
  except ValueError as error:  # a group that does not divide the devices
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
  return {title: rows}


def _count_collectives(args: argparse.Namespace) -> Tables:
  from .estimated.collectives import hop_rows, table_1_rows
  from .measured.collectives import count_collectives

  topology, devices = _slice(args)
  counted = count_collectives(args.model, devices, group_size=args.group_size)
  return {
    f"collectives of {args.model} compiled for {topology}, groups of "
    f"{args.group_size}": counted,
    f"groups on {topology}, times ESTIMATED": hop_rows(args.chip, devices),
    "arXiv:2011.00071, Table 1 (v3): ESTIMATES beside it": table_1_rows(),
  }


def run_lars(args: argparse.Namespace) -> Tables:
  """The update of a whole network."""
  from .measured.lars import estimate_updates, time_updates

  if not args.chip:
    rows = time_updates(args.model, runs=args.runs)
    return {f"update of {args.model} on the default device": rows}
  topology, devices = _slice(args)
  rows = estimate_updates(args.model, chip=args.chip, devices=devices)
  return {f"update of {args.model}: ESTIMATES for {topology}": rows}


def run_step(args: argparse.Namespace) -> Tables:
  """A whole training step."""
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
  return {f"training step, {config.model.dtype}, one device": rows}


def _estimate_step(args: argparse.Namespace) -> Tables:
  if args.resolution:
    raise UsageError("--chip takes the model's own resolution: no --resolution")
  from .estimated.step import estimate_step, pod_config

  topology, devices = _slice(args)
  config = pod_config(args.model, args.batch_size * len(devices))
  rows: Rows = []
  for way in args.implementation:
    row = estimate_step(config, chip=args.chip, devices=devices, way=way)
    first = rows[0] if rows else row
    rows.append({**row, "times faster": first["step_us"] / row["step_us"]})
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
    tables[f"{way}: collectives"] = [row["collectives"]]
    tables[f"{way}: what takes longest"] = row["top"]
  return tables


def run_scale(args: argparse.Namespace) -> Tables:
  """The paper's Table 1."""
  from .estimated.scale import scaling_rows

  rows = scaling_rows(
    args.model,
    chips=args.chip,
    per_core=args.batch_size,
    way=args.implementation,
  )
  return {f"{args.model}, {args.batch_size} images a core: ESTIMATES": rows}


def run_memory(args: argparse.Namespace) -> Tables:
  """What is kept for the backward pass."""
  from .estimated.activations import activation_rows

  models = MODELS if args.model == "all" else [args.model]
  rows = activation_rows(models, chips=args.chip)
  return {"kept for the backward pass of an image; batches ESTIMATED": rows}


def run_input(args: argparse.Namespace) -> Tables:
  """The host's part: files to batches."""
  from .measured.input import time_input

  rows = time_input(
    args.model, path=args.path, batch_size=args.batch_size, runs=args.runs
  )
  return {f"images for {args.model} on this host": rows}


def _slice(args: argparse.Namespace) -> "tuple[str, list[jax.Device]]":
  """The name and devices of the slice asked for, or of the smallest."""
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
    raise UsageError("--model all has its own resolutions: no --resolution")
  return family_shapes()
