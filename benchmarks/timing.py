"""Timing on a noisy machine: the compared ways take turns, and a ratio compares calls of the same round."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

Way = TypeVar("Way")  # the name of a way


def interleaved(ways: Mapping[Way, Callable[[int], Any]], rounds: int) -> dict[Way, list[float]]:
    """Seconds of each way in each round; the order rotates.

    Args:
        ways: name -> the function to time; its argument is the round, -1 for a first call that is not counted.
        rounds: counted calls of each way.
    """
    names = list(ways)
    for way in ways.values():
        way(-1)
    seconds: dict[Way, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            start = time.perf_counter()
            ways[name](number)
            seconds[name].append(time.perf_counter() - start)
    return seconds


def median_ratio(over: Sequence[float], under: Sequence[float]) -> tuple[float, tuple[float, float]]:
    """Median over rounds of `over / under`, with the smallest and largest round."""
    ratios = [a / b for a, b in zip(over, under, strict=True)]
    return statistics.median(ratios), (min(ratios), max(ratios))


def milliseconds(seconds: Mapping[Way, Sequence[float]]) -> dict[Way, float]:
    """Medians by name."""
    return {name: 1000 * statistics.median(taken) for name, taken in seconds.items()}
