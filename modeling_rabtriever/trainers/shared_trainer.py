"""The base of the trainers: a run gives the same result on one process and on several, and checkpoints are complete.

The batch size of a recipe is per step, whatever the number of processes: all processes go through the same batches, and
each computes its part of every batch.
"""

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from accelerate.data_loader import BatchSamplerShard
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import ProgressCallback
from transformers.trainer_utils import EvalLoopOutput, rotate_checkpoints
from transformers.utils import logging

from ..files import writing
from ..machine import on_cpus_together
from ..progress import Lines, on_terminal
from .checkpoints import finish_checkpoint
from .processes import gather, on_main

OF_NO_USE = {"help": argparse.SUPPRESS}  # of options of transformers and TRL that have one value here: not in any help


def fit_to_machine(config: TrainingArguments) -> None:
    """Fills in what a recipe leaves open: bf16 if the GPU supports it, pinned memory if there is a GPU.

    Call it first in `__post_init__`: `TrainingArguments` checks the values there.
    """
    if on_cpus_together():
        config.use_cpu = True
    if config.ddp_find_unused_parameters is None:
        config.ddp_find_unused_parameters = False  # every trained weight is used, some of them outside `forward`
    if config.bf16 is None and not config.fp16:
        config.bf16 = torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    if not torch.cuda.is_available():
        config.dataloader_pin_memory = False  # otherwise torch warns for every data loader


@dataclass
class SharedArguments:
    """Settings that all trainers share; a base class to list before `TrainingArguments` or TRL's `SFTConfig`."""

    per_device_train_batch_size: int = field(
        default=8,
        metadata={
            "help": "Rows per step, whatever the number of processes: they divide the rows, so a recipe takes the "
            "same steps on one device and on many."
        },
    )
    logging_steps: float = field(
        default=10, metadata={"help": "Steps between two log lines; below 1, a share of all steps."}
    )
    save_total_limit: int | None = field(
        default=1, metadata={"help": "Checkpoints to keep; null keeps all. Resuming needs only the last one."}
    )
    bf16: bool | None = field(
        default=None,
        metadata={"help": "Compute in bfloat16; default: true if there is a GPU that supports it."},
    )
    remove_unused_columns: bool = field(default=False, metadata=OF_NO_USE)  # our collators read columns models do not


def check_columns(args: TrainingArguments) -> None:
    """Raises a ValueError if `remove_unused_columns` is true."""
    if args.remove_unused_columns:
        raise ValueError("remove_unused_columns is true; accepted: false")


def check_division(args: TrainingArguments, group_size: int = 1) -> None:
    """Refuses a batch size that the processes cannot divide evenly into groups of rows that stay on one process.

    Raises:
        ValueError: `per_device_train_batch_size` is not a multiple of processes times group size.
    """
    rows, least = args.per_device_train_batch_size, args.world_size * group_size
    if args.world_size > 1 and rows % least:
        raise ValueError(
            f"per_device_train_batch_size is {rows}, with {args.world_size} processes and groups of {group_size} rows; "
            f"accepted: a multiple of {least}, or another number of processes"
        )


@dataclass(frozen=True)
class PartCollator:
    """Collates this process's part of the rows of a batch.

    If a batch cannot be divided evenly (the last one of an epoch), every process reads all of it: the mean of equal
    gradients is the gradient.
    """

    collate: Callable[[list[Any]], Any]
    group_size: int
    processes: int
    process: int

    def __call__(self, rows: list[Any]) -> Any:
        """The collated part."""
        if len(rows) % (self.processes * self.group_size):
            return self.collate(rows)
        size = len(rows) // self.processes
        return self.collate(rows[self.process * size : (self.process + 1) * size])


class LinesCallback(TrainerCallback):
    """In place of transformers' bar where there is no terminal: a line per tenth of the steps, with the last values.

    `log.json` has the values of every `logging_steps`.
    """

    def __init__(self) -> None:
        self._lines = Lines(None, "training", "step")

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """A run that resumes starts at its checkpoint."""
        self._lines = Lines(state.max_steps, "training", "step", state.global_step)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        """Keeps loss and dev metrics for the next line."""
        unseen = ("_runtime", "_per_second")
        shown = {name: value for name, value in logs.items() if name == "loss" or name.startswith("eval_")}
        self._lines.values |= {name: value for name, value in shown.items() if not name.endswith(unseen)}

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """The earlier step is complete with its log and evaluation only when the next one begins."""
        if state.is_world_process_zero and logging.is_progress_bar_enabled():
            self._lines.update(state.global_step - self._lines.done)

    on_train_end = on_step_begin


