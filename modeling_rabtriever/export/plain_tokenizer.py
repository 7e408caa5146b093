"""A tokenizer that contains the prompt, and gives the processor's ids from its `tokenizer.json` alone."""

import json
import re
from typing import Any, NamedTuple

from tokenizers import Tokenizer

from ..processing_rabtriever import TokenIds

# A Unicode noncharacter, which no text should hold. With it in its name, a token cannot match in a text.
_MARK = "\ufdd0"
_LEFT_OUT = {"normalizer": None, "post_processor": None, "truncation": None, "padding": None}


class Prompt(NamedTuple):
    """The ids around a tokenizer's texts, and how it truncates and pads."""

    single: list[str | TokenIds]  # for one text: "A" is its place, the ids go around it
    pair: list[str | TokenIds]  # for two texts: "A" and "B"
    longest: int  # tokens in total
    cut_at: str  # truncation side, "left" or "right"
    padding: int  # padding id, on the right


class Seams(NamedTuple):
    """The ends of a template's words that may merge with the text's tokens, so they must be text themselves."""

    head: str
    tail: str
    if_missing: bool = False  # no head before texts that begin with sentencepiece's space


def plain_tokenizer(given: Tokenizer, seams: Seams, prompt: Prompt) -> Tokenizer:
    """A tokenizer with the same vocabulary that strips a text, puts the seams beside it and the prompt's ids around it.

    Special tokens in a text are read as plain text: those in the vocabulary are no longer special, and those outside
    it get a name that no text holds. Other added tokens are ordinary words, and keep their ids.

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
    if lost:  # tokenizers hangs on a token with an empty name
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
            continue  # the vocabulary's own rules read it; the result is compared with the processor's like any text
        if token["special"]:
            kept.append({**token, "content": _MARK + name, "normalized": False})
        else:
            # It is matched in the whole text, after normalization. Otherwise the text would be split at the token
            # first, and each part would be stripped and get its own seams. The marks keep seams off the token itself
            # (`_beside`).
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
