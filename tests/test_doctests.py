"""Doctests of every module of podscale."""

import doctest
import importlib
import inspect
import pkgutil

import pytest

import podscale

MODULES = [
  module.name
  for module in pkgutil.walk_packages(podscale.__path__, "podscale.")
  if not module.name.endswith("__main__")
]


def test_modules_of_every_package_are_found():
  packages = {name.split(".")[1] for name in MODULES}
  assert packages == {"bench", "collectives", "kernels", "model", "train"}
  assert "podscale.kernels.depthwise_conv.api" in MODULES


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name):
  module = importlib.import_module(name)
  result = doctest.testmod(module)
  assert result.failed == 0
  assert (result.attempted > 0) == (">>>" in inspect.getsource(module))
