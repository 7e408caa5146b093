"""The prompt: what is tokenised how, what is cut, what is refused."""

import copy
import json
import pickle
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoProcessor, PreTrainedTokenizerFast

from modeling_rabtriever import RabtrieverProcessor
from modeling_rabtriever.processing_rabtriever import PAPER_INSTRUCTION
from tests.export.conftest import make_tokenizer


def _text(processor: RabtrieverProcessor, ids: list[int]) -> str:
    return processor.tokenizer.decode(ids)


def test_prompt_reads_document_first_and_ends_at_the_answer(processor: RabtrieverProcessor) -> None:
    prefix, suffix = processor.document_ids("bring the sponge")[0], processor.query_ids("I spilled my drink")[0]
    assert _text(processor, prefix + suffix) == "Document: bring the sponge\nQuery: I spilled my drink\nRelevant:"


def test_pieces_are_tokenised_as_in_running_text(processor: RabtrieverProcessor) -> None:
    whole = processor.tokenizer("Document: bring the sponge\n", add_special_tokens=False)["input_ids"]
    assert processor.document_ids("bring the sponge")[0] == whole


def test_long_texts_lose_their_end_and_the_prompt_stays_whole(processor: RabtrieverProcessor) -> None:
    prefix = processor.document_ids("sponge " * 500)[0]
    suffix = processor.query_ids("drink " * 500)[0]
    frame = len(processor.document_ids("a")[0]) - 1
    assert len(prefix) <= frame + 16
    assert _text(processor, prefix).startswith("Document: sponge") and _text(processor, prefix).endswith("\n")
    assert _text(processor, suffix).startswith("Query: drink") and _text(processor, suffix).endswith("\nRelevant:")
    assert len(prefix) + len(suffix) <= processor.max_pair_length


def test_query_can_lose_its_beginning_instead(tokenizer: PreTrainedTokenizerFast) -> None:
    processor = RabtrieverProcessor(
        tokenizer, max_query_length=6, query_truncation_side="left", instruction="Relevant:"
    )
    text = _text(processor, processor.query_ids("first second third fourth fifth shelf")[0])
    assert "first" not in text and text.endswith("shelf\nRelevant:")


def test_what_may_merge_with_a_text_is_cut_with_it() -> None:
    # Trained on the template, as recipes train: "}" and the line break behind it are one token, others stay apart.
    processor = RabtrieverProcessor(make_tokenizer("qwen2"), instruction="Relevant:", max_document_length=8)
    assert len(processor.document_ids("a}")[0]) == len(processor.document_ids("a")[0])
    assert _text(processor, processor.document_ids("a")[0]).endswith("a\n")
    long = processor.document_ids("a " * 20)[0]
    assert len(long) == processor.max_prefix_length and not _text(processor, long).endswith("\n")
    assert _text(processor, processor.query_ids("a " * 200)[0]).endswith("Relevant:")  # words are never cut


