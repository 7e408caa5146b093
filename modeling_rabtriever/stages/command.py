"""The command line of a stage: options from dataclasses, short help, and one-line errors for bad input.

Settings come from recipes (`stages.recipe`) and flags; both are checked against the types of the dataclasses.
"""

import argparse
import dataclasses
import inspect
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from enum import Enum
from functools import partial, wraps
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from transformers import HfArgumentParser

from ..progress import lines_in_logs
from ..retrieval.json_lines import keys_once
from ..trainers.processes import BAD_INPUT
from . import program

INTERRUPTED = 130
HELP = ("-h", "--help", "--help-all", "--help_all")
# The settings that a run usually changes, of the two hundred of transformers and TRL.
USUAL = (
    "output_dir", "seed", "max_steps", "num_train_epochs", "learning_rate", "warmup_steps", "lr_scheduler_type",
    "per_device_train_batch_size", "per_device_eval_batch_size", "gradient_accumulation_steps", "weight_decay", "bf16",
    "use_cpu", "logging_steps", "eval_strategy", "eval_steps", "save_steps", "save_total_limit",
)  # fmt: skip
FEW = 8  # fewer choices than this are listed in the help of an option
_NULL = ("null", "none")
_WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a string", dict: "a mapping"}


class StageParser(HfArgumentParser):
    """Parses the dataclasses of a stage: errors are `ValueError`s, optional settings accept "null" and "none"."""

    def __init__(self, stage: str, argument_types: tuple[Any, ...]) -> None:
        self.stage = stage
        self._hints = {name: hint for kind in argument_types for name, hint in get_type_hints(kind).items()}
        super().__init__(argument_types, prog=program(stage), allow_abbrev=False, add_help=False)

    def add_argument(self, *names: Any, **settings: Any) -> argparse.Action:
        """As in argparse, but "null" and "none" mean `None` for an optional setting."""
        name = names[0].removeprefix("--")
        parts = get_args(self._hints.get(name))
        if dict in (get_origin(part) or part for part in parts):
            settings["type"] = _mapping
        if type(None) in parts:
            kept = [settings.get("default")]  # the "none" of report_to is a value of its own
            settings["type"] = _or_null(settings.get("type", str), kept)
            if "choices" in settings:
                settings["choices"] = [*settings["choices"], None]
        return super().add_argument(*names, **settings)

    def error(self, message: str) -> Any:
        """Raises a `ValueError` instead of printing two hundred options."""
        raise ValueError(message)

    def set_recipe(self, source: str, settings: Mapping[str, Any]) -> None:
        """Sets the settings of a recipe as defaults; messages name it `source`.

        Raises:
            ValueError: a key is unknown, or a value has the wrong type or is not one of the choices.
        """
        unknown = [name for name in settings if name not in self._hints]
        if unknown:
            listed = ", ".join(unknown)
            raise ValueError(
                f"{source} has unknown keys for {self.stage}: {listed}; accepted: what {self.prog} --help lists"
            )
        choices = {action.dest: action.choices for action in self._actions if action.choices is not None}
        read = {name: fitting(value, self._hints[name]) for name, value in settings.items()}
        for name, value in settings.items():
            accepted = choices.get(name, _listed(read[name]))
            if read[name] is NotImplemented:
                accepted = [in_words(self._hints[name])]
            if any(part not in accepted for part in _listed(read[name])):
                raise ValueError(f"{source}: {name} is {value!r} for {self.stage}; accepted: {_joined(accepted)}")
        for action in self._actions:
            if action.dest in read:
                action.default, action.required = read[action.dest], False

    def stage_arguments(self, argv: Sequence[str] | None) -> tuple[Any, ...]:
        """One instance of each dataclass, from the recipe's values and the flags.

        Raises:
            ValueError: a flag is unknown or lacks a value, or a value is not accepted.
        """
        *parsed, unknown = self.parse_args_into_dataclasses(
            argv, return_remaining_strings=True, look_for_args_file=False
        )
        if unknown:
            raise ValueError(
                f"unknown arguments for {self.stage}: {' '.join(unknown)}; accepted: what {self.prog} --help lists"
            )
        return tuple(parsed)

    def parse_known_args(self, *args: Any, **kwargs: Any) -> Any:
        """As in argparse, but a list that holds only null becomes `None`."""
        namespace, rest = super().parse_known_args(*args, **kwargs)
        for name, value in vars(namespace).items():
            if value == [None]:
                setattr(namespace, name, None)
        return namespace, rest

    def own_help(self) -> str:
        """Help for the stage's own options, grouped by dataclass, and for the usual options of transformers and TRL.

        Square brackets hold defaults.
        """
        module = sys.modules[f"{__package__}.{self.stage}"]
        about = (inspect.getdoc(module) or "").replace(f"python -m training.{self.stage} ", f"{self.prog} ")
        parser = argparse.ArgumentParser(
            prog=self.prog,
            usage="%(prog)s [--config RECIPE ...] [--option value ...]",
            description=about,
            epilog=f"[...] is the default. {self.prog} --help-all lists the options of transformers and TRL too.",
            formatter_class=partial(argparse.RawDescriptionHelpFormatter, max_help_position=36, width=120),
            add_help=False,
        )
        parser.add_argument(
            "--config",
            metavar="RECIPE",
            help="Recipe: a name such as household, or a YAML file. May be repeated; options override it.",
        )
        usual = []
        for kind in self.dataclass_types:
            title = (inspect.getdoc(kind) or kind.__name__).partition("\n")[0]
            group = parser.add_argument_group(title.removesuffix("."))
            for name in own_options(kind):
                self._describe(group, name)
            usual += [field.name for field in dataclasses.fields(kind) if field.name in USUAL]
        if usual:
            group = parser.add_argument_group("Usual settings of a run")
            for name in sorted(usual, key=USUAL.index):
                self._describe(group, name)
        return parser.format_help()

    def _describe(self, group: Any, name: str) -> None:
        action = next(action for action in self._actions if action.dest == name)
        names = [option for option in action.option_strings if "-" not in option.removeprefix("--")]
        choices = list(action.choices or ())
        shown = "{" + ",".join(map(str, choices)) + "}" if 0 < len(choices) < FEW else _metavar(self._hints[name])
        words = " ".join((action.help or "").split()) + _default(action.default)
        group.add_argument(*names, metavar=shown, help=words.replace("%", "%%"))


