"""Puts the prompt into a plain tokenizer, so that no engine can forget it: plain text in, the prompt's ids out."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tokenizers import Tokenizer
from transformers import AutoTokenizer

from ..errors import refusing
from ..files import write_json, write_text
from ..processing_rabtriever import RabtrieverProcessor, TokenIds
from .plain_tokenizer import Prompt, Seams, plain_tokenizer
from .trials import Trials, trials_of

SIDES = ("query", "document")
_CHUNK = 2_000  # inputs compared at once
_UNLIMITED = 10**9
_ADVICE = (
    "accepted: a template with a space or a special token of the model right before the text and a special token right "
    "after it, such as 'Document: {document}<|im_end|>\\n'; or this model through AutoModel"
)
_ADVICE_FOR_PAIRS = (
    "accepted for a cross-encoder: templates with the same space or special token of the model right before both "
    "texts, and a special token right after both, such as 'Document: {document}<|im_end|>\\n' and "
    "'Query: {query}<|im_end|>\\n{instruction}'; or this model through AutoModel"
)


class _Wanted(NamedTuple):
    """Inputs of a tokenizer, texts or pairs `(query, document)`, and the processor's ids for each."""

    inputs: list[Any]
    ids: list[TokenIds]


class _Misread(NamedTuple):
    """The first input for which a tokenizer gives other ids."""

    place: int
    ids: TokenIds


def save_tower_tokenizer(processor: RabtrieverProcessor, side: str, padding: int, folder: Path) -> Trials:
    """Writes `tokenizer.json` and its settings: a plain text becomes the ids of the processor's prompt for one side.

    The template's words go into the post-processor, as ids around every text, so truncation cannot remove them. Parts
    that may merge with the text at its edges (the space of `"Query: "`, or with some vocabularies the line break after
    a full stop) go into the normalizer, as text. Special tokens inside a text stay text. Over-long texts are cut like
    the processor cuts them.

    Args:
        processor: of the model.
        side: `"query"` or `"document"`.
        padding: padding id, on the right.
        folder: with the backbone's `config.json`, which decides how `AutoTokenizer` reads the files.

    Returns:
        The texts it was tested on.

    Raises:
        ValueError: `side` is not one of these, or a text gets other ids than from the processor, either from
            `tokenizer.json` by itself or through `AutoTokenizer`. The message names the text.
    """
    if side not in SIDES:
        raise ValueError(f"side is {side!r}; accepted: {', '.join(SIDES)}")
    trials = trials_of(processor, side)
    if side == "document":
        frame, longest, cut_at = processor._document_frame, processor.max_prefix_length, "right"
    else:
        frame, longest, cut_at = processor._query_frame, processor.max_suffix_length, processor.query_truncation_side
    parts = _around(frame, "A")
    prompt = Prompt(parts, [*parts, "B"], longest, cut_at, padding)
    wanted = _Wanted(trials.texts, _read(processor, side, trials.texts))
    _save(processor, [frame], prompt, wanted, (f"{side}_template", _ADVICE), folder)
    return trials


def save_pair_tokenizer(processor: RabtrieverProcessor, padding: int, folder: Path) -> dict[str, list[str]]:
    """Like `save_tower_tokenizer`, for pairs: `(query, document)` becomes the ids of the whole prompt, document first.

    A tokenizer has one limit for both texts, so over-long texts are not tested: a prompt is cut to `max_pair_length`
    tokens, the longer text first.

    Returns:
        Side -> texts within its limit, one of each kind.

    Raises:
        ValueError: a text within its limit gets other ids than from the processor. The message names it.
    """
    within, samples = {}, {}
    for side in SIDES:
        trials = trials_of(processor, side)
        within[side] = _uncut(processor, side, trials.texts)
        samples[side] = _uncut(processor, side, trials.sample)
    query, document = within["query"][0], within["document"][0]
    inputs = [(text, document) for text in within["query"]] + [(query, text) for text in within["document"]]
    ids = [processor.document_ids(document)[0] + own for own in processor.query_ids(within["query"])]
    ids += [own + processor.query_ids(query)[0] for own in processor.document_ids(within["document"])]
    frames = [processor._document_frame, processor._query_frame]
    pair = [*_around(frames[0], "B"), *_around(frames[1], "A")]
    prompt = Prompt(["A"], pair, processor.max_pair_length, processor.query_truncation_side, padding)
    refusal = "document_template and query_template", _ADVICE_FOR_PAIRS
    _save(processor, frames, prompt, _Wanted(inputs, ids), refusal, folder)
    return samples


def padding_id(processor: RabtrieverProcessor, rows: int) -> int:
    """A padding id that no prompt ends with: classifiers read the state of the last token with another id.

    Args:
        processor: of the model.
        rows: of the embeddings.

    Raises:
        ValueError: prompts end in the query's own tokens, and the tokenizer has no special token.
    """
    tokenizer, frame = processor.tokenizer, processor._query_frame
    fixed = [*frame.tail_ids, *frame.end][-1:]
    special = [id_ for id_, token in tokenizer.added_tokens_decoder.items() if token.special]
    known = [tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.bos_token_id, *special]
    if fixed:  # any other id will do
        known += range(rows)
    found = next((id_ for id_ in known if id_ is not None and id_ < rows and id_ not in fixed), None)
    if found is None:
        raise ValueError(
            "this tokenizer has no token for padding; accepted: a tokenizer with a special token (pad_token)"
        )
    return int(found)