@pytest.mark.parametrize("kind", ["gpt2", "llama", "metaspace", "wordpiece"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_a_text_is_cut_within_its_running_text(kind: str, side: str) -> None:
    processor = RabtrieverProcessor(
        make_tokenizer(kind), instruction="Relevant:", max_query_length=6, query_truncation_side=side
    )
    whole = processor.replace(max_query_length=1000)
    words = ("there", "sponge", "th", "x", "now", "please")
    for text in (" ".join([first, *["a"] * count]) for first in words for count in range(3, 12)):
        ids, running = processor.query_ids(text)[0], whole.query_ids(text)[0]
        longest = [len(ids)] if len(ids) == len(running) else range(len(ids) + 1)
        assert any(running[:kept] + running[kept + len(running) - len(ids) :] == ids for kept in longest)
        assert ids[:1] == running[:1] and ids[-1:] == running[-1:]


def test_special_tokens_in_texts_are_plain_text(processor: RabtrieverProcessor) -> None:
    ids = processor.document_ids("say <T> and <pad>")[0] + processor.query_ids("<F>")[0]
    assert not {processor.true_token_id, processor.false_token_id, processor.tokenizer.pad_token_id} & set(ids)


def test_special_tokens_in_the_instruction_are_meant(tokenizer: PreTrainedTokenizerFast) -> None:
    processor = RabtrieverProcessor(tokenizer)  # the paper's instruction names both answers
    ids = processor.query_ids("a")[0]
    assert {processor.true_token_id, processor.false_token_id} <= set(ids)


def test_braces_in_texts_and_instruction_are_left_alone(tokenizer: PreTrainedTokenizerFast) -> None:
    processor = RabtrieverProcessor(tokenizer, instruction="{query} or {x}?")
    text = _text(processor, processor.query_ids("{instruction} {document}")[0])
    assert text == "Query: {instruction} {document}\n{query} or {x}?"


def test_beginning_of_text_token_opens_the_prefix_only(tokenizer: PreTrainedTokenizerFast) -> None:
    from tokenizers import Tokenizer
    from tokenizers.processors import TemplateProcessing

    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    backend.post_processor = TemplateProcessing(single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", 0)])
    with_bos = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<|endoftext|>", additional_special_tokens=["<T>", "<F>"]
    )
    processor = RabtrieverProcessor(with_bos)
    assert processor.document_ids("a")[0][0] == 0
    assert 0 not in processor.query_ids("a")[0]


def test_batches_are_padded_on_the_left(processor: RabtrieverProcessor) -> None:
    batch = processor(query=["a", "a much longer query"], document=["b", "c"])
    assert batch["input_ids"].shape == batch["attention_mask"].shape
    assert batch["attention_mask"][:, -1].tolist() == [1, 1]
    assert batch["attention_mask"][0, 0] == 0
    short = processor.document_ids("b")[0] + processor.query_ids("a")[0]
    assert batch["input_ids"][0, -len(short) :].tolist() == short
    assert torch.equal(processor(query="a")["input_ids"][0], torch.tensor(processor.query_ids("a")[0]))
    assert torch.equal(processor(document="b")["input_ids"][0], torch.tensor(processor.document_ids("b")[0]))


def test_round_trip(processor: RabtrieverProcessor, tmp_path: Path) -> None:
    processor = processor.replace(query_truncation_side="left")
    processor.save_pretrained(tmp_path)
    loaded = RabtrieverProcessor.from_pretrained(tmp_path)
    assert {**loaded.to_dict(), "auto_map": None} == {**processor.to_dict(), "auto_map": None}
    assert loaded.query_ids("I spilled my drink") == processor.query_ids("I spilled my drink")
    assert type(AutoProcessor.from_pretrained(tmp_path, trust_remote_code=True)).__name__ == "RabtrieverProcessor"


def test_folder_without_settings_is_refused(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"no processor_config.json of a RabtrieverProcessor; accepted"):
        RabtrieverProcessor.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    "texts",
    [
        [], "", "  \n", ["a", ""], [None], [3], 7, None, "a lone \ud800 surrogate", {"id": "text"}, {"a", "b"},
    ],
)  # fmt: skip
@pytest.mark.parametrize("side", ["document_ids", "query_ids"])
def test_unusable_texts_are_refused(processor: RabtrieverProcessor, side: str, texts: Any) -> None:
    with pytest.raises(ValueError, match="accepted"):
        getattr(processor, side)(texts)


def test_a_column_of_a_table_is_a_list_of_texts(processor: RabtrieverProcessor) -> None:
    table = pytest.importorskip("pandas").DataFrame({"text": ["a", "b c"]})
    assert processor.document_ids(table["text"]) == processor.document_ids(["a", "b c"])
    with pytest.raises(ValueError, match="accepted: a text or a list of texts"):
        processor.document_ids(table)


def test_a_folder_without_its_vocabulary_is_refused(processor: RabtrieverProcessor, tmp_path: Path) -> None:
    processor.save_pretrained(tmp_path)  # transformers makes a tokenizer that knows its special tokens alone
    (tmp_path / "tokenizer.json").unlink()
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({**settings, "tokenizer_class": "Qwen2Tokenizer"}))
    with pytest.raises(ValueError, match=r"tokenizer has no vocabulary; accepted: .*tokenizer\.json"):
        RabtrieverProcessor.from_pretrained(tmp_path)


