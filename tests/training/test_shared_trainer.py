"""What all trainers share: batches that several processes divide, and how they stand on transformers' trainer.

The division itself is held in test_processes.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import Trainer, TrainingArguments

from modeling_rabtriever.reranking.reranker_trainer import RerankerTrainingConfig
from modeling_rabtriever.trainers import processes
from modeling_rabtriever.trainers.shared_trainer import PartCollator, check_division


@pytest.mark.parametrize(
    ("rows", "parts"),
    [
        (8, [[0, 1, 2, 3], [4, 5, 6, 7]]),
        (4, [[0, 1], [2, 3]]),
        (6, [[0, 1, 2, 3, 4, 5]] * 2),  # three groups: both read all of them
        (2, [[0, 1]] * 2),
    ],
)
def test_groups_stay_whole(rows: int, parts: list[list[int]]) -> None:
    assert [PartCollator(list, 2, 2, process)(list(range(rows))) for process in (0, 1)] == parts


class _OnProcesses(TrainingArguments):
    """Settings of one of four processes."""

    @property
    def world_size(self) -> int:
        return 4


def test_batches_that_cannot_be_divided_are_refused(tmp_path: Path) -> None:
    args = _OnProcesses(output_dir=str(tmp_path), per_device_train_batch_size=24, report_to="none", use_cpu=True)
    check_division(args)
    check_division(args, group_size=6)
    with pytest.raises(ValueError, match="is 24, with 4 processes and groups of 4 rows; accepted: a multiple"):
        check_division(args, group_size=4)


def test_one_process_takes_one_device(teacher_trainer: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Else transformers multiplies the batch by the GPUs it sees."""
    post_init = RerankerTrainingConfig.__post_init__

    def on_four_gpus(config: RerankerTrainingConfig) -> None:
        post_init(config)
        config._n_gpu = 4

    monkeypatch.setattr(RerankerTrainingConfig, "__post_init__", on_four_gpus)
    trainer = teacher_trainer()
    assert trainer.args.n_gpu == 1 and trainer.args.train_batch_size == trainer._train_batch_size == 16


def test_private_names_of_transformers_are_there_and_have_no_public_twin(tmp_path: Path) -> None:
    """`SharedTrainer` uses these three, for want of public ones; docs/decisions.md says why."""
    args = TrainingArguments(output_dir=str(tmp_path), report_to="none", use_cpu=True)
    assert callable(Trainer._save_checkpoint) and not hasattr(Trainer, "save_checkpoint")
    assert callable(Trainer._init_training_state) and not hasattr(Trainer, "init_training_state")
    assert args._n_gpu == args.n_gpu
    with pytest.raises(AttributeError):
        args.n_gpu = 1


def test_the_model_itself_is_not_divided(teacher_trainer: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match="^dispatch_batches is on; accepted: processes that each hold the whole model"):
        teacher_trainer(accelerator_config={"dispatch_batches": True})


def test_means_are_those_of_the_whole_batch(
    teacher_trainer: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes with one and three rows: value and gradient are those of the mean of four."""
    rows = torch.tensor([1.0, 2.0, 3.0, 6.0], requires_grad=True)
    parts = (rows[:1].mean(), rows[1:].mean())
    trainer = teacher_trainer()
    monkeypatch.setattr(type(trainer.args), "world_size", property(lambda _: 2))
    sums = sum(torch.stack([torch.tensor([n]), n * part.detach()[None]]) for n, part in zip((1, 3), parts, strict=True))

    def reduce(own: Tensor, how: str) -> Tensor:
        assert how == "sum" and own.shape == sums.shape
        return sums

    monkeypatch.setattr(trainer.accelerator, "reduce", reduce)
    found = [trainer.batch_means({"loss": part}, {"loss": n})["loss"] for n, part in zip((1, 3), parts, strict=True)]
    assert [value.item() for value in found] == pytest.approx([3.0, 3.0])
    (gradient,) = torch.autograd.grad(sum(found) / 2, rows)
    assert gradient.tolist() == pytest.approx([0.25] * 4)


def test_a_process_that_is_gone_ends_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(*_: Any, **__: Any) -> None:
        raise RuntimeError("Connection closed by peer")

    monkeypatch.setattr(processes, "_group", object)
    monkeypatch.setattr(processes.dist, "all_gather_object", closed)
    with pytest.raises(ConnectionError, match="another process of this run has ended"):
        processes.gather(1)


def test_the_main_process_alone_has_all_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "process_count", lambda: 2)
    monkeypatch.setattr(processes, "process_index", lambda: 0)
    assert processes.own_part(range(5)) == range(2)
    with processes._standing_alone():
        assert processes.own_part(range(5)) == range(5)
