"""Leave out of a JPEG what decoders pass over.

libjpeg's first warning is the only one that is known. What does no harm is
mended before decoding, so that each warning is of damage.
"""

import re

from .jpeg_segments import BASELINE, find_end, header_segments

_BEFORE_END = re.compile(r"(\d+) extraneous bytes before marker 0xd9")
# First and last coefficient of a scan, and its precision.
_ONE_PASS = bytes((0, 63, 0))


def repair_header(jpeg: bytes) -> bytes:
  """Mend what libjpeg warns of in a header and what changes no pixel.

  Bytes between segments are left out. The parameters of a scan say which of
  several passes it is; in a file of one pass they are set to the only right
  ones. ImageNet has a file with others.

  Args:
    jpeg: Any bytes; those with a damaged header are returned as they are.
  """
  found = header_segments(jpeg)
  one_pass = any(segment.marker in BASELINE for segment in found)
  parts, at = [jpeg[:2]], 2
  clean = True
  for segment in found:
    clean &= segment.start == at
    parts.append(jpeg[segment.start : segment.end])
    at = segment.end
  if one_pass and not parts[-1].endswith(_ONE_PASS):
    clean = False
    parts[-1] = parts[-1][: -len(_ONE_PASS)] + _ONE_PASS
  return jpeg if clean else b"".join([*parts, jpeg[at:]])


def without_bytes_before_end(jpeg: bytes, warning: str) -> bytes | None:
  """Leave out the bytes that libjpeg passed over at the end of an image.

  Args:
    jpeg: A file that it warned of.
    warning: Its text.

  Returns:
    A shorter file; None where the warning is of something else. It may still
    have a few of the bytes: libjpeg reads ahead, and counts the rest.
  """
  told = _BEFORE_END.search(warning)
  end = find_end(jpeg) if told else None
  if not told or end is None:
    return None
  return jpeg[: end - int(told[1])] + jpeg[end:]