def test_pairs_need_both_sides_in_equal_number(processor: RabtrieverProcessor) -> None:
    with pytest.raises(ValueError, match="2 queries and 1 documents"):
        processor(query=["a", "b"], document=["c"])
    with pytest.raises(ValueError, match="neither query nor document"):
        processor()


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"true_answer": "not one token"}, "true_answer 'not one token' is .* tokens"),
        ({"true_answer": ""}, "true_answer '' is 0 tokens"),
        ({"true_answer": "<F>"}, "both answers are token"),
        ({"document_template": "Document:"}, r"document_template is .*accepted: a text that holds \{document\}"),
        ({"query_template": "{query} {query}"}, r"query_template is .*\{query\} exactly once"),
        ({"max_document_length": 0}, "max_document_length is 0; accepted"),
        ({"max_query_length": True}, "max_query_length is True; accepted"),
        ({"query_truncation_side": "middle"}, "query_truncation_side is 'middle'; accepted: left, right"),
    ],
)
def test_unusable_settings_are_refused(
    tokenizer: PreTrainedTokenizerFast, setting: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        RabtrieverProcessor(tokenizer, **setting)


def test_other_engines_read_the_same_tokens(tokenizer: PreTrainedTokenizerFast) -> None:
    # They render prefix and suffix as text; Qwen2's tokenizer merges a full stop with the line break behind it.
    processor = RabtrieverProcessor(tokenizer, document_template="<T>A {document}\n", query_template="Q: {query}.\nR:")
    for text in ("bring it.", "  two blanks  ", "line\n", "ü🙂"):
        assert processor.document_ids(text)[0] == tokenizer(f"<T>A {text.strip()}\n")["input_ids"]
        assert processor.query_ids(text)[0] == tokenizer(f"Q: {text.strip()}.\nR:")["input_ids"]


@pytest.mark.parametrize("side", ["left", "right"])
def test_no_text_exceeds_the_longest_pair(tokenizer: PreTrainedTokenizerFast, side: str) -> None:
    processor = RabtrieverProcessor(
        tokenizer, max_document_length=5, max_query_length=7, query_truncation_side=side, instruction="Relevant:"
    )
    rng = random.Random(0)
    alphabet = "ab .,\n🙂ü<T>"
    for _ in range(200):
        text = "".join(rng.choices(alphabet, k=rng.randint(1, 40))) + "x"
        prefix, suffix = processor.document_ids(text)[0], processor.query_ids(text)[0]
        assert len(prefix) + len(suffix) <= processor.max_pair_length
        assert suffix[-3:] == processor.query_ids("x")[0][-3:]
        assert processor.true_token_id not in prefix + suffix


def test_a_processor_never_changes(processor: RabtrieverProcessor) -> None:
    with pytest.raises(ValueError, match=r"instruction of a processor cannot be set.*accepted: replace\(instruction="):
        processor.instruction = "Another one:"
    with pytest.raises(ValueError, match="max_length is no setting of a processor; accepted: tokenizer, true_answer"):
        processor.replace(max_length=3)
    other = processor.replace(instruction="Another one:")
    assert _text(other, other.query_ids("a")[0]).endswith("Another one:")
    assert _text(processor, processor.query_ids("a")[0]).endswith("Relevant:")


def test_the_given_tokenizer_stays_as_it_was(tokenizer: PreTrainedTokenizerFast) -> None:
    own = copy.deepcopy(tokenizer)
    own("a", truncation=True, max_length=3, padding="max_length")
    before = own.backend_tokenizer.to_str()
    RabtrieverProcessor(own).document_ids("much longer than three tokens <T>")
    assert own.backend_tokenizer.to_str() == before and not own.backend_tokenizer.encode_special_tokens


@pytest.mark.parametrize("made", [copy.deepcopy, copy.copy, lambda given: pickle.loads(pickle.dumps(given))])
def test_copies_read_alike(processor: RabtrieverProcessor, made: Callable[..., RabtrieverProcessor]) -> None:
    text = "say <T> and <|endoftext|>"
    assert made(processor).query_ids(text) == processor.query_ids(text)


@pytest.mark.parametrize(
    "templates",
    [
        {},
        {"instruction": PAPER_INSTRUCTION},  # names both answers, which are special tokens
        {"document_template": "<T>A {document}<F>\n", "query_template": "Q: {query}<F>\n{instruction}"},
    ],
)
def test_threads_share_a_processor(processor: RabtrieverProcessor, templates: dict[str, str]) -> None:
    shared = processor.replace(**templates)
    texts = [f"text {row} says {'<T> or <|endoftext|>' if row % 3 else 'nothing'}" for row in range(50)]
    expected = [(shared.query_ids(text), shared.document_ids(text)) for text in texts]

    def read(thread: int) -> int:
        wrong = 0
        for row in range(1250):
            place = (row * 7 + thread) % len(texts)
            text = texts[place]
            wrong += (shared.query_ids(text), shared.document_ids(text)) != expected[place]
        return wrong

    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(read, range(8))) == 0


def test_the_default_instruction_asks_for_the_answers(tokenizer: PreTrainedTokenizerFast) -> None:
    start = "Can Query be appropriately responded with Document? If the answer is true, choose "
    assert RabtrieverProcessor(tokenizer).instruction == PAPER_INSTRUCTION == start + "<T>; otherwise, choose <F>."
    turned = RabtrieverProcessor(tokenizer, true_answer="<F>", false_answer="<T>")
    assert turned.instruction == start + "<F>; otherwise, choose <T>."
    kept = RabtrieverProcessor(tokenizer, true_answer="<F>", false_answer="<T>", instruction=PAPER_INSTRUCTION)
    assert kept.instruction == PAPER_INSTRUCTION  # as saved models have it
