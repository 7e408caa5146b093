"""Backbones and tokenizers of other families: each trains, distils and ranks, or is refused before the first step."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from modeling_rabtriever.loading import load_model
from modeling_rabtriever.reranking.backbone import check_backbone
from modeling_rabtriever.stages import distill, train_reranker
from modeling_rabtriever.tasks.beir import load_beir

FAMILIES: dict[str, dict[str, Any]] = {
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128},
    "gpt_neo": {"hidden_size": 32, "num_layers": 2, "num_heads": 4, "window_size": 6}
    | {"attention_types": [[["global", "local"], 1]], "max_position_embeddings": 128},
    "opt": {"ffn_dim": 48, "word_embed_proj_dim": 32},
    "llama": {"num_key_value_heads": 2},
    "mistral": {"num_key_value_heads": 2, "sliding_window": 6},
    "gemma3_text": {"num_key_value_heads": 2, "head_dim": 8, "sliding_window": 6}
    | {"layer_types": ["sliding_attention", "full_attention"]},
    "phi": {},
}
SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}


def _byte_level(texts: list[str]) -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    special = ["<|endoftext|>", "<T>", "<F>"]
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="<|endoftext|>", extra_special_tokens=special[1:]
    )


def _sentencepiece_like(texts: list[str]) -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "<T>", "<F>"]
    backend.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=600, special_tokens=special, show_progress=False))
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        extra_special_tokens=special[-2:],
    )


TOKENIZERS = {"gpt2": _byte_level, "gpt_neo": _byte_level, "opt": _byte_level, "phi": _byte_level}


def _checkpoint(family: str, folder: Path, texts: Sequence[str]) -> Path:
    tokenizer = TOKENIZERS.get(family, _sentencepiece_like)([*texts] * 5 + ["Document: Query: Relevant:"])
    assert tokenizer.pad_token is None
    sizes = {} if family in ("gpt2", "gpt_neo") else {**SIZES, "max_position_embeddings": 128}
    ids = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": None, "vocab_size": len(tokenizer)}
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **{**sizes, **ids, **FAMILIES[family]})
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _arguments(data: Path, output: Path, **settings: Any) -> list[str]:
    flags = {
        "data": data,
        "output_dir": output,
        "max_steps": 2,
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": True,
    }
    flags |= {"save_strategy": "no", "learning_rate": 1e-3, **settings}
    return [part for name, value in flags.items() for part in (f"--{name}", str(value))]


def _train(model: Path, data: Path, output: Path, **settings: Any) -> Path:
    prompt = {"instruction": "Relevant:", "max_document_length": 16, "max_query_length": 16}
    batch = {"negatives_per_positive": 3, "per_device_train_batch_size": 8, "per_device_eval_batch_size": 8}
    return train_reranker.main(
        _arguments(
            data, output, model_name_or_path=model, activation_checkpointing=False, **prompt, **batch, **settings
        )
    )


@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "phi"])
def test_a_family_trains_distils_and_ranks(family: str, beir_folder: Path, tmp_path: Path) -> None:
    task = load_beir(beir_folder)
    backbone = _checkpoint(family, tmp_path / "backbone", [*task.corpus, *task.split("train").queries])
    teacher = load_model(_train(backbone, beir_folder, tmp_path / "run", objective="listwise"))
    student = load_model(
        distill.main(_arguments(beir_folder, tmp_path / "run", embedding_dim=8, candidates=4, rounds=0))
    )
    query = task.split("test").queries[0]
    for model in (teacher, student):
        hits = model.rank(query, task.corpus)
        assert len(hits) == len(task.corpus)
        texts = ["a story", *task.corpus]  # another batch, the same scores
        again = {hit["text"]: hit["score"] for hit in model.rank(query, texts)}
        assert all(abs(again[hit["text"]] - hit["score"]) < 1e-3 for hit in hits)
    torch.testing.assert_close(
        teacher.score([query], task.corpus)[0], teacher.predict([(query, text) for text in task.corpus])
    )


def test_a_family_that_cannot_work_is_refused_before_the_first_step(beir_folder: Path, tmp_path: Path) -> None:
    backbone = _checkpoint("phi", tmp_path / "backbone", load_beir(beir_folder).corpus)
    with pytest.raises(ValueError, match="the backbone's head is .*accepted: a linear head without bias"):
        _train(backbone, beir_folder, tmp_path / "run")
    assert not (tmp_path / "run" / "teacher" / "checkpoints").exists()


def test_a_backbone_that_reads_padding_is_refused(make_reranker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    reranker = make_reranker()
    check_backbone(reranker)
    run = reranker._run

    def without_mask(backbone: Any, input_ids: torch.Tensor, attention_mask: Any, *others: Any, **options: Any) -> Any:
        return run(backbone, input_ids, torch.ones_like(attention_mask), *others, **options)

    monkeypatch.setattr(reranker, "_run", without_mask)
    with pytest.raises(ValueError, match="scores change by .* if the batch has longer prompts; accepted"):
        check_backbone(reranker)
