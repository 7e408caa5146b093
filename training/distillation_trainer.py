"""Training of the student: the predictor is fitted to the frozen teacher, on candidates the student picks itself."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from trl.trainer.base_config import _BaseConfig
from trl.trainer.base_trainer import _BaseTrainer

from evaluation.metrics import mean_metrics, rank_documents
from modeling_rabtriever import GenerativeRerankerModel, RabtrieverModel
from modeling_rabtriever.files import write_tensors
from training.candidates import positives_and_uniform, sample_from_student
from training.losses import answer_reverse_kl, check_finite, hidden_state_mse, listwise_reverse_kl
from training.machine import fit_to_machine
from training.teacher_states import TeacherStates, cached_features

# Scores held at once while sampling: 64 million fp32 numbers are 256 MB.
SAMPLING_SCORES = 64_000_000
STATES_DTYPES = ("float32", "float16")


@dataclass
class RabtrieverDistillationConfig(_BaseConfig):
    """Settings of `RabtrieverDistillationTrainer` beyond `TrainingArguments`."""

    mse_weight: float = field(default=0.1, metadata={"help": "Weight of the MSE between predicted and teacher state."})
    kl_weight: float = field(
        default=0.1, metadata={"help": "Weight of the reverse KL at the answer position, over the two answers."}
    )
    listwise_weight: float = field(
        default=1.0, metadata={"help": "Weight of the reverse KL over each query's candidate documents."}
    )
    temperature: float = field(default=2.0, metadata={"help": "Temperature of the listwise reverse KL."})
    initial_candidates: int = field(
        default=16, metadata={"help": "Candidates per query at the start: its positives, the rest uniform."}
    )
    refresh_rounds: int = field(
        default=3, metadata={"help": "How often candidates are added while training, at equal distances."}
    )
    refresh_candidates: int = field(default=8, metadata={"help": "Candidates added per query and round."})
    on_policy_fraction: float = field(
        default=1.0,
        metadata={"help": "Share of the added candidates drawn from the student's own distribution; rest uniform."},
    )
    sampling_temperature: float = field(
        default=1.0, metadata={"help": "Temperature of the student's distribution when candidates are drawn."}
    )
    whitening_damping: float | None = field(
        default=0.1,
        metadata={
            "help": "Damping of the frozen map that decorrelates the features while training "
            "(RabtrieverPredictor.fit_whitening); null trains on the features as they are, as the paper does."
        },
    )
    states_dtype: str = field(
        default="float32",
        metadata={"help": "Type of the teacher's states on disk.", "choices": STATES_DTYPES},
    )
    activation_checkpointing: bool | None = field(
        default=False, metadata={"help": "Stays false: the backbone is not run while the predictor trains."}
    )
    remove_unused_columns: bool | None = field(
        default=False, metadata={"help": "Stays false: batches hold row numbers, which the model never sees."}
    )

    def __post_init__(self) -> None:
        if self.bf16 is None and not self.fp16:
            self.bf16 = False  # predictor and losses are fp32; there is nothing large to save on
        fit_to_machine(self)
        super().__post_init__()
        weights = {name: getattr(self, name) for name in ("mse_weight", "kl_weight", "listwise_weight")}
        if min(weights.values()) < 0 or not any(weights.values()):
            raise ValueError(f"{weights}; accepted: none below 0 and at least one above")
        for name in ("temperature", "sampling_temperature"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}; accepted: a number above 0")
        if not 0 <= self.on_policy_fraction <= 1:
            raise ValueError(f"on_policy_fraction is {self.on_policy_fraction}; accepted: 0 to 1")
        if self.states_dtype not in STATES_DTYPES:
            raise ValueError(f"states_dtype is {self.states_dtype!r}; accepted: {', '.join(STATES_DTYPES)}")
        if self.refresh_rounds < 0:
            raise ValueError(f"refresh_rounds is {self.refresh_rounds}; accepted: 0 or more")


class RabtrieverDistillationTrainer(_BaseTrainer):
    """Fits the predictor to the teacher's states and rankings, reading everything but the predictor from a cache.

    A training row is a query. Its candidates start as positives and uniform documents; at `refresh_rounds` points of
    the run new ones are drawn from the student's own distribution over the corpus, and the teacher is asked about them.

    Args:
        model: the student; its backbone stays as it is.
        teacher: the frozen reranker the student was made from.
        documents: the corpus.
        train_dataset: columns `query` (text) and `relevant` (list of corpus rows).
        eval_dataset: the same columns; ranked over the whole corpus at every evaluation.
        states_folder: cache of teacher states, shared by runs on the same teacher, prompt and texts.
        args: the settings.
        kwargs: those of `transformers.Trainer`.

    Raises:
        ValueError: no candidates are left to draw, a query has no relevant document, the cache belongs to another
            teacher, or a loss is not finite.
    """

    _tag_names = ["rabtriever", "distillation"]  # noqa: RUF012 (TRL's convention)
    _name = "Rabtriever distillation"
    _paper = {  # noqa: RUF012
        "title": "Efficient Rationale-based Retrieval: On-policy Distillation from Generative Rerankers based on JEPA",
        "id": "2604.23336",
    }
    loss_is_scaled_for_ga = False  # the loss is a mean over the batch

    def __init__(
        self,
        model: RabtrieverModel,
        teacher: GenerativeRerankerModel,
        documents: list[str],
        train_dataset: Dataset,
        eval_dataset: Dataset,
        states_folder: Path,
        args: RabtrieverDistillationConfig,
        **kwargs: Any,
    ) -> None:
        total = args.initial_candidates + args.refresh_rounds * args.refresh_candidates
        if total > len(documents):
            raise ValueError(
                f"initial_candidates + refresh_rounds * refresh_candidates is {total}; accepted: at most the corpus, "
                f"{len(documents)} documents"
            )
        queries = list(train_dataset["query"])
        self._relevant = [list(rows) for rows in train_dataset["relevant"]]
        self._eval_relevant = [dict.fromkeys(rows, 1) for rows in eval_dataset["relevant"]]
        self.states = TeacherStates(states_folder, teacher, queries, documents, getattr(torch, args.states_dtype))
        features = (
            ("documents", model.document_features, documents),
            ("train-queries", model.query_features, queries),
            ("eval-queries", model.query_features, list(eval_dataset["query"])),
        )
        documents_, queries_, eval_queries = (
            cached_features(states_folder, name, model, compute, texts) for name, compute, texts in features
        )
        if args.whitening_damping is not None:
            model.predictor.fit_whitening(queries_, documents_, args.whitening_damping)
        with torch.no_grad():  # everything before the predictor is frozen, so it is computed once
            self._documents = model.predictor.whiten_document(documents_)
            self._queries, self._eval_queries = (
                model.predictor.whiten_query(queries_),
                model.predictor.whiten_query(eval_queries),
            )
        self.candidates = torch.empty(len(queries), 0, dtype=torch.long)  # (n, c) corpus rows, grows by rounds
        self._terms: dict[str, list[float]] = {}
        super().__init__(
            model=model,
            args=args,
            train_dataset=Dataset.from_dict({"row": range(len(queries))}),
            eval_dataset=Dataset.from_dict({"row": range(len(self._eval_relevant))}),
            data_collator=lambda rows: {"rows": torch.tensor([row["row"] for row in rows])},
            **kwargs,
        )
        self.add_callback(_Refresh(self))

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Tensor], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """`listwise_weight * L + mse_weight * MSE + kl_weight * KL` on the current candidates of a batch of queries."""
        rows = inputs["rows"].cpu()
        documents = self.candidates[rows]
        asked = rows.unsqueeze(1).expand_as(documents)
        device = self.args.device
        output = model(
            query_features=self._queries[rows].to(device), document_features=self._documents[documents].to(device)
        )
        teacher_logits = self.states.logits(asked, documents).to(device)
        weights = {"listwise": self.args.listwise_weight, "mse": self.args.mse_weight, "kl": self.args.kl_weight}
        terms: dict[str, Tensor] = {}
        if weights["listwise"]:
            terms["listwise"] = listwise_reverse_kl(output.logits, teacher_logits, self.args.temperature)
        if weights["mse"]:
            target = self.states.hidden_states(asked, documents).to(device)
            terms["mse"] = hidden_state_mse(output.hidden_state, target)
        if weights["kl"]:
            terms["kl"] = answer_reverse_kl(output.logits, teacher_logits)
        check_finite("the student's loss", **{name: term.detach() for name, term in terms.items()})
        for name, term in terms.items():
            self._terms.setdefault(name, []).append(term.item())
        loss = torch.stack([weights[name] * term for name, term in terms.items()]).sum()
        return (loss, output) if return_outputs else loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds the mean of each loss term since the last log, and the teacher's bill so far."""
        if "loss" in logs:
            logs.update({name: sum(values) / len(values) for name, values in self._terms.items()})
            logs["teacher_pairs"] = len(self.states)
            self._terms.clear()
        super().log(logs, start_time)

    @torch.no_grad()
    def evaluate(self, *_: Any, metric_key_prefix: str = "eval", **__: Any) -> dict[str, float]:
        """Ranks the whole corpus for every evaluation query: `eval_success@1`, `eval_mrr@10`, ..."""
        documents = self._document_vectors()
        run = []
        for features in self._eval_queries.split(self._rows_per_block()):
            run.extend(rank_documents(self._scores(features, documents), depth=10))
        metrics = {f"{metric_key_prefix}_{k}": v for k, v in mean_metrics(run, self._eval_relevant).items()}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def refresh(self, round_: int) -> None:
        """Adds the candidates of a round: round 0 is positives and uniform ones, later rounds ask the student.

        The draw is kept beside the checkpoints, so that a resumed run trains on the same candidates.
        """
        path = self._candidates_path(round_)
        if round_ == 0:
            seed = f"{self.args.seed}-candidates"
            new = positives_and_uniform(self._relevant, len(self._documents), self.args.initial_candidates, seed)
        else:
            new = self._draw(round_)
        rows = torch.arange(len(new)).unsqueeze(1).expand_as(new)
        self.states.ask(rows.flatten(), new.flatten())
        self.candidates = torch.cat([self.candidates, new], dim=1)
        write_tensors(path, {"documents": new})

    def restore(self, rounds: int) -> None:
        """Reads the candidates of the first `rounds` rounds of an interrupted run."""
        drawn = [load_file(self._candidates_path(round_))["documents"] for round_ in range(rounds)]
        self.candidates = torch.cat(drawn, dim=1)

    @torch.no_grad()
    def _draw(self, round_: int) -> Tensor:
        generator = torch.Generator().manual_seed(self.args.seed * 1009 + round_)
        documents = self._document_vectors()
        blocks = zip(
            self._queries.split(self._rows_per_block()), self.candidates.split(self._rows_per_block()), strict=True
        )
        return torch.cat(
            [
                sample_from_student(
                    self._scores(features, documents).cpu(),
                    asked,
                    self.args.refresh_candidates,
                    self.args.on_policy_fraction,
                    self.args.sampling_temperature,
                    generator,
                )
                for features, asked in blocks
            ]
        )

    def _document_vectors(self) -> Tensor:
        blocks = self._documents.split(65536)
        return torch.cat([self.model.predictor.encode_document(block.to(self.args.device)) for block in blocks])

    def _scores(self, query_features: Tensor, documents: Tensor) -> Tensor:
        query = self.model.predictor.encode_query(query_features.to(self.args.device), self.model.answer_direction)
        return self.model.similarity(query, documents)

    def _rows_per_block(self) -> int:
        return max(1, SAMPLING_SCORES // len(self._documents))

    def _candidates_path(self, round_: int) -> Path:
        return Path(self.args.output_dir) / f"candidates-{round_:03d}.safetensors"


class _Refresh(TrainerCallback):
    """Calls `refresh` at the start of the run and at equal distances after it."""

    def __init__(self, trainer: RabtrieverDistillationTrainer) -> None:
        self.trainer = trainer

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        trainer = self.trainer
        rounds = trainer.args.refresh_rounds + 1
        starts = [round_ * state.max_steps // rounds for round_ in range(rounds)]
        if trainer.candidates.shape[1] == 0 and state.global_step > 0:
            trainer.restore(sum(start < state.global_step for start in starts))
        for round_, start in enumerate(starts):
            if start == state.global_step:
                trainer.refresh(round_)
