"""Downloads the files of a Hub data set unchanged. The code that reads them decides how to parse a value."""

import functools
import itertools
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from .rows import FORMATS

T = TypeVar("T")
_SHARD = re.compile(r"(.*-)(\d{5})-of-(\d{5})(.*)")


class HubDataSet:
    """A data set of the Hub, or a folder laid out as one: configurations, each with splits, each with files.

    Downloads stay in the Hub's cache, so they also work without a network.

    Args:
        name: Hub id, or folder.

    Raises:
        ValueError: there is no such data set, it cannot be reached and is not in the cache, or its README.md is broken.
    """

    def __init__(self, name: str) -> None:
        if not name.strip():
            raise ValueError(f"hub:{name} names no data set; accepted: hub:<data set>[:<split or configuration>]")
        self.name, self.folder = name, Path(os.path.abspath(name))
        self._local = self.folder.is_dir()
        self._configurations = self._asked(self._read_configurations)

    @property
    def configurations(self) -> list[str]:
        """Their names; only `default` if README.md names none."""
        return [str(name) for name in self._configurations]

    def files(
        self, configuration: str, split: str | None = None, formats: Sequence[str] = FORMATS
    ) -> dict[str, list[Path]]:
        """The files of a configuration, or of one of its splits, by split.

        Args:
            configuration: its name.
            split: its name; `None` for all.
            formats: endings of files that can be read.

        Raises:
            ValueError: there is no such configuration, or a file cannot be read, is missing or has another ending.
        """
        if configuration not in self._configurations:
            raise ValueError(
                f"hub:{self.name} has no configuration {configuration!r}; accepted: {', '.join(self.configurations)}"
            )
        inside, patterns = self._patterns(configuration)
        if split in patterns:
            patterns = {split: patterns[split]}
        found = self._asked(lambda: self._find(inside, patterns, formats))
        for name, paths in found.items():
            self._check_files(f"{configuration} {name}", paths, formats)
            if not patterns or any("*" in pattern for pattern in patterns[name]):
                self._check_whole(paths)
        return found

    def part(self, name: str) -> list[Path]:
        """The files of a split of the default configuration, or else of a whole configuration.

        Raises:
            ValueError: as `files`; or it is neither.
        """
        default = self._asked(self._configurations.get_default_config_name)
        splits = [] if default is None else list(self._patterns(default)[1] or self.files(default))
        if name in splits:
            return self.files(default, name)[name]
        if name in self._configurations:
            return list(itertools.chain.from_iterable(self.files(name).values()))
        known = ", ".join(f"hub:{self.name}:{part}" for part in dict.fromkeys([*splits, *self.configurations]))
        raise ValueError(f"hub:{self.name}:{name} is neither a split nor a configuration; accepted: {known}")

    def _patterns(self, configuration: str) -> tuple[str, dict[str, list[str]]]:
        """A configuration's folder, and split -> patterns of its files; empty if the file names give the splits."""
        from datasets.data_files import sanitize_patterns

        about = self._configurations[configuration]
        inside, given = about.get("data_dir") or "", about.get("data_files")
        patterns = {} if given is None else self._asked(lambda: sanitize_patterns(given))
        for pattern in itertools.chain([inside], *patterns.values()):
            parts = PurePosixPath(pattern if isinstance(pattern, str) else "/")
            if parts.is_absolute() or ".." in parts.parts or ":" in str(parts):
                raise ValueError(f"hub:{self.name} names its file {pattern!r}; accepted: files of the data set itself")
        return inside, patterns

    def _read_configurations(self) -> Any:
        from datasets.utils.metadata import MetadataConfigs
        from huggingface_hub import DatasetCard

        if not self._local:
            self.folder = _card_folder(self.name)
        readme = self.folder / "README.md"
        found = MetadataConfigs.from_dataset_card_data(DatasetCard.load(readme).data) if readme.is_file() else {}
        return found or MetadataConfigs(default={})

    def _find(self, inside: str, patterns: dict[str, list[str]], formats: Sequence[str]) -> dict[str, list[Path]]:
        from datasets.data_files import DataFilesDict, get_data_patterns

        if not self._local:
            # "**/" also matches no folder at all, but not in the Hub's client.
            wanted = [pattern.replace("**/", "*") for pattern in itertools.chain.from_iterable(patterns.values())]
            wanted = wanted or [f"*{ending}" for ending in formats]
            _download(self.name, [str(PurePosixPath(inside, pattern)) for pattern in wanted], self.folder.name)
        base = str(self.folder / inside)
        kinds = None if patterns else list(formats)  # without patterns, skip files such as a licence
        found = DataFilesDict.from_patterns(patterns or get_data_patterns(base), base, allowed_extensions=kinds)
        return {str(split): [Path(path) for path in paths] for split, paths in found.items()}

    def _check_files(self, what: str, paths: Sequence[Path], formats: Sequence[str]) -> None:
        if not paths:
            raise ValueError(f"hub:{self.name} holds no files of {what}; accepted: at least one")
        for path in paths:
            if path.suffix not in formats:
                raise ValueError(
                    f"hub:{self.name} holds {path.relative_to(self.folder)}; accepted: files that end in "
                    f"{', '.join(formats)}, not compressed"
                )

    def _check_whole(self, paths: Sequence[Path]) -> None:
        shards: dict[tuple[str, str, str], set[int]] = {}
        for found in filter(None, (_SHARD.fullmatch(str(path)) for path in paths)):
            before, number, total, after = found.groups()
            shards.setdefault((before, total, after), set()).add(int(number))
        for (before, total, after), numbers in shards.items():
            if missing := set(range(int(total))) - numbers:
                first = f"{before}{min(missing):05d}-of-{total}{after}"
                raise ValueError(f"hub:{self.name} lacks {first}; accepted: all {int(total)} files")

    def _asked(self, ask: Callable[[], T]) -> T:
        try:
            return ask()
        except ImportError as error:
            raise ImportError(f"hub:{self.name} needs the extra 'train' ({error})") from error
        except Exception as error:  # of the Hub's client, the network, YAML and datasets
            found = f"{type(error).__name__}: {' '.join(str(error).split())}"
            raise ValueError(
                f"hub:{self.name} cannot be read ({found[:300]}); accepted: a data set of the Hub that can be reached "
                "or is in the cache, or a folder laid out as one"
            ) from error


@functools.cache  # a process reads one version of a data set, even if it changes on the Hub
def _card_folder(name: str) -> Path:
    return _download(name, ["README.md"])


def _download(name: str, patterns: Sequence[str], commit: str | None = None) -> Path:
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(name, repo_type="dataset", revision=commit, allow_patterns=list(patterns)))
