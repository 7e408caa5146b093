"""A teacher's trainer on the animals, for the tests of its losses."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from modeling_rabtriever import GenerativeRerankerModel
from training.pairs import PairGroups, pair_dataset
from training.reranker_trainer import RerankerTrainer, RerankerTrainingConfig
from training.tasks.beir import load_beir

GROUPS = PairGroups([0, 1, 2, 3], [[0, 5, 6, 7], [1, 5, 6, 7], [2, 5, 6, 7], [3, 0, 1, 2]])


@pytest.fixture
def teacher_trainer(
    reranker: GenerativeRerankerModel, beir_folder: Path, tmp_path: Path
) -> Callable[..., RerankerTrainer]:
    """A trainer of the `reranker` of the test, over `GROUPS`."""

    def make(**settings: Any) -> RerankerTrainer:
        task = load_beir(beir_folder)
        peft_config = settings.pop("peft_config", None)
        config = RerankerTrainingConfig(
            output_dir=str(tmp_path / "checkpoints"),
            train_sampling_strategy="sequential",
            activation_checkpointing=False,
            report_to="none",
            use_cpu=True,
            **{"per_device_train_batch_size": 16, "per_device_eval_batch_size": 16, "max_steps": 1, **settings},
        )
        return RerankerTrainer(
            group_size=4,
            reranker=reranker,
            args=config,
            train_dataset=pair_dataset(GROUPS, task.split("train"), task.corpus, reranker.processor),
            peft_config=peft_config,
        )

    return make
