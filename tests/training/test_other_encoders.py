"""What a model must be for a student to stand on it, and what its folder says of how it reads."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from transformers import AutoConfig, AutoModel

from modeling_rabtriever import GenerativeRerankerModel, RabtrieverConfig
from modeling_rabtriever.distillation.encoder_folders import check_text_encoder
from modeling_rabtriever.distillation.encoder_training import train_encoder
from modeling_rabtriever.distillation.encoders import other_encoder
from modeling_rabtriever.distillation.features import read_features
from tests.training.test_encoders import student_on
from tests.training.tiny_encoders import write_encoder, write_sentence_transformer

MIXED = ["Bring the SPONGE", "bring a Lamp to the attic"]
SIZES = {
    "vocab_size": 40, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32,
    "max_position_embeddings": 40, "pad_token_id": 1, "initializer_range": 0.3,
}  # fmt: skip


def of_family(folder: Path, family: str, **changes: Any) -> Path:
    """A tiny model of a family beside RoBERTa's tokenizer."""
    write_encoder(folder, "roberta")
    torch.manual_seed(0)
    AutoModel.from_config(AutoConfig.for_model(family, **{**SIZES, **changes})).save_pretrained(folder)
    return folder


def change(file: Path, **settings: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **settings}))


def check_like_sentence_transformers(folder: Path, reranker: GenerativeRerankerModel) -> None:
    student = student_on(other_encoder(str(folder), reranker.processor), reranker)
    theirs = SentenceTransformer(str(folder), device="cpu")
    for side, encode in (("query", theirs.encode_query), ("document", theirs.encode_document)):
        alone = torch.cat([encode([text], convert_to_tensor=True) for text in MIXED])
        torch.testing.assert_close(
            torch.nn.functional.normalize(read_features(student, side, MIXED)), alone, atol=1e-5, rtol=0
        )


def test_small_letters_are_the_folders_choice(reranker: GenerativeRerankerModel, tmp_path: Path) -> None:
    folder = write_sentence_transformer(tmp_path / "st", "bert", "mean")
    change(folder / "tokenizer.json", normalizer=None)
    change(folder / "sentence_bert_config.json", do_lower_case=True)
    check_like_sentence_transformers(folder, reranker)


def test_prompts_are_those_sentence_transformers_takes(reranker: GenerativeRerankerModel, tmp_path: Path) -> None:
    folder = write_sentence_transformer(tmp_path / "st", "bert", "mean")
    prompts = {"query": "call ", "document": "", "passage": "bring "}
    change(folder / "config_sentence_transformers.json", prompts=prompts)
    check_like_sentence_transformers(folder, reranker)
    change(folder / "1_Pooling" / "config.json", include_prompt=False)
    with pytest.raises(ValueError, match="excludes its prompts from pooling; accepted: a model that pools over all"):
        other_encoder(str(folder), reranker.processor)


def test_a_repository_says_as_much_as_a_folder(
    reranker: GenerativeRerankerModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = tmp_path / "hub" / "models--org--small"
    snapshot = repository / "snapshots" / ("0" * 40)
    snapshot.parent.mkdir(parents=True)
    write_sentence_transformer(tmp_path / "st", "bert", "cls", "bring ").rename(snapshot)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    found = other_encoder("org/small", reranker.processor)
    assert (found.poolings, found.is_retriever) == (["first"], True)
    assert found.processor.query_template == "[CLS]bring {query}[SEP]"


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("modules.json", "{", "its modules.json cannot be read"),
        ("modules.json", '[{"a": 1}]', "its modules.json cannot be read"),
        ("modules.json", "[]", "has modules none; accepted: Transformer, Pooling, Normalize"),
        ("1_Pooling/config.json", None, "has no 1_Pooling/config.json; accepted"),
        ("1_Pooling/config.json", '{"pooling_mode": ["cls", "mean"]}', "pools by cls, mean; accepted: one of"),
        ("config_sentence_transformers.json", '{"prompts": ["query"]}', "accepted: a mapping of names to texts"),
    ],
)
def test_odd_files_are_refused(
    reranker: GenerativeRerankerModel, tmp_path: Path, file: str, content: str | None, message: str
) -> None:
    folder = write_sentence_transformer(tmp_path / "st", "bert", "mean")
    (folder / file).unlink() if content is None else (folder / file).write_text(content)
    with pytest.raises(ValueError, match=message):
        other_encoder(str(folder), reranker.processor)


