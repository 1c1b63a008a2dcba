"""The mark of single cases of a parametrized test that take long."""

from functools import partial

import pytest

slow = partial(pytest.param, marks=pytest.mark.slow)
