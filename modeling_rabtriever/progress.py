"""Progress of long work: a bar on a terminal and in a notebook, elsewhere, such as in a log, a line per tenth.

`transformers.utils.logging.disable_progress_bar()` turns off both.
"""

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from transformers.utils import logging
from transformers.utils.import_utils import is_in_notebook


class Lines:
    """In place of a bar: a line on stderr for every tenth; without a total, whenever the count has doubled.

    Args:
        total: of the work, in units.
        desc: what is done.
        unit: of the count, in the singular.
        initial: what an earlier run has done.
    """

    def __init__(self, total: int | None, desc: str, unit: str, initial: int = 0) -> None:
        self.total, self.desc, self.unit, self.done = total, desc, unit, initial
        self.values: dict[str, float] = {}  # shown at the end of each line
        self._initial, self._start = initial, time.monotonic()
        self._next = self._after(initial)

    def __enter__(self) -> "Lines":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def update(self, count: int = 1) -> None:
        """Counts finished work and says so when a tenth is full."""
        self.done += count
        if count and self.done >= self._next:
            self._next = self._after(self.done)
            print(self._line(), file=sys.stderr, flush=True)

    def close(self) -> None:
        """Nothing to do; a bar has it."""

    def _after(self, done: int) -> int:
        return min(self.total, done + -(-self.total // 10)) if self.total else max(1, 2 * done)

    def _line(self) -> str:
        passed = time.monotonic() - self._start
        parts = [f"{self.desc}: {self.done:,} {self.unit}s", f"{_clock(passed)} passed"]
        if self.total:
            left = passed * (self.total - self.done) / (self.done - self._initial)
            parts[0] = f"{self.desc}: {self.done / self.total:.0%} ({self.done:,} of {self.total:,} {self.unit}s)"
            parts.append(f"{_clock(left)} left")
        return ", ".join([*parts, *(f"{name} {value:.4g}" for name, value in self.values.items())])


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))


def progress(total: int | None, desc: str, unit: str, quiet: bool = False) -> Any:
    """A bar, or `Lines` where there is no terminal: a context with `update(count)`; arguments as for `Lines`.

    Args:
        total: of the work.
        desc: what is done.
        unit: of the count.
        quiet: shows nothing.

    Examples:
        >>> from modeling_rabtriever.progress import progress
        >>> with progress(2, "reading", "text") as bar:
        ...     bar.update(2)
    """
    if quiet or on_terminal() or not logging.is_progress_bar_enabled():
        return logging.tqdm(total=total, desc=desc, unit=unit, disable=quiet)
    return Lines(total, desc, unit)


def on_terminal() -> bool:
    """Whether bars can be drawn: stderr is a terminal or belongs to a notebook."""
    return (sys.stderr is not None and sys.stderr.isatty()) or is_in_notebook()


@contextmanager
def lines_in_logs() -> Iterator[None]:
    """Where there is no terminal, silences the bars of other libraries, and long calls of a model write lines.

    Also a decorator, `@lines_in_logs()`, for functions that load models and read many texts.
    """
    if on_terminal():
        yield
        return
    datasets: Any = sys.modules.get("datasets")  # only a few commands import it
    if datasets is not None and datasets.are_progress_bars_disabled():
        datasets = None
    previous = logging.set_tqdm_hook(_lines_or_nothing)
    if datasets is not None:
        datasets.disable_progress_bars()
    try:
        yield
    finally:
        logging.set_tqdm_hook(previous)
        if datasets is not None:
            datasets.enable_progress_bars()


def _lines_or_nothing(factory: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    # The models' own bars have disable=None: on a terminal only. Those of loading do not set it.
    if kwargs.get("disable", True) is None and logging.is_progress_bar_enabled():
        return Lines(kwargs["total"], kwargs["desc"], kwargs["unit"])
    return factory(*args, **{**kwargs, "disable": True})
