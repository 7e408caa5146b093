"""Licences in a card, of weights, base model and training data; keeps metadata and text consistent."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from huggingface_hub import ModelCard

from .hub_licenses import HUB_LICENSES

# What is licensed -> key in the metadata of a card, name in its table.
KEYS = {"model": "license", "base_model": "base_model_license", "data": "data_license"}
_WORDS = {"model": "these weights", "base_model": "base model", "data": "training data"}
HUB_LIST = "https://huggingface.co/docs/hub/repositories-licenses"
FROM_SCRATCH = "not-applicable"  # base_model_license of weights that were trained from scratch
HELP = (
    f"Licences, each [WHAT=]LICENCE. WHAT is one of {', '.join(KEYS)} (default: model); LICENCE is an identifier of "
    f"the Hub, such as apache-2.0 or cc-by-nc-4.0, or other:NAME for terms that the Hub does not list; "
    f"base_model={FROM_SCRATCH} for weights trained from scratch."
)
_UNKNOWN = ("unknown", "none", "unlicensed", "cc")  # cc: one of a family
_OTHER = "other"  # on the Hub: terms of its own, which the card has to tell
_NON_COMMERCIAL = {"nc", "noncommercial", "research", "amlr", "deepfloyd"}  # parts of identifiers of the Hub
_IDENTIFIER = re.compile(r"[a-z0-9][a-z0-9.+-]*")
_TABLE = re.compile(r"(<!-- licences -->\n).*?(<!-- /licences -->)", re.DOTALL)


def parse_licenses(given: Sequence[str]) -> dict[str, str]:
    """`["apache-2.0", "data=cc-by-4.0"]` -> `{"model": "apache-2.0", "data": "cc-by-4.0"}`.

    Raises:
        ValueError: an item is malformed or no identifier that the Hub lists, or two items are for the same thing.
    """
    found: dict[str, str] = {}
    for item in given:
        what, equals, name = item.rpartition("=")
        what = what if equals else "model"
        if what not in KEYS or not _is_usable(what, name) or what in found:
            raise ValueError(
                f"license {item!r} is not usable; accepted: [WHAT=]LICENCE, WHAT one of {', '.join(KEYS)} and each at "
                f"most once, LICENCE a lower-case identifier of {HUB_LIST}, such as apache-2.0, or other:NAME"
            )
        found[what] = name
    return found


def license_fields(licenses: Mapping[str, str]) -> dict[str, str | None]:
    """Fields of a card's metadata: `{"model": "other:acme-1.0"}` -> the Hub's `license` and `license_name`."""
    fields: dict[str, str | None] = {}
    for what, given in licenses.items():
        name, _, own = given.partition(":")
        fields |= {KEYS[what]: name, _name_key(what): own or None}
    return fields


def _name_key(what: str) -> str:
    return f"{KEYS[what]}_name"


def _is_usable(what: str, name: str) -> bool:
    own = name.removeprefix(f"{_OTHER}:")
    if own != name:
        return _IDENTIFIER.fullmatch(own) is not None
    return name in HUB_LICENSES or (what == "base_model" and name == FROM_SCRATCH)


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
        if not _is_usable(what, name):
            raise ValueError(
                f"{of} is {name!r} ({key}), which the Hub does not list; accepted: one of {HUB_LIST}, or {_OTHER}:NAME"
            )
        if what != "model" and "nd" in name.split("-"):
            raise ValueError(f"{of} is {name}, which forbids derived works; accepted: another")
    weights = metadata[KEYS["model"]]
    if weights == _OTHER and not metadata.get(_name_key("model")):
        raise ValueError(
            f"the licence of {_WORDS['model']} is {_OTHER} without a {_name_key('model')}; accepted: --license "
            f"{_OTHER}:NAME, and its text in a file LICENSE"
        )
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
    rows = [f"| {words} | {_stated(metadata, what)} |" for what, words in _WORDS.items()]
    return "\n".join(["| of | licence |", "|---|---|", *rows])


def _stated(metadata: Mapping[str, Any], what: str) -> str:
    own = metadata.get(_name_key(what))
    return f"{metadata.get(KEYS[what]) or 'not stated'}{f' ({own})' if own else ''}"


def fill_licenses(card: ModelCard, licenses: Mapping[str, str]) -> None:
    """Puts licences into the metadata and the table of a card; keeps those that are not given.

    Raises:
        ValueError: the card has no place for the table, because another program wrote it.
    """
    if not _TABLE.search(card.text):
        raise ValueError("the card has no <!-- licences --> table; accepted: a card that rabtriever card wrote")
    for key, value in license_fields(licenses).items():
        setattr(card.data, key, value)
    table = license_table(card.data.to_dict())
    card.text = _TABLE.sub(lambda match: f"{match[1]}\n{table}\n\n{match[2]}", card.text)
