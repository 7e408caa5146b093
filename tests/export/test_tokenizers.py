"""What an exported tokenizer makes of a bare text is what the model reads, whatever the text and the tokenizer."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, normalizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast
from transformers.models.auto import tokenization_auto

from modeling_rabtriever import GenerativeRerankerModel, RabtrieverProcessor
from modeling_rabtriever.export import export_sentence_transformers, prompt_tokenizer
from modeling_rabtriever.export.prompt_tokenizer import padding_id, save_pair_tokenizer, save_tower_tokenizer
from modeling_rabtriever.export.trials import trials_of
from modeling_rabtriever.processing_rabtriever import BLANKS
from tests.conftest import rest_slow
from tests.modeling.students import student_with

from .conftest import KINDS

TEMPLATES: dict[str, dict[str, Any]] = {
    "default": {},
    "left": {"query_truncation_side": "left"},
    "special": {
        "document_template": "<T>{document}<F>\n",
        "query_template": "<T>{query}<F>\n{instruction}",
        "query_truncation_side": "left",
    },
}


def random_texts(processor: RabtrieverProcessor, count: int) -> list[str]:
    """Of words, signs, blanks and special tokens, shorter and longer than the limits."""
    rng = random.Random(0)
    signs = [*"abcxyz.,!?(){}[]'\"42éñ水🙂▁\u0301\u200b\x00", "there", " the ", "<T>", "<|endoftext|>", "</s>", "[SEP]"]
    pieces = [*signs, *BLANKS, "\r\n", " ", " ", " ", *processor.tokenizer.get_added_vocab()]
    texts = ["".join(rng.choices(pieces, k=rng.choice([1, 2, 3, 8, 40]))) for _ in range(count)]
    return [text for text in texts if text.strip()]


def raw(path: Path, inputs: list[Any]) -> list[list[int]]:
    """By `tokenizer.json` alone, with no option set."""
    rows = Tokenizer.from_file(str(path / "tokenizer.json")).encode_batch(inputs)
    return [[id_ for id_, real in zip(row.ids, row.attention_mask, strict=True) if real] for row in rows]


@pytest.mark.parametrize("templates", rest_slow(TEMPLATES))
@pytest.mark.parametrize("kind", KINDS)
def test_towers_read_any_text_as_the_model_does(
    tokenizers: dict[str, Any], kind: str, templates: str, tmp_path: Path
) -> None:
    limits = {"max_document_length": 9, "max_query_length": 7, "instruction": "Relevant:"}
    processor = RabtrieverProcessor(tokenizers[kind], **limits, **TEMPLATES[templates])
    texts = random_texts(processor, 300)
    for side, read in (("document", processor.document_ids), ("query", processor.query_ids)):
        folder = tmp_path / side
        folder.mkdir()
        save_tower_tokenizer(processor, side, padding_id(processor, len(processor.tokenizer)), folder)
        assert raw(folder, texts) == read(texts)
        assert AutoTokenizer.from_pretrained(folder)(texts, truncation=True)["input_ids"] == read(texts)


@pytest.mark.parametrize("templates", rest_slow(TEMPLATES))
@pytest.mark.parametrize("kind", KINDS)
def test_pairs_within_the_limits_are_read_as_by_the_model(
    tokenizers: dict[str, Any], kind: str, templates: str, tmp_path: Path
) -> None:
    processor = RabtrieverProcessor(tokenizers[kind], instruction="Relevant:", **TEMPLATES[templates])
    save_pair_tokenizer(processor, padding_id(processor, len(processor.tokenizer)), tmp_path)
    texts = random_texts(processor, 300)
    limit = processor.max_prefix_length
    texts = [
        text for text in texts if max(len(processor.query_ids(text)[0]), len(processor.document_ids(text)[0])) < limit
    ]
    assert len(texts) > 200
    pairs = list(zip(texts, reversed(texts), strict=True))
    expected = [processor.document_ids(document)[0] + processor.query_ids(query)[0] for query, document in pairs]
    assert raw(tmp_path, pairs) == expected
    assert AutoTokenizer.from_pretrained(tmp_path)(pairs, truncation=True)["input_ids"] == expected


def test_what_merges_is_looked_for_in_the_vocabulary(tokenizers: dict[str, Any]) -> None:
    processor = RabtrieverProcessor(tokenizers["qwen2"], instruction="Relevant:", max_document_length=9)
    read = processor._texts.ids
    merging = [end for end in (".", "}", "...") if read([f"{end}\n"])[0] != read([end])[0] + read(["\n"])[0]]
    assert merging  # in this vocabulary; the template was among the lines it was trained on
    tried = trials_of(processor, "document")
    assert {*merging} <= {*tried.texts} and {*merging} & {*tried.sample}
    assert {"水", "ß", "\u3000some words\u3000", "a <T> b"} <= {*tried.texts}
    lengths = {len(ids) for ids in processor.document_ids(tried.texts)}
    assert {processor.max_prefix_length, processor.max_prefix_length - 2} <= lengths


def test_the_files_need_no_setting(tokenizers: dict[str, Any], tmp_path: Path) -> None:
    processor = RabtrieverProcessor(tokenizers["added words"], max_document_length=8)
    save_tower_tokenizer(processor, "document", padding_id(processor, len(processor.tokenizer)), tmp_path)
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert settings["tokenizer_class"] == "PreTrainedTokenizerFast"  # known to transformers 4 too
    assert settings["model_input_names"] == ["input_ids", "attention_mask"]
    rows = Tokenizer.from_file(str(tmp_path / "tokenizer.json")).encode_batch(["a", "word " * 100])
    assert [len(row.ids) for row in rows] == [processor.max_prefix_length] * 2  # padded and cut
    assert rows[0].attention_mask[-1] == 0 and rows[0].ids[-1] == settings_id(tmp_path)


def settings_id(folder: Path) -> int:
    padding: int = json.loads((folder / "tokenizer.json").read_text())["padding"]["pad_id"]
    return padding


def test_a_prompt_that_merges_with_words_is_refused(
    make_teacher: Callable[..., GenerativeRerankerModel], tmp_path: Path
) -> None:
    teacher = make_teacher(prompt={"query_template": "Q: {query}e sponge: {instruction}"})  # "th" and "e" are "the"
    student = student_with(teacher, embedding_dim=8)
    with pytest.raises(
        ValueError, match="query_template: every stock tokenizer would read '.*' as .* accepted: a template"
    ):
        export_sentence_transformers(student, tmp_path / "towers")
    assert not list(tmp_path.iterdir())


def test_a_family_that_insists_on_its_own_tokenizer_is_refused(
    make_teacher: Callable[..., GenerativeRerankerModel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    insisting = tokenization_auto.MODELS_WITH_INCORRECT_HUB_TOKENIZER_CLASS
    monkeypatch.setitem(tokenization_auto.TOKENIZER_MAPPING_NAMES, "mistral", "Qwen2Tokenizer")
    monkeypatch.setattr(tokenization_auto, "MODELS_WITH_INCORRECT_HUB_TOKENIZER_CLASS", {*insisting, "mistral"})
    student = student_with(make_teacher(family="mistral", num_key_value_heads=2), embedding_dim=8)
    with pytest.raises(ValueError, match=r"AutoTokenizer \(Qwen2Tokenizer\) would read .* accepted"):
        export_sentence_transformers(student, tmp_path / "towers")
    assert not list(tmp_path.iterdir())


def test_seams_of_pairs_must_be_alike(tokenizers: dict[str, Any], tmp_path: Path) -> None:
    processor = RabtrieverProcessor(tokenizers["gpt2"], document_template="({document})\n", query_template="Q: {query}")
    with pytest.raises(
        ValueError, match="accepted for a cross-encoder: templates with the same space or special token"
    ):
        save_pair_tokenizer(processor, 0, tmp_path)
    with pytest.raises(ValueError, match="side is 'both'; accepted: query, document"):
        save_tower_tokenizer(processor, "both", 0, tmp_path)


def test_an_added_word_that_would_vanish_is_refused(tokenizers: dict[str, Any], tmp_path: Path) -> None:
    backend = Tokenizer.from_str(tokenizers["added words"].backend_tokenizer.to_str())
    backend.normalizer = normalizers.Strip()  # nothing is left of three blanks, one of its words
    processor = RabtrieverProcessor(
        PreTrainedTokenizerFast(tokenizer_object=backend, extra_special_tokens=["<T>", "<F>"]), instruction="Relevant:"
    )
    with pytest.raises(ValueError, match="leaves nothing of its added token '   '; accepted"):
        save_tower_tokenizer(processor, "query", 0, tmp_path)
    assert not list(tmp_path.iterdir())


def test_padding_is_never_a_prompts_last_token(tokenizers: dict[str, Any]) -> None:
    tokenizer = tokenizers["qwen2"]
    end = tokenizer.eos_token_id
    assert padding_id(RabtrieverProcessor(tokenizer), len(tokenizer)) == end
    ends_so = RabtrieverProcessor(tokenizer, query_template="{query}\n{instruction}<|endoftext|>")
    assert padding_id(ends_so, len(tokenizer)) not in (end, None)
    assert padding_id(RabtrieverProcessor(tokenizer, query_template="Q: {query}"), len(tokenizer)) == end
    assert prompt_tokenizer.SIDES == ("query", "document")
