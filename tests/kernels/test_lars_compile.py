"""The LARS update of packed buffers through the real TPU compiler."""

from libtpu_mark import NEEDS_LIBTPU

pytestmark = NEEDS_LIBTPU
