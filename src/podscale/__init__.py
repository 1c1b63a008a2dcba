"""EfficientNet training at 65,536 images a step, and the ops it is made of.

Import the part you need: `podscale.kernels`, `podscale.collectives`,
`podscale.model`, `podscale.train`. This package imports none of them itself.
"""

__version__ = "0.2.0"
