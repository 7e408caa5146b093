"""DPO of the teacher: TRL's loss is the logistic loss it should be, and the stage improves on its reference."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch.nn import functional as F
from transformers import AutoModel

from modeling_rabtriever import GenerativeRerankerModel
from modeling_rabtriever.reranking.pairs import PairGroups, preference_dataset
from modeling_rabtriever.stages import train_reranker, train_reranker_dpo
from modeling_rabtriever.stages.train_reranker_dpo import RerankerDPOConfig, RerankerDPOTrainer
from modeling_rabtriever.tasks.beir import load_beir

BETA = 0.3


def _config(folder: Path, **settings: Any) -> RerankerDPOConfig:
    options = {"output_dir": str(folder), "beta": BETA, "use_cpu": True, "bf16": False, "disable_tqdm": True}
    return RerankerDPOConfig(**{**options, "per_device_train_batch_size": 8, "seed": 1, **settings})


def test_loss_is_the_logistic_loss_of_the_log_odds(
    make_reranker: Any, beir_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = load_beir(beir_folder)
    train = task.split("train")
    groups = PairGroups([0, 1], [[0, 5, 7, 9], [1, 2, 4, 11]])
    reranker = make_reranker()
    rows = preference_dataset(groups, train, task.corpus, reranker.processor)
    trainer = RerankerDPOTrainer(
        model=reranker.backbone, args=_config(tmp_path), train_dataset=rows,
        processing_class=reranker.processor.tokenizer,
    )  # fmt: skip
    pairs = [
        (train.queries[q], task.corpus[d]) for q, ds in zip(groups.queries, groups.documents, strict=True) for d in ds
    ]
    reference = reranker.predict(pairs)
    with torch.no_grad():  # the policy moves away from its reference
        for weights in reranker.backbone.parameters():
            weights.add_(0.02 * torch.randn_like(weights))
    sign = torch.tensor([1.0, -1, -1, -1, 1, -1, -1, -1])
    expected = -F.logsigmoid(BETA * sign * (reranker.predict(pairs) - reference)).mean()
    batch = next(iter(torch.utils.data.DataLoader(trainer.train_dataset, 8, collate_fn=trainer.data_collator)))
    reranker.backbone.eval()
    loss = trainer.compute_loss(trainer.model, batch)
    torch.testing.assert_close(loss, expected, atol=1e-5, rtol=0)
    assert abs(expected.item() - 0.6931) > 0.001


@pytest.fixture
def recipe(beir_folder: Path, tmp_path: Path) -> Path:
    backbone = tmp_path / "backbone.json"
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    sizes |= {"num_key_value_heads": 2, "max_position_embeddings": 64, "initializer_range": 0.1}
    backbone.write_text(json.dumps({"model_type": "qwen2", "vocab_size": 400, **sizes}))
    shared = {"negatives_per_positive": 3, "per_device_train_batch_size": 16, "per_device_eval_batch_size": 16}
    shared |= {"logging_steps": 5, "save_steps": 5, "learning_rate": 5e-3, "dev_groups": 8, "seed": 1}
    prompt = {"instruction": "Relevant:", "max_document_length": 16, "max_query_length": 16}
    content = {
        "data": str(beir_folder),
        "output_dir": str(tmp_path / "run"),
        "train_reranker": {"model_name_or_path": str(backbone), "max_steps": 20, **prompt, **shared},
        "train_reranker_dpo": {"max_steps": 15, "eval_strategy": "steps", "eval_steps": 5, **shared},
    }
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def test_the_reference_reads_no_more_pairs_than_the_run_uses(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train_reranker.main(["--config", str(recipe), "--max_steps", "1"])
    sizes: list[int] = []

    def recorded(groups: PairGroups, *rest: Any) -> Any:
        sizes.append(len(groups))
        return preference_dataset(groups, *rest)

    monkeypatch.setattr(train_reranker_dpo, "preference_dataset", recorded)
    train_reranker_dpo.main(["--config", str(recipe), "--max_steps", "3"])
    assert sizes == [3 * 16 // 4, 8]  # groups of four pairs; the second are those of dev


def test_stage_moves_the_teacher_towards_the_right_answers(recipe: Path, tmp_path: Path, capsys: Any) -> None:
    with pytest.raises(ValueError, match="run python -m training.train_reranker first"):
        train_reranker_dpo.main(["--config", str(recipe)])
    before = AutoModel.from_pretrained(train_reranker.main(["--config", str(recipe)]))
    folder = train_reranker_dpo.main(["--config", str(recipe)])
    after = AutoModel.from_pretrained(folder)
    assert isinstance(after, GenerativeRerankerModel)
    assert not torch.equal(after.answer_rows, before.answer_rows)
    log = json.loads((folder.parent / "log.json").read_text())
    margins = [record["rewards/margins"] for record in log if "rewards/margins" in record]
    assert margins[-1] > margins[0]
    assert any("eval_loss" in record for record in log)
    train_reranker_dpo.main(["--config", str(recipe)])
    assert "teacher (DPO): done before" in capsys.readouterr().out


@pytest.mark.parametrize("module", [train_reranker, train_reranker_dpo])
def test_lora_is_merged_into_plain_weights(recipe: Path, tmp_path: Path, module: Any) -> None:
    first = train_reranker.main(["--config", str(recipe)])
    flags = ["--config", str(recipe), "--use_peft", "true", "--lora_r", "4", "--max_steps", "6"]
    if module is train_reranker:
        flags += ["--model_name_or_path", str(tmp_path / "plain")]
        start = AutoModel.from_pretrained(first)
        start.backbone.save_pretrained(tmp_path / "plain")
        start.processor.tokenizer.save_pretrained(tmp_path / "plain")
        flags += ["--output_dir", str(tmp_path / "lora")]
    folder = module.main(flags)
    assert not list(folder.glob("*adapter*"))
    before, after = AutoModel.from_pretrained(first), AutoModel.from_pretrained(folder)
    assert after.state_dict().keys() == before.state_dict().keys()
    changed = {name for name, weights in after.state_dict().items() if not weights.equal(before.state_dict()[name])}
    assert changed and all("_proj" in name for name in changed)


def test_settings_that_do_nothing_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="max_length is 64"):
        _config(tmp_path, max_length=64)
