"""Repair of JPEG files whose flaws change no pixel.

libjpeg reports its first warning only. Harmless flaws are repaired before
decoding, so every remaining warning means damage.
"""

import re

from .jpeg_segments import BASELINE, find_end, header_segments

_BEFORE_END = re.compile(r"(\d+) extraneous bytes before marker 0xd9")
# First and last coefficient of a scan, and its precision.
_ONE_PASS = bytes((0, 63, 0))


def repair_header(jpeg: bytes) -> bytes:
  """Repair the flaws of a header that change no pixel.

  Bytes between segments are removed. The parameters of a scan name its pass;
  in a file of one pass they are set to their only valid values. ImageNet has a
  file with other values.

  Args:
    jpeg: Any bytes.

  Returns:
    The repaired file; `jpeg` itself if its header is damaged or needs no
    repair.
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
  """Remove the bytes that libjpeg ignored at the end of an image.

  Args:
    jpeg: File that libjpeg warned about.
    warning: Text of the warning.

  Returns:
    A shorter file; None if the warning has another cause. A few of the bytes
    may remain, because libjpeg reads ahead and counts only the rest.
  """
  told = _BEFORE_END.search(warning)
  end = find_end(jpeg) if told else None
  if not told or end is None:
    return None
  return jpeg[: end - int(told[1])] + jpeg[end:]
