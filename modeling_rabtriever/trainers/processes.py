"""One run on several processes, as torchrun or accelerate start them. An error in one process ends all of them.

    torchrun --nproc_per_node 8 -m training.pipeline --config recipe.yaml

All processes use one output folder. Each writes its own shards of teacher scores and its own random state; the main
process writes everything else. With a single process, the functions here just do the work.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, NamedTuple, TypeVar

import torch.distributed as dist
from accelerate import PartialState
from torch import Tensor

from ..machine import on_cpus_together

T = TypeVar("T")
Rows = TypeVar("Rows", bound="Sequence[Any] | Tensor")

BAD_INPUT, FAILED = 2, 1  # exit statuses
# The others wait while one ranks a corpus or runs the teacher; a dead process ends the wait.
PATIENCE = timedelta(days=30)
_alone = False  # true while the main process does something that the others wait for


class _Failure(NamedTuple):
    process: int
    message: str
    bad_input: bool


def process_count() -> int:
    """How many processes share the run."""
    return _state().num_processes


def process_index() -> int:
    """The index of this process; 0 is the main process."""
    return _state().process_index


def is_main() -> bool:
    """Whether this is the process that writes and prints."""
    return process_index() == 0


def say(text: str) -> None:
    """Prints on the main process only."""
    if is_main():
        print(text, flush=True)


def on_main(work: Callable[[], T]) -> T:
    """Runs `work` on the main process only, while the others wait.

    Returns:
        The result of `work`, on every process.

    Raises:
        Exception: on the main process, the one that `work` raised; the others exit silently with the same status.
    """
    group = _group()
    if group is None:
        return work()
    outcome: list[Any] = [None, None]  # result of `work`, and its failure
    error = None
    if is_main():
        with _standing_alone():
            outcome[0], error = _tried(work)
        outcome[1] = _failure(error)
    with _reaching_the_others():
        dist.broadcast_object_list(outcome, src=0, group=group)
    _end_if_any_failed(outcome[1:], error)
    return outcome[0]


def on_each(work: Callable[[], T]) -> T:
    """Runs `work` on every process, then waits for all of them; `work` itself must not wait for other processes.

    Returns:
        The result of `work` on this process.

    Raises:
        Exception: `work` failed on any process; the main process says why, the others exit with the same status.
    """
    if _group() is None:
        return work()
    result, error = _tried(work)
    _end_if_any_failed(gather(_failure(error)), error)
    return result  # type: ignore[return-value]


def gather(value: T) -> list[T]:
    """The values of all processes in the order of the processes, on every process."""
    group = _group()
    if group is None:
        return [value]
    values: list[Any] = [None] * process_count()
    with _reaching_the_others():
        dist.all_gather_object(values, value, group=group)
    return values


def own_part(rows: Rows) -> Rows:
    """The part of `rows` of this process; the parts of all processes, in order, make up `rows`.

    In `on_main` the main process works alone, so all of them are its part.
    """
    if _alone:
        return rows
    count, index = process_count(), process_index()
    return rows[len(rows) * index // count : len(rows) * (index + 1) // count]  # type: ignore[return-value]


def _state() -> PartialState:
    return PartialState(cpu=on_cpus_together())


def _group() -> Any:
    return None if _alone or process_count() == 1 else _patient_group()


@functools.cache
def _patient_group() -> Any:
    return dist.new_group(backend="gloo", timeout=PATIENCE)


@contextmanager
def _reaching_the_others() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise ConnectionError("another process of this run has ended; its own message says why") from error


@contextmanager
def _standing_alone() -> Iterator[None]:
    global _alone
    _alone = True
    try:
        yield
    finally:
        _alone = False


def _tried(work: Callable[[], T]) -> tuple[T | None, Exception | None]:
    try:
        return work(), None
    except Exception as error:
        return None, error


def _failure(error: Exception | None) -> _Failure | None:
    bad_input = isinstance(error, (ValueError, OSError))
    message = str(error) if bad_input else f"{type(error).__name__}: {error}"
    return None if error is None else _Failure(process_index(), message, bad_input)


def _end_if_any_failed(failures: Sequence[_Failure | None], own: Exception | None) -> None:
    first = next((failure for failure in failures if failure is not None), None)
    if first is None:
        return
    if own is not None and (is_main() or not first.bad_input):
        raise own
    if not is_main():
        raise SystemExit(BAD_INPUT if first.bad_input else FAILED)
    raise (ValueError if first.bad_input else RuntimeError)(f"process {first.process}: {first.message}")
