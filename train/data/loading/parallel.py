"""A map over all cores with its results in order."""

import collections
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from .prefetch import cores, one_thread_per_image

_AHEAD = 4  # items in flight for each core


def map_in_threads[Item, Result](
  function: Callable[[Item], Result], items: Iterable[Item]
) -> Iterator[Result]:
  """Yield `function(item)` for each item, in order, computed by all cores.

  A few items for each core are in flight. Closing the iterator, or an exception
  from `function`, waits for these and starts no more.

  Args:
    function: Function that several threads call; threads help only if it
      releases the GIL, as decoders and checksums do.
    items: Arguments of the function, taken one at a time.

  >>> list(map_in_threads(abs, [-1, 2, -3]))
  [1, 2, 3]
  """
  one_thread_per_image()
  pool = ThreadPoolExecutor(cores())
  under_way: collections.deque[Future[Result]] = collections.deque()
  try:
    for item in items:
      under_way.append(pool.submit(function, item))
      if len(under_way) > _AHEAD * cores():
        yield under_way.popleft().result()
    while under_way:
      yield under_way.popleft().result()
  finally:
    pool.shutdown(cancel_futures=True)
