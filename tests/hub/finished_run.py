"""What the pipeline leaves, without the training: a run of tiny models."""

import json
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, Qwen2Tokenizer

from modeling_rabtriever import GenerativeRerankerConfig, GenerativeRerankerModel, RabtrieverModel, RabtrieverProcessor
from modeling_rabtriever.cards.generate import write_cards
from modeling_rabtriever.evaluation.splits import rank_split
from modeling_rabtriever.evaluation.systems import baselines, load_system
from modeling_rabtriever.tasks.beir import load_beir
from tests.conftest import DOCUMENTS, fresh_student

WORDS = {"train": "please", "dev": "maybe", "test": "now"}


def tiny_models(tokenizer: Qwen2Tokenizer) -> tuple[GenerativeRerankerModel, RabtrieverModel]:
    processor = RabtrieverProcessor(tokenizer, instruction="Relevant:", max_document_length=16, max_query_length=16)
    torch.manual_seed(0)
    backbone = AutoConfig.for_model(
        "qwen2",
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        initializer_range=0.2,
        tie_word_embeddings=True,
    )
    answers = {"true_token_id": processor.true_token_id, "false_token_id": processor.false_token_id}
    teacher = GenerativeRerankerModel(GenerativeRerankerConfig(text_config=backbone, **answers)).eval()
    teacher.processor = processor
    return teacher, fresh_student(teacher, embedding_dim=24).served()


def write_task(folder: Path) -> None:
    (folder / "qrels").mkdir(parents=True)
    documents = [{"_id": f"d{row}", "title": "", "text": text} for row, text in enumerate(DOCUMENTS)]
    (folder / "corpus.jsonl").write_text("".join(json.dumps(document) + "\n" for document in documents))
    with (folder / "queries.jsonl").open("w") as queries:
        for split, word in WORDS.items():
            judged = "query-id\tcorpus-id\tscore\n"
            for row, text in enumerate(DOCUMENTS):
                queries.write(json.dumps({"_id": f"{split}{row}", "text": f"{word} {text.split()[-1]}"}) + "\n")
                judged += f"{split}{row}\td{row}\t1\n"
            (folder / "qrels" / f"{split}.tsv").write_text(judged)


def make_run(tokenizer: Qwen2Tokenizer, run: Path) -> Path:
    """Fills a folder with models, records, reports, plots, cards."""
    write_task(run / "data" / "chores")
    task = load_beir(run / "data" / "chores")
    shared = {"data": str(run / "data" / "chores"), "train_split": "train", "seed": 0}
    losses = {"listwise_weight": 1.0, "mse_weight": 0.1, "kl_weight": 0.1}
    features = {"predictor_type": "hadamard", "train_encoder": "full"}
    records: dict[str, dict[str, Any]] = {
        "teacher": {
            "settings": {**shared, "model_name_or_path": "tiny.json", "objective": "sft"},
            "pairs": 4,
            "relevant_share": 0.25,
            "parameters": 100,
        },
        "student": {
            "settings": {**shared, **features, **losses},
            "teacher_pairs": 12,
            "embedding_dim": 24,
        },
    }
    for model, (stage, record) in zip(tiny_models(tokenizer), records.items(), strict=True):
        model.save_pretrained(run / stage / "model")
        (run / stage / "stage.json").write_text(json.dumps({**record, "done": True}))
    paths = (str(run / stage / "model") for stage in records)
    systems = [*baselines(task, "train"), *(load_system(path, task.corpus) for path in paths)]
    (run / "evaluation").mkdir()
    rank_split(task, task.split("test"), systems).write(run / "evaluation")
    write_cards(run)
    return run
