import subprocess
import sys

from podscale import kernels


def test_every_public_name_is_there_and_documented():
  assert len(kernels.__all__) == len(set(kernels.__all__))
  for name in kernels.__all__:
    public = getattr(kernels, name)
    if name != "Activation":  # a type alias
      assert public.__doc__, name


def test_ops_name_their_errors():
  for name in (
    "batch_norm",
    "batch_norm_affine",
    "channel_moments",
    "depthwise_conv_bn",
    "gated_pointwise_conv_bn",
    "lars_update",
    "leaf_norms",
    "pointwise_conv_bn",
  ):
    doc = getattr(kernels, name).__doc__
    for part in ("Args:", "Returns:", "Raises:", ">>>"):
      assert part in doc, (name, part)


def test_imports_neither_flax_nor_train():
  # In a process of its own, for this one has imported all of them.
  program = (
    "import sys, podscale.kernels\n"
    "ours = {n for n in sys.modules if n.startswith('podscale.')}\n"
    "print(*sorted(n for n in ours if not n.startswith('podscale.kernels')))\n"
    "others = {n.split('.')[0] for n in sys.modules}\n"
    "print(*sorted(others & {'flax', 'optax', 'orbax', 'tyro', 'rich',\n"
    "  'cv2', 'matplotlib', 'tensorboardX', 'simplejpeg'}))"
  )
  run = subprocess.run(
    [sys.executable, "-c", program], capture_output=True, text=True, check=True
  )
  assert run.stdout.split() == []