def test_weights_are_all_there_and_finite(reranker: GenerativeRerankerModel, tmp_path: Path) -> None:
    folder = write_encoder(tmp_path / "bert", "bert")
    whole = load_file(folder / "model.safetensors")
    name = "encoder.layer.1.output.dense.weight"
    for weights, message in (
        ({key: value for key, value in whole.items() if key != name}, f"lacks weights of this model: {name}"),
        ({**whole, name: whole[name][:-1].clone()}, f"tensors of another shape: {name}"),
        ({**whole, name: whole[name] * torch.nan}, "from text models that mask padding and have finite"),
    ):
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(ValueError, match=message):
            student_on(other_encoder(str(folder), reranker.processor), reranker)


@pytest.mark.parametrize(
    ("family", "changes", "message"),
    [
        ("t5", {"d_model": 24, "d_kv": 8, "num_heads": 2}, "is a t5 encoder-decoder; accepted: a text"),
        (
            "bert",
            {"vocab_size": 20},
            "its tokenizer has the id 2.; accepted: ids below 20, the number of its embeddings",
        ),
        ("bert", {"max_position_embeddings": 2}, "has a window of 2 tokens; accepted: more than the 2 that its own"),
        ("fnet", {}, "encoder fnet: features of a text change by .* when the batch has a longer text"),
    ],
)
def test_what_is_no_text_encoder_is_refused(
    reranker: GenerativeRerankerModel, tmp_path: Path, family: str, changes: dict[str, Any], message: str
) -> None:
    folder = of_family(tmp_path / "other", family, **changes)
    with pytest.raises(ValueError, match=message):
        student_on(other_encoder(str(folder), reranker.processor), reranker)


def test_images_are_no_texts() -> None:
    with pytest.raises(ValueError, match="encoder x is a clip model without vocab_size, hidden_size"):
        check_text_encoder("x", AutoConfig.for_model("clip"))


def test_a_teacher_or_student_is_no_encoder(reranker: GenerativeRerankerModel, tmp_path: Path) -> None:
    reranker.save_pretrained(tmp_path / "teacher")
    with pytest.raises(ValueError, match="is a generative_reranker model with code of its own; accepted: a text model"):
        other_encoder(str(tmp_path / "teacher"), reranker.processor)


def test_special_tokens_must_be_known_as_such(reranker: GenerativeRerankerModel, tmp_path: Path) -> None:
    """Where they are not, a template cannot name them."""
    folder = write_encoder(tmp_path / "roberta", "roberta")
    change(folder / "tokenizer.json", added_tokens=[])
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    with pytest.raises(ValueError, match="puts '<s>' and '</s>' around a text, which cannot be written as a prompt"):
        other_encoder(str(folder), reranker.processor)


@pytest.mark.parametrize("family", ["ibert", "lilt", "longformer", "luke", "markuplm", "roberta-prelayernorm"])
def test_windows_are_those_of_the_family(make_reranker: Callable[..., Any], tmp_path: Path, family: str) -> None:
    reranker = make_reranker()
    reranker.processor = reranker.processor.replace(max_document_length=60)
    changes = {"luke": {"entity_vocab_size": 8}, "longformer": {"attention_window": [8, 8]}}.get(family, {})
    encoder = other_encoder(str(of_family(tmp_path / family, family, **changes)), reranker.processor)
    read_features(student_on(encoder, reranker), "document", ["bring the ladder " * 30])
    assert encoder.processor.max_document_length == 36  # 40 positions less padding's two and the two special tokens


def test_families_without_a_window_have_none() -> None:
    sizes = {"vocab_size": 40, "d_model": 24, "n_layer": 2, "n_head": 2, "d_inner": 32}
    assert RabtrieverConfig(text_config=AutoConfig.for_model("xlnet", **sizes)).window is None


def test_adapters_that_fit_no_layer_are_refused(reranker: GenerativeRerankerModel, tmp_path: Path) -> None:
    student = student_on(other_encoder(str(of_family(tmp_path / "i", "ibert")), reranker.processor), reranker)
    with pytest.raises(ValueError, match="train_encoder is 'lora', which does not fit this encoder, ibert"):
        train_encoder(student, "lora")
