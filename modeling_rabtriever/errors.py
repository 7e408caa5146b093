"""Turns errors of other libraries into a ValueError that names the input and what is accepted."""

from collections.abc import Iterator
from contextlib import contextmanager

_OWN = ("modeling_rabtriever", "transformers_modules")


@contextmanager
def refusing(what: str, accepted: str) -> Iterator[None]:
    """Turns any exception of another library into a ValueError. Our own ValueErrors pass through unchanged.

    Args:
        what: the input and what is wrong with it, such as `"runs/student cannot be loaded"`.
        accepted: what would be accepted.

    Examples:
        >>> from modeling_rabtriever.errors import refusing
        >>> with refusing("'x' is not a number", "a number"):
        ...     float("x")
        Traceback (most recent call last):
        ValueError: 'x' is not a number (could not convert string to float: 'x'); accepted: a number
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, ValueError) and _is_own(error):
            raise
        raise ValueError(f"{what} ({reason(error)}); accepted: {accepted}") from error


def reason(error: Exception) -> str:
    """The first line of an exception's message, with the next if it ends in a colon; without one, its class name."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    line = " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]
    plain = isinstance(error, (ValueError, OSError, RuntimeError))
    return line if plain else f"{type(error).__name__}: {line}"  # a KeyError's message is only the key


def one_line(error: Exception) -> str:
    """An exception's whole message in one line, for parsers that say the place on lines of its own."""
    return " ".join(str(error).split())


def fault(error: Exception) -> str:
    """What one of our messages says is wrong, without what it accepts; for a caller that accepts something else."""
    return str(error).partition("; accepted")[0]


def _is_own(error: Exception) -> bool:
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    raised_in = "" if traceback is None else str(traceback.tb_frame.f_globals.get("__name__"))
    return raised_in.partition(".")[0] in _OWN
