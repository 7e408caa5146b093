"""The teacher as a `sentence_transformers.CrossEncoder`: a plain language model, a chat template, stock modules."""

import copy
import json
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import CrossEncoder
from sentence_transformers.base.modules import Transformer
from sentence_transformers.cross_encoder.modules import LogitScore
from transformers import PreTrainedTokenizerBase

from ..modeling_generative_reranker import GenerativeRerankerModel
from ..processing_rabtriever import BLANKS, RabtrieverProcessor

CHARACTERS_PER_TOKEN = 8
# What the export is tried on before it is handed over: punctuation and blanks at the edges, more than ASCII.
_TRIALS = (
    ("I spilled my drink.", "Bring the sponge."),
    ("two\nlines\n", "  blanks around  "),
    ("Query: 1, 2!?", "naïve 水 🙂"),
)


def export_cross_encoder(
    reranker: GenerativeRerankerModel, folder: str | Path, document_characters: int | None = None
) -> Path:
    """Writes a folder that `sentence_transformers.CrossEncoder(folder)` loads without `trust_remote_code`.

    Its `predict` and `rank` give the log-odds of `GenerativeRerankerModel.predict`. The prompt, document first, is the
    chat template. sentence-transformers cuts prompts at their end, where the query is; here the template cuts an
    over-long document, in characters, because a template cannot count tokens: beyond `max_document_length` tokens the
    scores differ from ours, but the query and the instruction are always read (left truncation sees to the rest).
    Special tokens inside a text, which the processor reads as plain text, get a blank behind their first character.

    Args:
        reranker: the teacher, with its processor.
        folder: where to; created if missing.
        document_characters: characters of a document that are read; default: 8 per token of `max_document_length`.

    Raises:
        ValueError: `document_characters` is no whole number of at least 1, or the tokenizer reads the prompt as one
            string otherwise than the processor reads prefix and suffix, so that scores would differ.
    """
    processor = reranker.processor
    limit = document_characters
    if limit is None:
        limit = CHARACTERS_PER_TOKEN * processor.max_document_length
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
        raise ValueError(f"document_characters is {document_characters!r}; accepted: a whole number of at least 1")
    folder = Path(folder)
    reranker.backbone.save_pretrained(folder)
    tokenizer = plain_tokenizer(processor)
    tokenizer.chat_template = _chat_template(processor, limit)
    # Left: should a prompt still be too long for the window, its beginning is lost, not the query.
    tokenizer.padding_side = tokenizer.truncation_side = "left"
    tokenizer.init_kwargs["truncation_side"] = "left"  # what save_pretrained writes
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.convert_ids_to_tokens(0)
    if reranker.config.window is not None:
        tokenizer.model_max_length = reranker.config.window
    tokenizer.save_pretrained(folder)
    module = Transformer(
        str(folder), transformer_task="text-generation", model_kwargs={"dtype": reranker.backbone.dtype}
    )
    answers = LogitScore(processor.true_token_id, processor.false_token_id)
    encoder = CrossEncoder(modules=[module, answers], activation_fn=torch.nn.Identity(), device="cpu")
    _check_prompts(encoder, processor)
    encoder.save_pretrained(str(folder))
    return folder


def plain_tokenizer(processor: RabtrieverProcessor) -> PreTrainedTokenizerBase:
    """A copy of the processor's tokenizer that says nothing of the processor when it is saved.

    A tokenizer that was saved with a reranker, or loaded from its folder, names our processor's class; a folder without
    the processor's own file could not be loaded then.
    """
    tokenizer = copy.deepcopy(processor.tokenizer)
    tokenizer._set_processor_class(None)
    for name in ("processor_class", "auto_map"):
        tokenizer.init_kwargs.pop(name, None)
    tokenizer._auto_map = None
    return tokenizer


def _chat_template(processor: RabtrieverProcessor, limit: int) -> str:
    document_head, document_tail = processor.document_template.split("{document}")
    query_head, query_tail = processor.query_template.split("{query}")
    query_tail = query_tail.replace("{instruction}", processor.instruction)
    tokenizer = processor.tokenizer
    if processor.document_ids("a")[0][0] == tokenizer.bos_token_id:
        document_head = tokenizer.bos_token + document_head
    special = {token: f"{token[0]} {token[1:]}" for token in tokenizer.get_added_vocab() if len(token) > 1}

    def content(role: str) -> str:
        return f"(messages | selectattr('role', 'eq', '{role}') | map(attribute='content') | first | trim(blanks))"

    return (
        f"{{%- set special = {_literal(special)} -%}}"
        f"{{%- set blanks = {_literal(BLANKS)} -%}}"
        f"{{%- set text = namespace(document={content('document')}[:{limit}], query={content('query')}) -%}}"
        "{%- for token, plain in special.items() -%}"
        "{%- set text.document = text.document | replace(token, plain) -%}"
        "{%- set text.query = text.query | replace(token, plain) -%}"
        "{%- endfor -%}"
        f"{{{{ {_literal(document_head)} + text.document + {_literal(document_tail)} + "
        f"{_literal(query_head)} + text.query + {_literal(query_tail)} }}}}"
    )


def _literal(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _check_prompts(encoder: Any, processor: RabtrieverProcessor) -> None:
    longest = 10 * sum(map(len, _TRIALS[0]))
    uncut = processor.replace(max_document_length=longest, max_query_length=longest)
    for query, document in _TRIALS:
        expected = uncut.document_ids(document)[0] + uncut.query_ids(query)[0]
        found = encoder.preprocess([(query, document)])["input_ids"][0].tolist()
        if found != expected:
            raise ValueError(
                f"the tokenizer reads the exported prompt of {(query, document)!r} as {found}, the processor as "
                f"{expected}; accepted: a prompt that reads the same as one string (a line break or a special token "
                "between document and query helps). This model can be served through AutoModel"
            )
