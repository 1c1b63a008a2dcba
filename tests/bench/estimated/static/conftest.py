"""Stored dumps, and hand-written programs.

`dumps.tar.xz` holds, each in a folder NAME_CHIP and without unread files:

* small: a Pallas kernel, grid 4 x 2, with an inner loop of 8 and a `pl.when`,
  and an XLA fusion after it; for all seven chips, by libtpu 0.0.52;
* loop: a `fori_loop` of 7 in XLA, by an older libtpu;
* psum: a reduction over four cores, by an older libtpu.
"""

import tarfile
from pathlib import Path

import pytest
from support.scalar_interpreter import InterpretedCode

from podscale.bench.chips import CHIPS
from podscale.bench.estimated.static import routine
from podscale.bench.estimated.static.interlocks import utilisation_files
from podscale.bench.estimated.static.machine import Machine


@pytest.fixture(scope="session")
def dumps(tmp_path_factory):
  folder = tmp_path_factory.mktemp("dumps")
  with tarfile.open(Path(__file__).parent / "dumps.tar.xz") as archive:
    archive.extractall(folder, filter="data")
  return folder


@pytest.fixture
def write(tmp_path):
  """Write a program, a string for each bundle, and return its path."""

  def write_bundles(bundles, name="x"):
    lines = (
      f"{hex(i) if i else '0':>6} {b if ':' in b.split('{')[0] else ': ' + b}\n"
      for i, b in enumerate(bundles)
    )
    path = tmp_path / f"{name}-1-final_bundles.txt"
    path.write_text("".join(lines))
    return path

  return write_bundles


@pytest.fixture(params=["translated", "interpreted"])
def code(request, monkeypatch):
  """Run scalar code translated to Python, and by the tests' interpreter."""
  if request.param == "interpreted":
    monkeypatch.setattr(routine, "ScalarCode", InterpretedCode)


@pytest.fixture
def run(write, code):
  """Run a hand-written program.

  DMAs have the nominal bandwidth and a latency of a microsecond.
  """

  def run_bundles(bundles, chip="v5e", dma_share=1.0):
    path = write(bundles)
    chip = CHIPS[chip]._replace(
      hbm_efficiency=1.0, dma_share=dma_share, latency_us=1.0
    )
    code = routine.Routine(path, chip, utilisation_files(path.parent))
    return Machine(chip, [code]).run(code)

  return run_bundles
