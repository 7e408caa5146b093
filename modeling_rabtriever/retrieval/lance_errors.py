"""Errors of LanceDB as errors of this package."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

_CONFLICT = re.compile("commit conflict|incompatible transaction|concurrent writers", re.IGNORECASE)
_SOURCE_LINE = re.compile(r",?\s*\S+\.rs:\d+(:\d+)?")


class ConflictError(ValueError):
    """Another writer changed the table at the same time."""


@contextmanager
def foreign_errors(what: str) -> Iterator[None]:
    """Turns errors of LanceDB into a ValueError that begins with `what`, or an OSError if the disk is at fault."""
    try:
        yield
    except Exception as error:  # LanceDB raises RuntimeErrors, ValueErrors, OSErrors and Rust panics
        message = _SOURCE_LINE.sub("", str(error))
        if _CONFLICT.search(message):
            raise ConflictError(
                f"{what}: another program changed it at the same time ({message}); accepted: another call"
            ) from error
        if number := re.search(r"\(os error (\d+)\)", message):
            raise OSError(int(number[1]), f"{what}: {os.strerror(int(number[1]))}") from error
        raise ValueError(f"{what}: {message}; accepted: a whole store, and conditions on its own columns") from error
