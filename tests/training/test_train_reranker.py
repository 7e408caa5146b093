"""The stage that trains the teacher: LoRA leaves plain weights, and what was removed is refused."""

from pathlib import Path

import pytest
from transformers import AutoModel

from modeling_rabtriever.stages import train_reranker


def test_lora_is_merged_into_plain_weights(recipe: Path, tmp_path: Path) -> None:
    first = train_reranker.main(["--config", str(recipe), "--max_steps", "1"])
    before, plain = AutoModel.from_pretrained(first), tmp_path / "plain"
    before.backbone.save_pretrained(plain)
    before.processor.tokenizer.save_pretrained(plain)
    flags = ["--use_peft", "true", "--lora_r", "4", "--max_steps", "6", "--document_lm_weight", "0.1"]
    flags += ["--model_name_or_path", str(plain), "--output_dir", str(tmp_path / "lora")]
    folder = train_reranker.main(["--config", str(recipe), *flags])
    assert not list(folder.glob("*adapter*"))
    after = AutoModel.from_pretrained(folder)
    assert after.state_dict().keys() == before.state_dict().keys()
    changed = {name for name, weights in after.state_dict().items() if not weights.equal(before.state_dict()[name])}
    assert changed and all("_proj" in name for name in changed)


@pytest.mark.parametrize("option", ["--joint_weight", "--joint_learning_rate", "--dry_run"])
def test_options_that_are_gone_are_refused(recipe: Path, option: str) -> None:
    with pytest.raises(ValueError, match=f"unknown arguments for train_reranker: {option}"):
        train_reranker.main(["--config", str(recipe), option, "1"])


def test_a_recipe_with_the_section_of_a_stage_that_is_gone_is_refused(recipe: Path) -> None:
    with recipe.open("a") as file:
        file.write("train_reranker_dpo: {beta: 0.1}\n")
    with pytest.raises(ValueError, match="unknown keys for train_reranker: train_reranker_dpo"):
        train_reranker.main(["--config", str(recipe)])
