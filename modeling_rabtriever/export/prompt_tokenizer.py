"""One side's prompt as part of a plain tokenizer, so that no engine can forget it."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from tokenizers import Regex, Tokenizer, normalizers, processors
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from ..processing_rabtriever import RabtrieverProcessor, TokenIds

SIDES = ("query", "document")
# What an export is tried on before it is handed over: endings that merge with what follows, more than ASCII.
TRIALS = (
    "I spilled my drink.",
    "two\nlines",
    "Query: 1, 2!?",
    "naïve 水 🙂",
    "(in brackets)",
    "42",
    "an <|endoftext|> or </s> inside",
)
_BLANKS = "  blanks around  "


class Division(NamedTuple):
    """The words around a text: `before` and `after` become ids, `head` and `tail` are text that may merge with it."""

    before: str
    head: str
    tail: str
    after: str


def save_prompt_tokenizer(processor: RabtrieverProcessor, side: str, folder: Path) -> str:
    """Saves a stock tokenizer that turns a bare text into the ids of the processor's prompt.

    The template's words go into the post-processor of `tokenizer.json`, as ids around every text, where truncation does
    not reach them. What merges with the text at its edges (the blank of `"Query: "`; with some tokenizers the line
    break behind a full stop) goes into the normalizer, as text. Some classes of transformers (`Qwen2Tokenizer`) put a
    normalizer of their own in its place; for them the blank is returned, to be put before every text.

    Args:
        processor: of the model.
        side: `"query"` or `"document"`.
        folder: where the backbone's `config.json` is, which decides how the tokenizer will be loaded.

    Returns:
        What sentence-transformers has to put before a text as its prompt: nothing, or a blank.

    Raises:
        ValueError: `side` is another one, or the prompt cannot be divided so that the tokens come out the same.
    """
    if side not in SIDES:
        raise ValueError(f"side is {side!r}; accepted: {', '.join(SIDES)}")
    uncut = processor.replace(max_document_length=10_000, max_query_length=10_000)
    read: Callable[[str], list[TokenIds]]
    read_cut: Callable[[str], list[TokenIds]]
    if side == "document":
        frame, limit, cut_at = processor._document_frame, processor.max_document_length, "right"
        read, read_cut = uncut.document_ids, processor.document_ids
    else:
        frame, limit, cut_at = processor._query_frame, processor.max_query_length, processor.query_truncation_side
        read, read_cut = uncut.query_ids, processor.query_ids
    divisions = [(found, True) for found in _divisions(frame.head, frame.tail)]
    head = frame.head.rstrip(" ")
    divisions.append((Division(head, frame.head[len(head) :], "", frame.tail), False))
    for division, in_normalizer in divisions:
        tokenizer = _assembled(processor, division if in_normalizer else division._replace(head=""), frame)
        prompt = "" if in_normalizer else division.head
        trials = (*TRIALS, _BLANKS) if in_normalizer else TRIALS
        if not _reads_alike(tokenizer, prompt, trials, read):
            continue
        tokenizer.model_max_length = frame.size + limit
        tokenizer.truncation_side = tokenizer.init_kwargs["truncation_side"] = cut_at
        tokenizer.save_pretrained(folder)
        loaded = AutoTokenizer.from_pretrained(folder)
        if _reads_alike(loaded, prompt, trials, read):
            _warn_of_cuts(loaded, prompt, limit, read_cut, side)
            return prompt
    raise ValueError(
        f"{side}_template: this tokenizer merges the template's words with the text ('.' and a line break, say), and "
        "no stock tokenizer does the same; accepted: a template with a special token of the model behind the text, "
        "such as 'Document: {document}<|im_end|>\\n'"
    )


def _reads_alike(tokenizer: Any, prompt: str, trials: tuple[str, ...], read: Callable[[str], list[TokenIds]]) -> bool:
    return all(tokenizer(prompt + text, verbose=False)["input_ids"] == read(text)[0] for text in trials)


def _warn_of_cuts(tokenizer: Any, prompt: str, limit: int, read: Callable[[str], list[TokenIds]], side: str) -> None:
    long = [" ".join([text] * limit) for text in TRIALS]
    if any(tokenizer(prompt + text, truncation=True)["input_ids"] != read(text)[0] for text in long):
        warnings.warn(
            f"of a {side} beyond {tokenizer.model_max_length} tokens the exported tokenizer drops the template's last "
            "line break too, and its vector is another one than the model's; shorter texts are read alike",
            stacklevel=3,
        )


def _divisions(head: str, tail: str) -> list[Division]:
    """Ways to divide the template, the least text first; words stay ids, where truncation cannot take them."""
    heads = [place for place in range(len(head), -1, -1) if not any(map(str.isalnum, head[place:]))]
    tails = [place for place in range(len(tail) + 1) if not any(map(str.isalnum, tail[:place]))]
    places = sorted(((h, t) for h in heads for t in tails), key=lambda found: len(head) - found[0] + found[1])
    return [Division(head[:h], head[h:], tail[:t], tail[t:]) for h, t in places]


def _assembled(processor: RabtrieverProcessor, division: Division, frame: Any) -> PreTrainedTokenizerFast:
    own = processor.tokenizer
    backend = Tokenizer.from_str(own.backend_tokenizer.to_str())
    backend.no_truncation()
    backend.no_padding()
    steps: list[Any] = [normalizers.Strip()] if division.head or division.tail else []
    if division.head:
        steps.append(normalizers.Prepend(division.head))
    if division.tail:
        steps.append(normalizers.Replace(Regex(r"\z"), division.tail))
    if steps:
        own_steps = [backend.normalizer] if backend.normalizer is not None else []
        backend.normalizer = normalizers.Sequence([*steps, *own_steps])
    before, after = (processor._texts.ids([words])[0] if words else [] for words in (division.before, division.after))
    backend.post_processor = _around(backend, frame.start + before, after + frame.end)
    filler = own.pad_token_id if own.pad_token_id is not None else own.eos_token_id or 0
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token=own.convert_ids_to_tokens(filler),
        eos_token=own.eos_token,
        padding_side="right",  # plain positions from 0, as every engine counts them
        split_special_tokens=True,  # special tokens inside a text are plain text
        clean_up_tokenization_spaces=False,
    )


def _around(backend: Tokenizer, before: TokenIds, after: TokenIds) -> processors.PostProcessor:
    pieces, special = ["$A"], []
    for name, ids in (("before", before), ("after", after)):
        if ids:
            mark = f"<prompt-{name}>"
            pieces.insert(0 if name == "before" else len(pieces), mark)
            special.append({"id": mark, "ids": ids, "tokens": [backend.id_to_token(id_) for id_ in ids]})
    return processors.TemplateProcessing(single=pieces, pair=[*pieces, "$B"], special_tokens=special)
