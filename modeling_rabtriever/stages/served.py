"""A teacher behind a server, as every stage and command opens it."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..distillation.student_arguments import ServedTeacherArguments
from ..identity import reading_fingerprint
from ..reranking.prompts import PromptArguments, SourceArguments, read_prompt

if TYPE_CHECKING:
    from ..served import ServedTeacher

SERVED = "served"  # in the record of a run, in place of the address, which may change when the run resumes


def open_teacher(
    given: ServedTeacherArguments,
    source: SourceArguments,
    prompt: PromptArguments,
    task: str,
    trust_remote_code: bool = False,
) -> "ServedTeacher":
    """The teacher at the address `given.teacher`; asks the server nothing yet.

    Args:
        given: the server.
        source: where the served model's tokenizer is, or a folder with the whole prompt.
        prompt: the prompt's settings, if `source` has only a tokenizer.
        task: name or folder of the task, which may have a prompt of its own; "" for none.
        trust_remote_code: whether code from the tokenizer's repository may run.

    Raises:
        ValueError: the address is none, a setting is out of range, or the prompt cannot be made (`read_prompt`).
    """
    from ..served.client import checked_address  # of the extra "evaluation"
    from ..served.teacher import ServedTeacher

    address = checked_address(str(given.teacher))
    if given.requests_in_flight < 1:
        raise ValueError(f"requests_in_flight is {given.requests_in_flight}; accepted: 1 or more")
    processor = read_prompt(source, prompt, task, trust_remote_code)
    return ServedTeacher(address, processor, given.served_model, given.requests_in_flight)


def check_unserved(
    given: ServedTeacherArguments, source: SourceArguments, prompt: PromptArguments, option: str
) -> None:
    """Raises a ValueError if settings of a server are given without its address, which belongs to `option`."""
    named = {"served_model": given.served_model, **vars(source)}
    changed = [name for name, value in named.items() if value is not None] + prompt.changed()
    if changed:
        raise ValueError(f"{', '.join(changed)} given; accepted: only with the address of a server as {option}")


def identity(teacher: "ServedTeacher", given: ServedTeacherArguments) -> str:
    """What tells apart two served teachers before a server is asked: the model's name and the prompt."""
    return f"{SERVED} {given.served_model} {reading_fingerprint(teacher.processor)}"


def served_flags(given: ServedTeacherArguments, source: SourceArguments, prompt: PromptArguments) -> list[str]:
    """The command line that names this teacher to another stage."""
    names = ("teacher", "served_model", "requests_in_flight")
    settings: Mapping[str, Any] = {name: getattr(given, name) for name in names} | vars(source) | vars(prompt)
    return [f"--{name}={value}" for name, value in settings.items() if value is not None]
