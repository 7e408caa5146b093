"""Licences in a card, of weights, base model and training data; keeps metadata and text consistent."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from huggingface_hub import ModelCard

# What is licensed -> key in the metadata of a card, name in its table.
KEYS = {"model": "license", "base_model": "base_model_license", "data": "data_license"}
_WORDS = {"model": "these weights", "base_model": "base model", "data": "training data"}
FROM_SCRATCH = "not-applicable"  # base_model_license of weights that were trained from scratch
HELP = (
    f"Licences, each [WHAT=]LICENCE. WHAT is one of {', '.join(KEYS)} (default: model); LICENCE is an identifier of "
    f"the Hub, such as apache-2.0 or cc-by-nc-4.0; base_model={FROM_SCRATCH} for weights trained from scratch."
)
_UNKNOWN = ("unknown", "none", "unlicensed", "cc")  # cc: one of a family
_OTHER = "other"  # on the Hub: terms of its own, which the card has to tell
_NON_COMMERCIAL = {"nc", "noncommercial", "research", "amlr"}  # parts of identifiers of the Hub
_IDENTIFIER = re.compile(r"[a-z0-9][a-z0-9.+-]*")
_TABLE = re.compile(r"(<!-- licences -->\n).*?(<!-- /licences -->)", re.DOTALL)


def parse_licenses(given: Sequence[str]) -> dict[str, str]:
    """`["apache-2.0", "data=cc-by-4.0"]` -> `{"model": "apache-2.0", "data": "cc-by-4.0"}`.

    Raises:
        ValueError: an item is malformed, or two items are for the same thing.
    """
    found: dict[str, str] = {}
    for item in given:
        what, equals, name = item.rpartition("=")
        what = what if equals else "model"
        if what not in KEYS or not _IDENTIFIER.fullmatch(name) or what in found:
            raise ValueError(
                f"license {item!r} is not usable; accepted: [WHAT=]LICENCE, WHAT one of {', '.join(KEYS)} and each at "
                "most once, LICENCE a lower-case identifier of the Hub, such as apache-2.0"
            )
        found[what] = name
    return found


def check_licenses(metadata: Mapping[str, Any]) -> None:
    """Checks that the licences in a card's metadata are known and that the model's keeps the terms of the others.

    Raises:
        ValueError: a licence is no identifier, unknown, or forbids derived works; or it is non-commercial, or has terms
            of its own, although the model's is not or has not.
    """
    for what, key in KEYS.items():
        name, of = metadata[key], f"the licence of the {_WORDS[what]}"
        if not isinstance(name, str) or not _IDENTIFIER.fullmatch(name):
            raise ValueError(
                f"{of} is {name!r} ({key}); accepted: a lower-case identifier of the Hub, such as apache-2.0"
            )
        if name in _UNKNOWN:
            raise ValueError(
                f"{of} is {name!r} ({key}); accepted: one that is known. What may only be measured must not be passed "
                "on"
            )
        if what != "model" and "nd" in name.split("-"):
            raise ValueError(f"{of} is {name}, which forbids derived works; accepted: another")
    weights = metadata[KEYS["model"]]
    for what in ("base_model", "data"):
        name, of = metadata[KEYS[what]], f"the licence of the {_WORDS[what]}"
        if _is_non_commercial(name) and not _is_non_commercial(weights):
            raise ValueError(
                f"{of} is {name}, which is non-commercial, that of these weights is {weights}; accepted: --license "
                "model=cc-by-nc-4.0 or another non-commercial licence"
            )
        if name == _OTHER != weights:
            raise ValueError(
                f"{of} is {name}, whose terms only its text tells, that of these weights is {weights}; accepted: "
                f"--license model={_OTHER}, or the identifier of what its text says"
            )


def _is_non_commercial(name: str) -> bool:
    return not _NON_COMMERCIAL.isdisjoint(name.split("-"))


def license_table(metadata: Mapping[str, Any]) -> str:
    """The licence table in the text of a card, from its metadata."""
    rows = [f"| {words} | {metadata.get(KEYS[what]) or 'not stated'} |" for what, words in _WORDS.items()]
    return "\n".join(["| of | licence |", "|---|---|", *rows])


def fill_licenses(card: ModelCard, licenses: Mapping[str, str]) -> None:
    """Puts licences into the metadata and the table of a card; keeps those that are not given.

    Raises:
        ValueError: the card has no place for the table, because another program wrote it.
    """
    if not _TABLE.search(card.text):
        raise ValueError("the card has no <!-- licences --> table; accepted: a card that rabtriever card wrote")
    for what, name in licenses.items():
        setattr(card.data, KEYS[what], name)
    table = license_table(card.data.to_dict())
    card.text = _TABLE.sub(lambda match: f"{match[1]}\n{table}\n\n{match[2]}", card.text)
