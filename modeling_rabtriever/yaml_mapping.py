"""The one reader of YAML files: a mapping whose keys stand once."""

from pathlib import Path
from typing import Any

import yaml

from .errors import one_line


def read_mapping(path: Path, what: str) -> dict[Any, Any]:
    """A YAML file's mapping.

    Args:
        path: the file.
        what: is accepted, for errors: `"a mapping of settings"`.

    Raises:
        ValueError: the file cannot be read, is not YAML, is not a mapping, or has a key twice, at any depth.
    """
    try:
        found = yaml.load(path.read_text(encoding="utf-8"), _KeysOnce)
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}); accepted: {what}") from error
    except _KeyTwiceError as error:
        raise ValueError(f"{path} has {error}; accepted: every key once") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not YAML ({one_line(error)}); accepted: {what}") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path} is not a mapping; accepted: {what}")
    return found


class _KeyTwiceError(Exception):
    pass


class _KeysOnce(yaml.SafeLoader):  # type: ignore[misc]  # yaml has no types
    """Refuses what YAML forbids and PyYAML accepts: the later value of a key would win in silence."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        first: dict[str, int] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                line = key.start_mark.line + 1
                if key.value in first:
                    raise _KeyTwiceError(f"{key.value} twice, in lines {first[key.value]} and {line}")
                first[key.value] = line
        return super().construct_mapping(node, deep)
