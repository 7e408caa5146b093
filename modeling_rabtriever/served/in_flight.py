"""Work that waits for others, such as requests, done a few at a time."""

from collections.abc import Callable, Iterator, Sequence
from queue import Empty, SimpleQueue
from threading import Event, Thread
from typing import NamedTuple, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class _Failure(NamedTuple):
    error: BaseException


def in_flight(work: Callable[[Item], Result], items: Sequence[Item], count: int) -> Iterator[tuple[Item, Result]]:
    """Every item with its result, `count` at once, in the order in which they are done.

    After an error nothing new begins. What is under way still ends and is given out, then the first error is raised.
    The threads do not keep a program alive that is interrupted.

    Examples:
        >>> from modeling_rabtriever.served.in_flight import in_flight
        >>> sorted(in_flight(str.upper, ["a", "b", "c"], 2))
        [('a', 'A'), ('b', 'B'), ('c', 'C')]
    """
    left: SimpleQueue[Item] = SimpleQueue()
    for item in items:
        left.put(item)
    stop = Event()
    done: SimpleQueue[tuple[Item, Result] | _Failure | None] = SimpleQueue()
    threads = [Thread(target=_run, args=(work, left, stop, done), daemon=True) for _ in range(min(count, len(items)))]
    for thread in threads:
        thread.start()
    running, first = len(threads), None
    try:
        while running:
            found = done.get()
            if found is None:
                running -= 1
            elif isinstance(found, _Failure):
                first = first or found
            else:
                yield found
    finally:
        stop.set()
    if first is not None:
        raise first.error


def _run(
    work: Callable[[Item], Result],
    left: "SimpleQueue[Item]",
    stop: Event,
    done: "SimpleQueue[tuple[Item, Result] | _Failure | None]",
) -> None:
    try:
        while not stop.is_set():
            item = left.get_nowait()
            done.put((item, work(item)))
    except Empty:
        pass
    except BaseException as error:
        stop.set()
        done.put(_Failure(error))
    finally:
        done.put(None)
