"""One kind of error for what other libraries cannot read: a ValueError that names the thing and what is accepted."""

from collections.abc import Iterator
from contextlib import contextmanager

_OWN = ("modeling_rabtriever", "transformers_modules")


@contextmanager
def refusing(what: str, accepted: str) -> Iterator[None]:
    """Turns whatever other libraries raise inside it into a ValueError; our own ValueErrors pass.

    Args:
        what: the thing and its fault, `"runs/student cannot be loaded"`.
        accepted: what would be right.

    Example:
        >>> with refusing("'x' is no number", "a number"):
        ...     float("x")
        Traceback (most recent call last):
        ValueError: 'x' is no number (could not convert string to float: 'x'); accepted: a number
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, ValueError) and _is_own(error):
            raise
        raise ValueError(f"{what} ({reason(error)}); accepted: {accepted}") from error


def reason(error: Exception) -> str:
    """What an exception says in one line: its first line, or its kind where that says nothing."""
    line = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    if not line:
        return type(error).__name__
    plain = isinstance(error, (ValueError, OSError, RuntimeError))
    return line if plain else f"{type(error).__name__}: {line}"  # of a KeyError the text is the key alone


def _is_own(error: Exception) -> bool:
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    raised_in = "" if traceback is None else str(traceback.tb_frame.f_globals.get("__name__"))
    return raised_in.partition(".")[0] in _OWN
