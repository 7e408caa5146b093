"""Texts that test an export: every kind that is hard to tokenize, taken from the model's vocabulary."""

import unicodedata
from collections.abc import Iterable
from typing import Any, NamedTuple

from ..processing_rabtriever import BLANKS, RabtrieverProcessor

WORDS = (
    "I spilled my drink.",
    "two\nlines",
    "Query: 1, 2!?",
    "naïve 水 🙂",
    "(in brackets)",
    "42",
    "e\u0301 and \u0301e, \ufb01ne, \uac00 \u1100\u1161",
    "x\u200by\x00z\ufeff",
)
_EDGES = (*BLANKS, "\r\n", "\n\n", "  ", " \n ", "\t \r\n")
_LONGEST_WALL = 20_000  # tokens of over-long texts per tested seam, so that models with wide limits do not take minutes
_AFTER_SPACE = 3  # characters of a word tested after a space: such words are half the vocabulary
_COMPARED = 64  # texts whose vectors are compared


class Trials(NamedTuple):
    """The texts that test one side."""

    texts: list[str]  # for a comparison of token ids
    sample: list[str]  # one of each kind, for a comparison of vectors and scores


def trials_of(processor: RabtrieverProcessor, side: str) -> Trials:
    """Texts with whitespace at their edges, special tokens, every character that starts or ends a token of the
    vocabulary, every part of a token that would cross a seam between template and text, and texts at and beyond the
    limit.

    Args:
        processor: of the model.
        side: `"query"` or `"document"`.
    """
    document = side == "document"
    frame = processor._document_frame if document else processor._query_frame
    limit = processor.max_document_length if document else processor.max_query_length
    pieces = _pieces(processor.tokenizer.backend_tokenizer)
    edged = [f"{blank}some words{blank}" for blank in _EDGES]
    added = [text for token in processor.tokenizer.get_added_vocab() for text in _around(token)]
    starts, ends = _beside_seams(pieces, frame.head, frame.tail)
    names = processor.tokenizer.backend_tokenizer.get_vocab(with_added_tokens=False)  # with sentencepiece's spaces
    for character in dict.fromkeys(character for piece in [*pieces, *names] for character in (piece[0], piece[-1])):
        starts += [character, f"{character}a"]
        ends += [character, f"a{character}"]
    starts, ends = _usable(starts), _usable(ends)
    of_starts = _of_each_kind(starts, 0, _merging(processor, starts, frame.head, before=True))
    of_ends = _of_each_kind(ends, -1, _merging(processor, ends, frame.tail, before=False))
    room = max(4, _LONGEST_WALL // limit)
    long = _over_long(limit, of_starts[:room], of_ends[:room])
    texts = _usable([*WORDS, *edged, *added, *starts, *ends, *long])
    kinds = [*WORDS, *edged[::4], *added[::7], *long[:: len(long) // 3], long[-1], *of_ends[:16], *of_starts[:16]]
    return Trials(texts, _usable(kinds)[:_COMPARED])


def _pieces(backend: Any) -> list[str]:
    """The text, as inside a longer text, of every token of the vocabulary that is made of whole characters."""
    before = list(backend.encode("a", add_special_tokens=False).ids)
    ids = list(backend.get_vocab(with_added_tokens=False).values())
    start = len(backend.decode(before, skip_special_tokens=False))
    found = backend.decode_batch([[*before, id_] for id_ in ids], skip_special_tokens=False)
    pieces = dict.fromkeys(text[start:] for text in found)
    return [piece for piece in pieces if piece and "\ufffd" not in piece]


def _beside_seams(pieces: Iterable[str], head: str, tail: str) -> tuple[list[str], list[str]]:
    starts, ends = [], []
    for piece in pieces:
        for place in range(1, len(piece)):
            before, after = piece[:place], piece[place:]
            if head.endswith(before):
                starts.append(after[:_AFTER_SPACE] if before.isspace() else after)
            if tail.startswith(after):
                ends.append(before)
    return starts, ends


def _around(token: str) -> tuple[str, ...]:
    return token, f"{token} a", f"a {token}", f"a {token} b", f"a{token}b"


def _usable(texts: Iterable[str]) -> list[str]:
    return [text for text in dict.fromkeys(texts) if text.strip()]


def _merging(processor: RabtrieverProcessor, texts: list[str], words: str, before: bool) -> set[str]:
    """The texts that share a token with the template's words beside them."""
    if not words:
        return set()
    alone = processor._texts.ids([words])[0]
    joined = processor._texts.ids([words + text if before else text + words for text in texts])
    apart = [alone + ids if before else ids + alone for ids in processor._texts.ids(texts)]
    return {text for text, ids, other in zip(texts, joined, apart, strict=True) if ids != other}


def _of_each_kind(texts: list[str], edge: int, merging: set[str]) -> list[str]:
    """One text per kind of character at its edge and per length up to 3, then all others that merge."""
    kinds: dict[Any, str] = {}
    for text in sorted(texts, key=lambda text: text not in merging):
        kinds.setdefault((text in merging, unicodedata.category(text.strip(BLANKS)[edge]), min(len(text), 3)), text)
    rest = [text for text in texts if text in merging]
    return list(dict.fromkeys([*kinds.values(), *rest]))


def _over_long(limit: int, starts: list[str], ends: list[str]) -> list[str]:
    """Texts of about `limit` one-token words and more, with these at their edges."""
    lengths = [length for length in range(limit - 3, limit + 4) if length > 0]
    walls = [" ".join(["a"] * length) for length in lengths]
    found = [f"{wall}{end}" for end in ends for wall in walls]
    found += [f"{start} {wall}" for start in starts for wall in walls]
    return [*walls, *found, "🙂" * limit, "x" * (9 * limit), " ".join([*WORDS] * limit)]