def parse_or_help(parser: StageParser, argv: Sequence[str]) -> tuple[Any, ...]:
    """The parsed arguments; if the command line has a help flag, prints help and exits."""
    help_flags = [item for item in argv if item in HELP]
    if help_flags:
        print(parser.format_help() if "all" in help_flags[0] else parser.own_help())
        raise SystemExit(0)
    return parser.stage_arguments(argv)


def run_command(main: Callable[[], Any]) -> None:
    """Runs a stage as a program: bad input gives one line on stderr and exit status 2 instead of a traceback."""
    spec = sys.modules["__main__"].__spec__
    name = f"python -m {spec.name}" if spec is not None else sys.argv[0]
    try:
        with lines_in_logs():
            main()
    except KeyboardInterrupt:
        print(f"{name}: interrupted; run it again with the same settings to resume", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except BrokenPipeError:  # the reader of our output has closed it
        sys.stderr.close()
    except (ValueError, OSError, ImportError) as error:
        print(f"{name}: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(BAD_INPUT)


def fitting(value: Any, kind: Any) -> Any:
    """A YAML value converted to the type of an option, or `NotImplemented` if it does not fit.

    Numbers that YAML reads as strings (1e-3) become numbers. YAML's bare yes, no, on and off are booleans and do not
    fit a string.
    """
    origin, parts = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        read = [fitting(value, part) for part in parts]
        same = [part for part in read if part is value]  # prefers the string over a number made from it
        return next((part for part in (*same, *read) if part is not NotImplemented), NotImplemented)
    if origin is list:
        items = [fitting(item, parts[0]) for item in value] if isinstance(value, list) else [NotImplemented]
        return NotImplemented if NotImplemented in items else items
    if origin is Literal:
        return value if value in parts else NotImplemented
    if kind in (int, float) and isinstance(value, str):
        with suppress(ValueError):
            return kind(value)
        return NotImplemented
    if kind is Any:
        fits = True
    elif kind in (int, float):
        fits = isinstance(value, (int, kind)) and not isinstance(value, bool)
    elif isinstance(kind, type) and issubclass(kind, Enum):
        fits = isinstance(value, kind) or value in [member.value for member in kind]
    else:
        fits = isinstance(value, origin or kind)
    return value if fits else NotImplemented


def in_words(kind: Any) -> str:
    """The values that an option of this type accepts, in words."""
    parts = get_args(kind)
    if get_origin(kind) in (Union, UnionType):
        enums = any(isinstance(part, type) and issubclass(part, Enum) for part in parts)
        return " or ".join(in_words(part) for part in parts if not (enums and part is str))
    if get_origin(kind) is list:
        return f"a list, each item {in_words(parts[0])}"
    if get_origin(kind) is Literal:
        return _joined(parts)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return _joined([member.value for member in kind])
    return "null" if kind is type(None) else _WORDS.get(get_origin(kind) or kind, str(kind))


def _mapping(text: str) -> Any:
    """A mapping from JSON, or the text itself, because these options also accept names and files."""
    try:
        return json.loads(text, object_pairs_hook=keys_once) if text.lstrip().startswith("{") else text
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not JSON ({error}); accepted: a mapping") from None


def _or_null(read: Callable[[str], Any], kept: Sequence[Any]) -> Callable[[str], Any]:
    @wraps(read)
    def convert(text: str) -> Any:
        return None if text.lower() in _NULL and text not in kept else read(text)

    return convert


def own_options(kind: Any) -> list[str]:
    """The options of a dataclass that are declared in this package, without the usual ones and those of no use here."""
    package = __name__.partition(".")[0]
    own = [base for base in kind.__mro__ if base.__module__.partition(".")[0] == package]
    ours = {name for base in own for name in vars(base).get("__annotations__", {})}
    useful = [field.name for field in dataclasses.fields(kind) if field.metadata.get("help") != argparse.SUPPRESS]
    return [name for name in useful if name in ours and name not in USUAL]


def _metavar(kind: Any) -> str:
    parts = [part for part in get_args(kind) if part is not type(None)]
    if get_origin(kind) in (Union, UnionType):
        return "TEXT" if len(parts) > 1 else _metavar(parts[0])
    if get_origin(kind) is list:
        return f"{_metavar(parts[0])} ..."
    if kind is bool:
        return "true|false"
    if kind is int:
        return "N"
    return "X" if kind is float else "TEXT"


def _default(value: Any) -> str:
    if value is None or value == []:
        return ""
    shown = str(value).lower() if isinstance(value, bool) else " ".join(map(str, _listed(value)))
    needs_quotes = shown != shown.strip() or "\n" in shown
    return f" [{shown!r}]" if needs_quotes else f" [{shown}]"


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _joined(parts: Any) -> str:
    return ", ".join("null" if part is None else str(part) for part in parts)
