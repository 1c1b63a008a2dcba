"""Reader of TensorBoard event files."""

import struct

from tensorboardX.proto.event_pb2 import Event


def events(folder):
  """Read all events of a TensorBoard folder in the order written."""
  found = []
  for path in sorted(folder.iterdir()):
    data = path.read_bytes()
    while data:  # length, its checksum, the event, its checksum
      (length,) = struct.unpack_from("<Q", data)
      found.append(Event.FromString(data[12 : 12 + length]))
      data = data[16 + length :]
  return found


def scalars(folder):
  return {
    (value.tag, event.step): value.simple_value
    for event in events(folder)
    for value in event.summary.value
  }