def _around(frame: Any, place: str) -> list[str | TokenIds]:
    return [frame.start + frame.head_ids, place, frame.tail_ids + frame.end]


def _read(processor: RabtrieverProcessor, side: str, texts: list[str]) -> list[TokenIds]:
    return processor.query_ids(texts) if side == "query" else processor.document_ids(texts)


def _uncut(processor: RabtrieverProcessor, side: str, texts: list[str]) -> list[str]:
    unlimited = processor.replace(max_document_length=_UNLIMITED, max_query_length=_UNLIMITED)
    read = zip(texts, _read(processor, side, texts), _read(unlimited, side, texts), strict=True)
    return [text for text, ids, whole in read if ids == whole]


def _save(
    processor: RabtrieverProcessor,
    frames: list[Any],
    prompt: Prompt,
    wanted: _Wanted,
    refusal: tuple[str, str],  # what is at fault, and what is accepted
    folder: Path,
) -> None:
    made = None
    nearest = _Misread(-1, [])
    with refusing("this model's prompt cannot be put into a tokenizer", "a tokenizer that transformers saves"):
        for seams in _seams(frames):
            made = plain_tokenizer(processor.tokenizer.backend_tokenizer, seams, prompt)
            misread = _misread(wanted, _raw(made))
            if misread is None:
                break
            nearest = max(nearest, misread)
        else:
            _refuse(refusal, "every stock tokenizer", wanted, nearest)
        assert made is not None
        write_text(folder / "tokenizer.json", made.to_str(pretty=True))
        settings = {
            "tokenizer_class": "PreTrainedTokenizerFast",  # transformers 4 knows this name too
            "model_max_length": prompt.longest,
            "padding_side": "right",
            "truncation_side": prompt.cut_at,
            "pad_token": made.id_to_token(prompt.padding),
            "split_special_tokens": True,
            "clean_up_tokenization_spaces": False,
            "model_input_names": ["input_ids", "attention_mask"],
        }
        write_json(folder / "tokenizer_config.json", settings)
        loaded: Any = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)

        def read_loaded(inputs: list[Any]) -> list[TokenIds]:
            ids: list[TokenIds] = loaded(inputs, truncation=True)["input_ids"]
            return ids

        written = _raw(Tokenizer.from_file(str(folder / "tokenizer.json")))
        for reader, read in (("tokenizers", written), (f"AutoTokenizer ({type(loaded).__name__})", read_loaded)):
            misread = _misread(wanted, read)
            if misread is not None:
                _refuse(refusal, reader, wanted, misread)
        if loaded.pad_token_id != prompt.padding:
            raise RuntimeError(f"AutoTokenizer pads with {loaded.pad_token_id}, not {prompt.padding}")


def _seams(frames: Sequence[Any]) -> Iterator[Seams]:
    """Ways to divide templates, the least text first. Words stay ids, so truncation cannot remove them."""
    head, tail = frames[0].head, frames[0].tail
    heads = [head[place:] for place in range(len(head), -1, -1) if not any(map(str.isalnum, head[place:]))]
    tails = [tail[:place] for place in range(len(tail) + 1) if not any(map(str.isalnum, tail[:place]))]
    every = [Seams(*both) for both in itertools.product(heads, tails)]
    for seams in sorted(every, key=lambda seams: len(seams.head) + len(seams.tail)):
        if all(frame.head.endswith(seams.head) and frame.tail.startswith(seams.tail) for frame in frames):
            yield seams
    # Tokenizers that put a space before every text do not put one if the text had a space that was stripped.
    yield from (Seams(" ", tail, if_missing=True) for tail in tails if all(f.tail.startswith(tail) for f in frames))


def _raw(tokenizer: Tokenizer) -> Callable[[list[Any]], list[TokenIds]]:
    def read(inputs: list[Any]) -> list[TokenIds]:
        rows = tokenizer.encode_batch(inputs)
        return [[id_ for id_, real in zip(row.ids, row.attention_mask, strict=True) if real] for row in rows]

    return read


def _misread(wanted: _Wanted, read: Callable[[list[Any]], list[TokenIds]]) -> _Misread | None:
    for start in range(0, len(wanted.inputs), _CHUNK):
        found = read(wanted.inputs[start : start + _CHUNK])
        for place, ids in enumerate(found, start):
            if ids != wanted.ids[place]:
                return _Misread(place, ids)
    return None


def _refuse(refusal: tuple[str, str], reader: str, wanted: _Wanted, misread: _Misread) -> None:
    given, ids = wanted.inputs[misread.place], wanted.ids[misread.place]
    differing = (place for place, both in enumerate(zip(ids, misread.ids, strict=False)) if both[0] != both[1])
    place = next(differing, min(len(ids), len(misread.ids)))
    shown = slice(max(place - 2, 0), place + 6)
    name, accepted = refusal
    raise ValueError(
        f"{name}: {reader} would read {given!r:.200} as {misread.ids[shown]} from token {shown.start} on, the model as "
        f"{ids[shown]}; {accepted}"
    )
