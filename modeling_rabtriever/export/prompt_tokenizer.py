"""The prompt as part of a plain tokenizer, so that no engine can forget it: a bare text in, the prompt's ids out."""

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
_CHUNK = 2_000  # inputs that are compared at once
_ENDLESS = 10**9
_ADVICE = (
    "accepted: a template with a blank or a special token of the model right before the text and a special token right "
    "behind it, such as 'Document: {document}<|im_end|>\\n'; or this model through AutoModel"
)
_ADVICE_FOR_PAIRS = (
    "accepted for a cross-encoder: templates that have the same sign right before both texts, a blank or a special "
    "token of the model, and a special token right behind both, such as 'Document: {document}<|im_end|>\\n' and "
    "'Query: {query}<|im_end|>\\n{instruction}'; or this model through AutoModel"
)


class _Wanted(NamedTuple):
    """Inputs of a tokenizer, texts or pairs `(query, document)`, and what the processor makes of each."""

    inputs: list[Any]
    ids: list[TokenIds]


class _Misread(NamedTuple):
    """The first input that a tokenizer reads otherwise."""

    place: int
    ids: TokenIds


def save_tower_tokenizer(processor: RabtrieverProcessor, side: str, padding: int, folder: Path) -> Trials:
    """Writes `tokenizer.json` and its settings: a bare text becomes the ids of the processor's prompt of one side.

    The template's words go into the post-processor, as ids around every text, where truncation does not reach them.
    What may merge with the text at its edges (the blank of `"Query: "`; with some vocabularies the line break behind a
    full stop) goes into the normalizer, as text. Special tokens inside a text stay text. Over-long texts are cut where
    the processor cuts them.

    Args:
        processor: of the model.
        side: `"query"` or `"document"`.
        padding: id that fills batches, on the right.
        folder: where the backbone's `config.json` is, which decides how `AutoTokenizer` reads the files.

    Returns:
        What it was tried on.

    Raises:
        ValueError: `side` is another one, or a text is read otherwise than by the processor, from `tokenizer.json` by
            itself or through `AutoTokenizer`; the message names the text.
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
    """As `save_tower_tokenizer`, for pairs: `(query, document)` becomes the ids of the whole prompt, document first.

    A tokenizer has one limit for both texts, so over-long ones are not tried: a prompt is cut at `max_pair_length`
    tokens, the longer text first.

    Returns:
        By side, texts within its limit, one of each kind.

    Raises:
        ValueError: a text within its limit is read otherwise than by the processor; the message names it.
    """
    within, samples = {}, {}
    for side in SIDES:
        trials = trials_of(processor, side)
        within[side], samples[side] = (_uncut(processor, side, texts) for texts in trials)
    query, document = (within[side][0] for side in SIDES)
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
    """An id to fill batches with. No prompt ends with it: classifiers look for the last token that is another one.

    Args:
        processor: of the model.
        rows: of the embeddings.

    Raises:
        ValueError: prompts end in the query's own tokens, and the tokenizer has no special token.
    """
    own, frame = processor.tokenizer, processor._query_frame
    fixed = [*frame.tail_ids, *frame.end][-1:]
    special = [id_ for id_, token in own.added_tokens_decoder.items() if token.special]
    known = [own.pad_token_id, own.eos_token_id, own.bos_token_id, *special, *(range(rows) if fixed else ())]
    found = next((id_ for id_ in known if id_ is not None and id_ < rows and id_ not in fixed), None)
    if found is None:
        raise ValueError(
            "this tokenizer has no token to fill batches with; accepted: a tokenizer with a special token (pad_token)"
        )
    return int(found)


def _around(frame: Any, place: str) -> list[str | TokenIds]:
    return [frame.start + frame.head_ids, place, frame.tail_ids + frame.end]


def _read(processor: RabtrieverProcessor, side: str, texts: list[str]) -> list[TokenIds]:
    return processor.query_ids(texts) if side == "query" else processor.document_ids(texts)


def _uncut(processor: RabtrieverProcessor, side: str, texts: list[str]) -> list[str]:
    endless = processor.replace(max_document_length=_ENDLESS, max_query_length=_ENDLESS)
    read = zip(texts, _read(processor, side, texts), _read(endless, side, texts), strict=True)
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
    with refusing("no tokenizer with this model's prompt in it can be made", "a tokenizer that transformers saves"):
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
            "tokenizer_class": "PreTrainedTokenizerFast",  # a name that transformers 4 knows as well
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
        readers = {
            "tokenizers": _raw(Tokenizer.from_file(str(folder / "tokenizer.json"))),
            f"AutoTokenizer ({type(loaded).__name__})": lambda inputs: loaded(inputs, truncation=True)["input_ids"],
        }
        for reader, read in readers.items():
            misread = _misread(wanted, read)
            if misread is not None:
                _refuse(refusal, reader, wanted, misread)
        if loaded.pad_token_id != prompt.padding:
            raise RuntimeError(f"AutoTokenizer fills batches with {loaded.pad_token_id}, not {prompt.padding}")


def _seams(frames: Sequence[Any]) -> Iterator[Seams]:
    """Ways to divide templates, the least text first. Words stay ids, where truncation cannot take them."""
    head, tail = frames[0].head, frames[0].tail
    heads = [head[place:] for place in range(len(head), -1, -1) if not any(map(str.isalnum, head[place:]))]
    tails = [tail[:place] for place in range(len(tail) + 1) if not any(map(str.isalnum, tail[:place]))]
    every = [Seams(*both) for both in itertools.product(heads, tails)]
    for seams in sorted(every, key=lambda seams: len(seams.head) + len(seams.tail)):
        if all(frame.head.endswith(seams.head) and frame.tail.startswith(seams.tail) for frame in frames):
            yield seams
    # Tokenizers that put a blank before every text put none where another one was stripped.
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
