"""Selection of batch norm: XLA only, for the reasons in `xla.py`."""

from ..selection.selection import Policy

POLICY = Policy("batch_norm")
