"""What would fail hours later is refused before the first step, with the argument, its value and what is accepted."""

import json
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transformers import Trainer

from modeling_rabtriever import GenerativeRerankerModel
from modeling_rabtriever.files import write_json
from modeling_rabtriever.reranking.backbone import read_backbone_config
from modeling_rabtriever.reranking.pairs import NegativeArguments, draw_groups
from modeling_rabtriever.reranking.prompts import PromptArguments
from modeling_rabtriever.reranking.reranker_trainer import RerankerTrainingConfig
from modeling_rabtriever.reranking.training import LoraArguments, make_trainer
from modeling_rabtriever.stages import distill, generate_queries, pipeline, train_reranker
from modeling_rabtriever.tasks.beir import load_beir
from modeling_rabtriever.trainers.stage_folder import StageFolder


@pytest.fixture(autouse=True)
def no_step(monkeypatch: pytest.MonkeyPatch) -> None:
    def train(*_: Any, **__: Any) -> None:
        raise AssertionError("training began")

    monkeypatch.setattr(Trainer, "train", train)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--dev_split", "validation"], "dev_split is 'validation', which animals lacks; accepted: dev, test, train"),
        (["--train_split", "training"], "train_split is 'training', which animals lacks; accepted"),
        (["--model_name_or_path", "nowhere.json"], "nowhere.json is not a file"),
        (["--model_name_or_path", "nobody/nothing"], "model_name_or_path nobody/nothing cannot be read .*; accepted"),
        (["--max_document_length", "60"], "accepted: at most the backbone's window, 64"),
        (["--negatives_per_positive", "40"], "40 negatives per positive; accepted: 1 to 11"),
        (["--per_device_train_batch_size", "10"], "size is 10; accepted: a multiple of the group size 4"),
        (["--per_device_train_batch_size", "0"], "per_device_train_batch_size is 0; accepted: 1 or more"),
        (["--gradient_accumulation_steps", "0"], "gradient_accumulation_steps is 0; accepted: 1 or more"),
        (["--eval_accumulation_steps", "0"], "eval_accumulation_steps is 0; accepted: 1 or more"),
        (["--learning_rate", "nan"], "learning_rate is nan; accepted: 0 or more"),
        (["--seed", "-1"], "seed is -1; accepted: 0 or more"),
        (["--seed", "4294967296"], "seed is 4294967296; accepted: less than 2.32"),
        (["--warmup_steps", "21"], "warmup_steps is 21.* and max_steps is 20, so .*; accepted: at most max_steps"),
        (
            ["--max_steps", "0", "--num_train_epochs", "0"],
            "max_steps is 0, num_train_epochs 0.0; accepted: one above 0",
        ),
        (["--max_steps", "-1", "--num_train_epochs", "inf"], "num_train_epochs is inf; accepted: a finite number"),
        (["--logging_steps", "nan"], "logging_steps is nan; accepted: a finite number"),
        (["--dev_groups", "0"], "dev_groups is 0; accepted: 1 or more"),
        (["--hard_negative_depth", "0"], "hard_negative_depth is 0; accepted: at least 1"),
        (["--attn_implementation", "fast"], "with attn_implementation fast cannot be built .*; accepted"),
        (["--attn_implementation", "flash_attention_2"], "with attn_implementation flash_attention_2 cannot be built"),
        (
            ["--attn_implementation", "flex_attention"],
            "attn_implementation is 'flex_attention'; accepted on CPUs: sdpa",
        ),
        (["--adam_beta2", "1.5"], "optim .* cannot be used .*1.5.*; accepted"),
        (["--lr_scheduler_kwargs", '{"a": 1}'], "lr_scheduler_kwargs {'a': 1} cannot be used .*; accepted"),
        (["--report_to", "paper"], r"report_to is \['paper'\] .*; accepted: installed trackers, or none"),
        (["--metric_for_best_model", "f1"], "metric_for_best_model is 'f1'; accepted: loss, corpus_success@1"),
        (
            ["--resume_from_checkpoint", "there"],
            "resume_from_checkpoint is 'there'; accepted: the folder of a checkpoint",
        ),
        (["--use_peft", "true", "--lora_r", "0"], "lora_r is 0; accepted: 1 or more"),
        (["--use_peft", "true", "--lora_r", "1000000"], "lora_r is 1000000; accepted: 1 to [0-9]+, the width"),
        (["--use_peft", "true", "--lora_alpha", "0"], "lora_alpha is 0; accepted: 1 or more"),
        (["--use_peft", "true", "--lora_dropout", "1"], "lora_dropout is 1.0; accepted: at least 0 and less than 1"),
        (["--use_peft", "true", "--lora_target_modules", "x"], "LoRA settings do not fit .*x not found"),
        (["--document_lm_weight", "inf"], "document_lm_weight is inf; accepted: 0 or more"),
    ],
)
def test_a_teacher_that_could_not_be_trained(recipe: Path, flags: list[str], message: str) -> None:
    config = yaml.safe_load(recipe.read_text())
    with pytest.raises(ValueError, match=message):
        train_reranker.main(["--config", str(recipe), *flags])
    assert {path.suffix for path in Path(config["output_dir"]).glob("*")} <= {".lock"}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--distill.dev_split", "validation"], "^distill: dev_split is 'validation', which animals lacks"),
        (
            ["--evaluate.splits", "test", "exam"],
            "^evaluate: splits is 'exam', which animals lacks; accepted: dev, test",
        ),
        (
            ["--distill.unlabelled_queries", "log.jsonl"],
            "^distill: unlabelled_queries log.jsonl is not a file; ",
        ),
        (["--distill.cross_encoder", "a/b"], "^distill: cross_encoder a/b cannot be read .*; accepted"),
        (["--distill.teacher", "a/b"], "^distill: teacher a/b cannot be read .*; accepted"),
        (["--distill.candidates", "13"], "^distill: candidates is 13; accepted: at most 12, the number of documents"),
        (["--distill.candidates", "1"], "^distill: candidates is 1 with 1 rounds; accepted: at least 1 at the start"),
        (["--distill.embedding_dim", "0"], "^distill: embedding_dim is 0; accepted: a whole number from 1 to 65,536"),
        (
            ["--distill.encoder", "3"],
            "^distill: encoder is 3 layers; accepted: 1 to 2, those of the teacher's backbone",
        ),
        (["--distill.encoder", "a/b"], "^distill: encoder a/b cannot be read .*; accepted"),
        (
            ["--distill.predictor_type", "paper"],
            "^distill: embedding_dim is 16; accepted with predictor_type paper: 32, the hidden size",
        ),
        (["--distill.mse_weight", "nan"], "^distill: .*mse_weight.*; accepted"),
        (
            ["--distill.metric_for_best_model", "loss"],
            "^distill: metric_for_best_model is 'loss'; accepted: success@1",
        ),
        (["--distill.predictor_type", "mlp"], "^distill: argument --predictor_type.*: invalid choice: 'mlp'"),
        (["--evaluate.run_files", "other.trec"], "^evaluate: run_files other.trec is not a file; accepted"),
        (["--evaluate.model", "a/b"], "^evaluate: model a/b cannot be read .*; accepted"),
        (["--evaluate.candidates", "0"], "^evaluate: candidates is 0; accepted"),
        (["--evaluate.max_queries", "0"], "^evaluate: max_queries is 0; accepted: 1 or more"),
        (["--evaluate.seed", "-1"], "^evaluate: seed is -1; accepted: 0 or more"),
    ],
)
def test_a_later_stage_that_could_not_run_stops_the_first(recipe: Path, flags: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pipeline.main(["--config", str(recipe), *flags])
    assert not Path(yaml.safe_load(recipe.read_text())["output_dir"]).exists()


def test_a_student_is_not_distilled_from_a_student(recipe: Path, student: Any, tmp_path: Path) -> None:
    student.save_pretrained(tmp_path / "student")
    with pytest.raises(ValueError, match="is a rabtriever model; accepted: a GenerativeRerankerModel"):
        distill.main(["--config", str(recipe), "--teacher", str(tmp_path / "student")])


def test_queries_are_not_written_by_another_model(recipe: Path, student: Any, tmp_path: Path) -> None:
    student.save_pretrained(tmp_path / "student")
    student.backbone.save_pretrained(tmp_path / "plain")
    for flags, message in (
        (["--model_name_or_path", str(tmp_path / "student")], "is a rabtriever; accepted: a causal language model"),
        (["--model_name_or_path", "a/b"], "model_name_or_path a/b cannot be read .*; accepted"),
        (["--temperature", "inf"], "temperature is inf; accepted"),
        (
            ["--model_name_or_path", str(tmp_path / "plain"), "--max_new_tokens", "128"],
            "max_new_tokens is 128; accepted: less than the model's context, 128",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            generate_queries.main(["--config", str(recipe), *flags])


def test_a_run_that_failed_does_not_block_its_folder(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails_at_the_first_step(*_: Any, **__: Any) -> None:
        raise ValueError("the teacher's loss is not finite")

    monkeypatch.setattr(Trainer, "train", fails_at_the_first_step)
    for flags in ([], ["--learning_rate", "1e-3"], ["--max_steps", "7"]):
        with pytest.raises(ValueError, match="not finite"):  # and not: holds a run with other settings
            train_reranker.main(["--config", str(recipe), *flags])


def test_a_file_or_a_read_only_place_is_no_output(recipe: Path, tmp_path: Path) -> None:
    for stage in (train_reranker, pipeline):
        with pytest.raises(ValueError, match=r"output_dir .*recipe.yaml is not a folder; accepted"):
            stage.main(["--config", str(recipe), "--output_dir", str(recipe / "run")])


def test_what_is_finished_is_not_checked_again(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its model may be on the Hub, and the Hub out of reach."""
    output = Path(yaml.safe_load(recipe.read_text())["output_dir"])
    checked = []
    for stage, module in pipeline._STAGES.items():
        monkeypatch.setattr(module, "check", lambda *_, stage=stage: checked.append(stage))
        monkeypatch.setattr(module, "main", lambda _: output)
    write_json(output / "teacher" / "stage.json", {"done": True})
    write_json(output / "student" / "stage.json", {"done": False})
    pipeline.main(["--config", str(recipe)])
    assert checked == ["distill", "evaluate"]
    checked.clear()
    pipeline.main(["--config", str(recipe), "--overwrite", "true"])
    assert checked == ["train_reranker", "distill", "evaluate"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("{", "is not a model configuration .*; accepted"),
        (
            '{"model_type": "qwen2", "model_type": "llama"}',
            "configuration .the key 'model_type' stands twice.; accepted",
        ),
        ("[1]", 'lacks "model_type" or "vocab_size"'),
        ({"model_type": "qwen9"}, "model_type is 'qwen9'; accepted"),
        ({"model_type": "t5"}, "model_type is 't5'; accepted: .* causal"),
        ({"vocab_size": "many"}, "describes a model that cannot run .*vocab_size"),
        ({"num_key_value_heads": 3}, "describes a model that cannot run"),
        ({"num_attention_heads": 0}, "describes a model that cannot run"),
        ({"hidden_act": "sharp"}, "describes a model that cannot run .*sharp"),
    ],
)
def test_a_configuration_that_is_none(recipe: Path, tmp_path: Path, change: Any, message: str) -> None:
    path = tmp_path / "backbone.json"
    whole = json.loads(path.read_text())
    path.write_text(change if isinstance(change, str) else json.dumps(whole | change))
    with pytest.raises(ValueError, match=message) as refused:
        read_backbone_config(path)
    assert str(path) in str(refused.value)


def test_the_instruction_asks_for_the_answers_that_are_trained() -> None:
    paper = (
        "Can Query be appropriately responded with Document? If the answer is true, choose {}; otherwise, choose {}."
    )
    assert PromptArguments().for_task("folder").instruction == paper.format("<T>", "<F>")
    given = PromptArguments(true_answer=" yes", false_answer=" no").for_task("folder")
    assert given.instruction == paper.format("yes", "no")
    own = PromptArguments(true_answer="yes", false_answer="no", instruction="Right?").for_task("folder")
    assert own.instruction == "Right?"


def test_an_instruction_that_asks_for_other_answers(recipe: Path) -> None:
    flags = ["--true_answer", "yes", "--false_answer", "no", "--instruction", "Choose <T> or <F>:"]
    with pytest.raises(ValueError, match="instruction asks for <T>, <F>, true_answer is 'yes', .*; accepted"):
        train_reranker.main(["--config", str(recipe), *flags])


def test_groups_of_train_and_dev_have_one_size(
    beir_folder: Path, reranker: GenerativeRerankerModel, tmp_path: Path
) -> None:
    """All negatives are as many as the query of either split with the fewest has; else dev's groups are torn apart."""
    with (beir_folder / "qrels" / "dev.tsv").open("a") as file:
        file.write("dev-give-0\td5\t1\n")
    task = load_beir(beir_folder)
    batches = {"per_device_train_batch_size": 11, "per_device_eval_batch_size": 11}
    config = RerankerTrainingConfig(output_dir=str(tmp_path / "x"), max_steps=1, dev_groups=13, **batches)
    trainer = make_trainer(reranker, task, task.split("train"), task.split("dev"), NegativeArguments(None), config)
    assert trainer.group_size == 11 and len(trainer.eval_dataset) == 13 * 11
    relevant = torch.tensor([row["labels"][-1] for row in trainer.eval_dataset]).view(13, 11)
    assert (relevant[:, 0] == reranker.config.true_token_id).all()
    assert (relevant[:, 1:] == reranker.config.false_token_id).all()
    groups = draw_groups(task, task.split("dev"), NegativeArguments(None), 0, count=3)
    assert {len(group) for _, group in islice(groups, 5)} == {4}


def test_settings_are_compared_only_with_runs_that_left_something(tmp_path: Path) -> None:
    settings = LoraArguments(lora_r=1)
    StageFolder(tmp_path, (settings,), {}, False).start()
    StageFolder(tmp_path, (LoraArguments(lora_r=2),), {}, False).finish()
    with pytest.raises(ValueError, match=r"lora_r \(2 there, 1 now\)"):
        StageFolder(tmp_path, (settings,), {}, False)
