"""Fixtures: a console that keeps its text, and an undisturbed run."""

import io

import pytest
from rich.console import Console
from support.smoke_run import smoke


@pytest.fixture
def console():
  return Console(file=io.StringIO(), width=200)


@pytest.fixture(scope="session")
def straight(tmp_path_factory):
  """Workdir, result and output of an undisturbed run of six steps."""
  from podscale.train.loop import train

  workdir = tmp_path_factory.mktemp("straight") / "run"
  output = io.StringIO()
  trained = train(smoke(workdir), Console(file=output, width=200))
  return workdir, trained, output.getvalue()