class SharedTrainer(Trainer):
    """A base for trainers, alone or before a trainer of TRL: `class MyTrainer(SharedTrainer, SFTTrainer)`.

    Args:
        args: the settings.
        kwargs: those of the next class, `transformers.Trainer` or TRL's.

    Raises:
        ValueError: the processes cannot divide the batch, or the settings divide the model among processes.
    """

    model: nn.Module
    group_size = 1  # rows that must stay together on one process
    loss_is_scaled_for_ga = False  # every loss here is a mean over the batch
    _over = False  # whether the run had taken its last step when it resumed

    def __init__(self, *, args: TrainingArguments, **kwargs: Any) -> None:
        args._n_gpu = min(args.n_gpu, 1)  # with several GPUs per process, each would get a batch of its own
        check_division(args, self.group_size)
        super().__init__(args=args, **kwargs)
        if not on_terminal() and self.pop_callback(ProgressCallback) is not None:
            self.add_callback(LinesCallback())
        accelerator_config: Any = args.accelerator_config  # an object by now, even if a mapping or a file was given
        divided_otherwise = [
            ("FSDP", self.is_fsdp_enabled),
            ("DeepSpeed", self.is_deepspeed_enabled),
            ("dispatch_batches", accelerator_config.dispatch_batches),
            ("batch_rebalance", args.world_size > 1 and args.train_sampling_strategy == "batch_rebalance"),
        ]
        names = [name for name, on in divided_otherwise if on]
        if names:
            raise ValueError(
                f"{', '.join(names)} is on; accepted: processes that each hold the whole model and go through the same "
                "batches, as torchrun --nproc_per_node N starts them"
            )
        if args.world_size > 1:
            self.data_collator = PartCollator(self.data_collator, self.group_size, args.world_size, args.process_index)

    def get_train_dataloader(self) -> DataLoader[Any]:
        """As in transformers, but with whole batches, which the collator divides."""
        return _whole_batches(super().get_train_dataloader())

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader[Any]:
        """As in transformers, but with whole batches, which the collator divides."""
        return _whole_batches(super().get_eval_dataloader(eval_dataset))

    def get_total_train_batch_size(self, args: TrainingArguments) -> int:
        """Rows per optimizer step."""
        return args.per_device_train_batch_size * args.gradient_accumulation_steps

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """As in transformers, without the mean loss of a process that resumed after the last step and took none."""
        if self._over:
            logs.pop("train_loss", None)
        super().log(logs, start_time)

    def batch_means(self, means: Mapping[str, Tensor], counts: Mapping[str, int]) -> dict[str, Tensor]:
        """Turns means over this process's part of a batch into means over the batch.

        Args:
            means: name -> a scalar.
            counts: name -> number of rows or tokens in that mean, on this process.

        Returns:
            name -> a scalar that has the value of the whole batch on every process; the mean of its gradients over the
            processes is the gradient of the batch.
        """
        processes = self.args.world_size
        if processes == 1:
            return dict(means)
        own = torch.stack([mean.detach().float() for mean in means.values()])
        weights = torch.tensor([counts[name] for name in means], device=own.device, dtype=own.dtype)
        totals, sums = self.accelerator.reduce(torch.stack([weights, weights * own]), "sum")
        shares, whole = processes * weights / totals, sums / totals
        parts = {name: share * mean for (name, mean), share in zip(means.items(), shares, strict=True)}
        return {name: part + (value - part).detach() for (name, part), value in zip(parts.items(), whole, strict=True)}

    def batch_vectors(self, vectors: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """The vectors of a batch from all processes, each text once, with gradients to the process that encoded it.

        Args:
            vectors: `(m, k)`, of this process's part.
            rows: `(m,)` int64, the text of each vector.

        Returns:
            `(m', k)` and `(m',)`, the same on every process.
        """
        if self.args.world_size == 1:
            return vectors, rows
        counts = gather(len(rows))
        filled = functional.pad(vectors, (0, 0, 0, max(counts) - len(rows)))
        everything = _OfAllProcesses.apply(filled, self.args.process_index, self.args.world_size)
        parts = [part[:count] for part, count in zip(everything, counts, strict=True)]
        every, known = torch.cat(parts), torch.cat(gather(rows))
        rows, first = known.unique(return_inverse=True)
        place = torch.full_like(rows, len(known)).scatter_reduce(0, first, torch.arange(len(known)), "amin")
        return every[place.to(every.device)], rows

    def evaluation_loop(self, dataloader: DataLoader[Any], *args: Any, **kwargs: Any) -> EvalLoopOutput:
        """As in transformers, but counts the loss of a batch once, as every process has that of the whole batch."""
        if self.args.world_size > 1:
            self.gather_function = self._without_repetitions
        return super().evaluation_loop(dataloader, *args, **kwargs)

    def _without_repetitions(self, losses: Tensor) -> Tensor:
        state = self.accelerator.gradient_state
        return losses[: state.remainder] if state.end_of_dataloader and state.remainder > 0 else losses

    def _init_training_state(self, *args: Any) -> tuple[int, int]:
        """As in transformers, but a run that resumes after its last step takes no further one."""
        begin, skipped = super()._init_training_state(*args)
        self._over = self.state.global_step >= self.state.max_steps
        return (self.state.num_train_epochs, 0) if self._over else (begin, skipped)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """As in transformers, but writes checksums at the end, and only then deletes older checkpoints."""
        args, limit = self.args, self.args.save_total_limit
        output_dir = str(args.output_dir)
        folder = Path(output_dir) / f"checkpoint-{self.state.global_step}"
        args.save_total_limit = None
        with writing(folder):
            super()._save_checkpoint(model, trial)
        args.save_total_limit = limit
        gather(None)  # waits until every process has written its part

        def finish() -> None:
            finish_checkpoint(folder, args.world_size)
            rotate_checkpoints(output_dir, limit, self.state.best_model_checkpoint, use_mtime=True)

        on_main(finish)


class _OfAllProcesses(torch.autograd.Function):
    """Gathers tensors of equal shape from all processes; the backward pass sums the gradients of all processes."""

    @staticmethod
    def forward(context: Any, own: Tensor, process: int, processes: int) -> Tensor:
        context.process = process
        parts = [torch.empty_like(own) for _ in range(processes)]
        dist.all_gather(parts, own.contiguous())
        return torch.stack(parts)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        total = gradient.contiguous()
        dist.all_reduce(total)
        return total[context.process], None, None


def _whole_batches(loader: DataLoader[Any]) -> DataLoader[Any]:
    # Transformers does the same for samplers that divide batches themselves.
    if isinstance(loader.batch_sampler, BatchSamplerShard):
        loader.batch_sampler.num_processes, loader.batch_sampler.process_index = 1, 0
        loader.batch_sampler.even_batches = False  # a short batch is not filled up
    return loader
