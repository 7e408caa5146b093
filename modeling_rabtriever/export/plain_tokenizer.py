"""A tokenizer with a prompt in it, which reads texts as the processor does, by its `tokenizer.json` alone."""

import json
import re
from typing import Any, NamedTuple

from tokenizers import Tokenizer

from ..processing_rabtriever import TokenIds

# A noncharacter of Unicode, which no text should hold: what names of tokens have instead of what texts could say.
_MARK = "\ufdd0"
_LEFT_OUT = {"normalizer": None, "post_processor": None, "truncation": None, "padding": None}


class Prompt(NamedTuple):
    """What stands around the texts of a tokenizer, and how it cuts and fills."""

    single: list[str | TokenIds]  # of one text: "A" is its place, ids stand around it
    pair: list[str | TokenIds]  # of two: "A" and "B"
    longest: int  # tokens in all
    cut_at: str  # "left" or "right"
    padding: int  # id that fills batches, on the right


class Seams(NamedTuple):
    """The ends of a template's words that may become part of the text's tokens, and so have to be text themselves."""

    head: str
    tail: str
    if_missing: bool = False  # no head before texts that begin with the blank of sentencepiece


def plain_tokenizer(given: Tokenizer, seams: Seams, prompt: Prompt) -> Tokenizer:
    """A tokenizer with the same vocabulary that strips a text, puts the seams beside it and the prompt's ids around it.

    Special tokens are read as plain text: those of the vocabulary lose their special reading, those beyond it a name
    that a text could hold. Other added tokens are words like any other, and keep their ids.

    Raises:
        ValueError: an added token would get another id, or lose its name.
    """
    content = json.loads(given.to_str())
    added = _added_tokens(content["added_tokens"], given.get_vocab(with_added_tokens=False))
    words = any(not token["special"] for token in added)
    bare = Tokenizer.from_str(json.dumps({**content, **_LEFT_OUT, "added_tokens": added}))
    moved = [token["content"] for token in added if bare.token_to_id(token["content"]) != token["id"]]
    if moved:
        raise ValueError(
            f"this tokenizer's added token {moved[0].strip(_MARK)!r} would get another id in an exported tokenizer; "
            "accepted: added tokens whose ids follow those of the vocabulary"
        )
    own = [content["normalizer"]] if content["normalizer"] else []
    around = [id_ for part in [*prompt.single, *prompt.pair] if not isinstance(part, str) for id_ in part]
    content |= {
        "added_tokens": added,
        "normalizer": {"type": "Sequence", "normalizers": [*_beside(seams, words), *own]},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": _pieces(prompt.single),
            "pair": _pieces(prompt.pair),
            "special_tokens": {
                _name(id_): {"id": _name(id_), "ids": [id_], "tokens": [bare.id_to_token(id_)]} for id_ in around
            },
        },
        "truncation": {
            "direction": prompt.cut_at.capitalize(),
            "max_length": prompt.longest,
            "strategy": "LongestFirst",
            "stride": 0,
        },
        "padding": {
            "strategy": "BatchLongest",
            "direction": "Right",  # plain positions from 0, as every engine counts them
            "pad_to_multiple_of": None,
            "pad_id": prompt.padding,
            "pad_type_id": 0,
            "pad_token": bare.id_to_token(prompt.padding),
        },
    }
    made = Tokenizer.from_str(json.dumps(content))
    lost = [token["content"] for token in added if made.normalizer.normalize_str(token["content"]) == ""]
    if lost:  # with a token without a name tokenizers never ends
        raise ValueError(
            f"this tokenizer's normalizer leaves nothing of its added token {lost[0].strip(_MARK)!r}; accepted: added "
            "tokens that it keeps"
        )
    return made


def _added_tokens(tokens: list[dict[str, Any]], vocabulary: dict[str, int]) -> list[dict[str, Any]]:
    kept = []
    for token in tokens:
        name = token["content"]
        if name in vocabulary:
            continue  # what the vocabulary's own rules make of it is compared with the processor like everything else
        if token["special"]:
            kept.append({**token, "content": _MARK + name, "normalized": False})
        else:
            # Matched in the whole text, after its normalization. Otherwise it would be cut into parts first, and each
            # part be stripped and get its own seams. The marks keep those off the token itself (`_beside`).
            kept.append({**token, "content": _MARK + name + _MARK, "normalized": True})
    return kept


def _beside(seams: Seams, words: bool) -> list[dict[str, Any]]:
    steps: list[dict[str, Any]] = [{"type": "Strip", "strip_left": True, "strip_right": True}]
    if seams.head:
        steps.append({"type": "Prepend", "prepend": seams.head})
    if seams.if_missing:
        steps.append(_replace(rf"\A{re.escape(seams.head)}▁", "▁"))
    if seams.tail:
        steps.append(_replace(r"\z", seams.tail))
    if words:
        steps.append(_replace(rf"\A{re.escape(seams.head)}{_MARK}", ""))
        steps.append(_replace(rf"{_MARK}{re.escape(seams.tail)}\z", ""))
    return steps


def _replace(pattern: str, content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": {"Regex": pattern}, "content": content}


def _pieces(parts: list[str | TokenIds]) -> list[dict[str, Any]]:
    pieces: list[dict[str, Any]] = []
    for part in parts:
        if isinstance(part, str):
            pieces.append({"Sequence": {"id": part, "type_id": 0}})
        else:
            pieces += [{"SpecialToken": {"id": _name(id_), "type_id": 0}} for id_ in part]
    return pieces


def _name(id_: int) -> str:
    return f"<prompt-{id_}>"
