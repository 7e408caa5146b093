"""Training of the student: predictor and encoder are fitted to the teacher, partly on candidates the student finds."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor, nn

from ..evaluation.metrics import mean_metrics, rank_documents
from ..reranking.losses import check_finite
from ..trainers.processes import on_main
from ..trainers.shared_trainer import SharedTrainer
from .cache_fingerprints import texts_fingerprint
from .candidates import (
    DOCUMENT_BLOCK,
    best_documents,
    draw_on_policy,
    keep_round,
    kept_rounds,
    positives_and_uniform,
)
from .distillation_config import RabtrieverDistillationConfig
from .encoder_training import parameter_groups
from .labels import Labels
from .losses import answer_reverse_kl, hidden_state_mse, label_cross_entropy, listwise_kl
from .refresh import RefreshCallback
from .sides import FrozenSide, MovingSide
from .student import StudentOutput, TrainingPredictor, TrainingStudent
from .teacher_states import TeacherScores, TeacherStates

SAMPLING_SCORES = 64_000_000  # held in memory at once while drawing candidates: 256 MB in fp32
FITTED_TEXTS = 8192  # queries, and documents, to whose features the whitening of a training encoder is fitted


class RabtrieverDistillationTrainer(SharedTrainer):
    """Fits a student to the teacher's rankings and, if a weight is set, to its hidden states.

    A training row is a query. Its first candidates are relevant and uniformly drawn documents. In each of `rounds`
    rounds, new candidates are drawn from the student's own distribution over the corpus, and the teacher scores them.

    Args:
        model: the student.
        teacher: the cache of the teacher's scores of training queries and documents, by their rows: `TeacherStates` of
            the reranker the student was made from, or `TeacherScores` of any other scorer, which allows the listwise
            loss only.
        documents: the corpus.
        train_dataset: columns `query` (text), `relevant` (list of corpus rows; empty for a query without labels) and
            `row` (that of the query for the teacher; without the column, the number of the line).
        eval_dataset: the columns `query` and `relevant`; every evaluation ranks the whole corpus for these queries.
            `None` allows no evaluations.
        args: the settings.
        candidates: `(n, c)` corpus rows, fixed candidates of each training query; the trainer then draws none itself.
        kwargs: those of `transformers.Trainer`.

    Raises:
        ValueError: no candidates are left to draw, a loss needs states that the teacher does not have, or a loss is
            not finite.
    """

    args: RabtrieverDistillationConfig
    model: TrainingStudent

    def __init__(
        self,
        model: TrainingStudent,
        teacher: TeacherScores,
        documents: Sequence[str],
        train_dataset: Dataset,
        eval_dataset: Dataset | None,
        args: RabtrieverDistillationConfig,
        candidates: Tensor | None = None,
        **kwargs: Any,
    ) -> None:
        if candidates is None:
            args.check_candidates(len(documents))
        self._states = teacher if isinstance(teacher, TeacherStates) and teacher.states else None
        if (args.needs_states and self._states is None) or (args.kl_weight and not isinstance(teacher, TeacherStates)):
            raise ValueError(
                f"mse_weight is {args.mse_weight} and kl_weight is {args.kl_weight}, but this teacher gives scores "
                "without states; accepted: 0 for both, with listwise_weight above 0"
            )
        if (args.mse_weight or args.kl_weight) and not isinstance(model.predictor, TrainingPredictor):
            raise ValueError(
                f"mse_weight is {args.mse_weight} and kl_weight is {args.kl_weight}; accepted: 0 for both, because a "
                "student that starts from a retriever's cosines predicts no state"
            )
        queries = list(train_dataset["query"])
        self.teacher, self._given = teacher, candidates
        self.rounds = args.rounds if candidates is None else 0  # in which candidates are drawn, after the start
        asked = train_dataset["row"] if "row" in train_dataset.column_names else range(len(queries))
        self._asked = torch.tensor(list(asked))  # (n,) rows of the queries for the teacher
        self._relevant = [list(rows) for rows in train_dataset["relevant"]]
        self._labels = Labels(self._relevant, documents) if args.label_share else None
        self._moving = args.train_encoder != "none"
        shift = getattr(model.predictor, "shift", None)
        if shift is not None and not (args.mse_weight or args.kl_weight):
            shift.requires_grad_(False)  # it adds the same number to all scores of a query
        self._queries, self._documents = self._side(model, "query", queries), self._side(model, "document", documents)
        if model.whitens and isinstance(model.predictor, TrainingPredictor):
            model.predictor.fit_whitening(self._queries.sample(FITTED_TEXTS), self._documents.sample(FITTED_TEXTS))
        if eval_dataset is not None:
            self._eval_relevant = [dict.fromkeys(rows, 1) for rows in eval_dataset["relevant"]]
            self._eval_queries = self._side(model, "query", list(eval_dataset["query"]))
        self.candidates = torch.empty(len(queries), 0, dtype=torch.long)  # (n, c) corpus rows, grows by rounds
        names = ("max_steps", "num_train_epochs", "rounds", "candidates", "label_share", "seed")
        self._run = {name: str(getattr(args, name)) for name in names}  # what a run that resumes must begin with
        self._run["digest of the training queries"] = texts_fingerprint(queries, list(map(str, self._relevant)))
        self._terms: dict[str, list[float]] = {}
        super().__init__(
            model=model,
            args=args,
            train_dataset=Dataset.from_dict({"row": range(len(queries))}),
            eval_dataset=None if eval_dataset is None else Dataset.from_dict({"row": range(len(eval_dataset))}),
            data_collator=lambda rows: {"rows": torch.tensor([row["row"] for row in rows])},
            **kwargs,
        )
        self.add_callback(RefreshCallback(self))

    def create_optimizer(self, *args: Any) -> torch.optim.Optimizer:
        """As in transformers, with a separate learning rate for the encoder."""
        if self.optimizer is None and self._moving:
            kind, settings = self.get_optimizer_cls_and_kwargs(self.args, self.model)
            decayed = self.get_decay_parameter_names(self.model)
            groups = parameter_groups(self.model, decayed, self.args.weight_decay, self.args.encoder_learning_rate)
            self.optimizer = kind(groups, **settings)
        return super().create_optimizer(*args)

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Tensor], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The weighted sum of the terms in `terms`, on the current candidates of a batch of queries."""
        rows = inputs["rows"].cpu()
        documents = self.candidates[rows]
        # A document is read once, even if it is a candidate of several queries in the batch.
        distinct = torch.cat([documents.flatten(), self._hard_negatives(rows)]).unique()
        places = torch.searchsorted(distinct, documents)
        with self.accelerator.autocast():
            query, document = self._queries.features(rows), self._documents.features(distinct)
        output = model(query_features=query, document_features=document, document_places=places.to(document.device))
        terms = self.terms(output, rows, documents, distinct)
        terms = self.batch_means(terms, dict.fromkeys(terms, len(rows)))
        check_finite("the student's loss", **{name: term.detach() for name, term in terms.items()})
        for name, term in terms.items():
            self._terms.setdefault(name, []).append(term.item())
        loss = torch.stack([getattr(self.args, f"{name}_weight") * term for name, term in terms.items()]).sum()
        return (loss, output) if return_outputs else loss

    def terms(self, output: StudentOutput, rows: Tensor, documents: Tensor, distinct: Tensor) -> dict[str, Tensor]:
        """Every loss term whose weight is not 0, unweighted.

        Args:
            output: of the student, for `(n, c)` pairs.
            rows: `(n,)`, the training queries.
            documents: `(n, c)`, their candidates, a relevant one first.
            distinct: `(m,)`, the documents of the batch, each once.
        """
        queries, device = self._asked[rows].unsqueeze(1).expand_as(documents), output.logits.device
        teacher = self.teacher.logits(queries, documents).to(device)
        terms = {}
        if self.args.listwise_weight:
            terms["listwise"] = self._listwise(output, teacher, rows, documents, distinct)
        if self.args.mse_weight and self._states is not None and output.hidden_state is not None:
            states = self._states.hidden_states(queries, documents).to(device)
            terms["mse"] = hidden_state_mse(output.hidden_state, states)
        if self.args.kl_weight:
            terms["kl"] = answer_reverse_kl(output.logits, teacher)
        return terms

    def _listwise(
        self, output: StudentOutput, teacher: Tensor, rows: Tensor, documents: Tensor, distinct: Tensor
    ) -> Tensor:
        share, temperature = self.args.label_share, self.args.temperature
        if self._labels is None:
            return listwise_kl(output.scores, teacher, temperature)
        vectors, batch = self.batch_vectors(output.document_embeds, distinct)
        relevant = self._labels.relevant_in(rows, batch).to(teacher.device)
        unlabelled = ~self._labels.labelled_in(batch).to(teacher.device)
        scores = self.model.similarity(output.query_embeds, vectors).masked_fill(unlabelled, -torch.inf)
        weights = 1 - share * relevant.any(1).float()
        return listwise_kl(output.scores, teacher, temperature, weights) + share * label_cross_entropy(
            scores, relevant, temperature
        )

    def _hard_negatives(self, rows: Tensor) -> Tensor:
        if self._labels is None:
            return rows[:0]
        return self._labels.hard_negatives(rows, f"{self.args.seed}-{self.state.global_step}")

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds the mean of each loss term since the last log, and the number of pairs the teacher has scored."""
        if "loss" in logs:
            logs.update({name: sum(values) / len(values) for name, values in self._terms.items()})
            logs["teacher_pairs"] = self.teacher_pairs
            self._terms.clear()
        super().log(logs, start_time)

    @torch.no_grad()
    def evaluate(self, *_: Any, metric_key_prefix: str = "eval", **__: Any) -> dict[str, float]:
        """Ranks the whole corpus for every evaluation query: `eval_success@1`, `eval_mrr@10`, ..."""
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in self._ranked().items()}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    @property
    def teacher_pairs(self) -> int:
        """Pairs of this run that the teacher has scored, including pairs that were already in the cache."""
        return self.candidates.numel()

    def refresh(self, round_: int) -> None:
        """Adds the candidates of a round: relevant and uniform documents in round 0, the student's own in later rounds.

        Before round 0 it also looks for the hard negatives, with the untrained student. The main process draws, and
        saves the result beside the checkpoints, so that a resumed run trains on the same documents.
        """
        if self._given is not None:
            new = self._given
        elif round_ == 0:
            seed, count = f"{self.args.seed}-candidates", self.args.drawn(0)
            new = positives_and_uniform(self._relevant, len(self._documents), count, seed)
        else:
            new = self._draw(round_)
        self.teacher.score(self._asked.repeat_interleave(new.shape[1]), new.flatten())
        self.candidates = torch.cat([self.candidates, new], dim=1)
        kept = {"documents": new}
        if self._labels is not None and round_ == 0:
            kept["hard_negatives"] = self._labels.hard = self._found_hard_negatives(self._labels)
        on_main(lambda: keep_round(Path(str(self.args.output_dir)), round_, kept, self._run))

    def restore(self, rounds: int) -> None:
        """Reads the candidates of the first `rounds` rounds of an interrupted run.

        Raises:
            ValueError: a file of candidates is missing or is not as it was written, or a run with other settings or
                queries wrote it.
        """
        kept = on_main(lambda: kept_rounds(Path(str(self.args.output_dir)), rounds, self._run))
        self.candidates = torch.cat([one["documents"] for one in kept], dim=1)
        if self._labels is not None:
            self._labels.hard = kept[0]["hard_negatives"]
        # The cache has all of them, unless it was deleted.
        self.teacher.score(self._asked.repeat_interleave(self.candidates.shape[1]), self.candidates.flatten())

    def _ranked(self) -> dict[str, float]:
        documents = self._document_vectors()
        run = []
        for queries in self._query_vectors(self._eval_queries).split(self._rows_per_block()):
            run.extend(rank_documents(self.model.similarity(queries, documents), depth=10))
        return mean_metrics(run, self._eval_relevant)

    @torch.no_grad()
    def _draw(self, round_: int) -> Tensor:
        query_vectors, document_vectors = self._query_vectors(self._queries), self._document_vectors()
        size = max(1, SAMPLING_SCORES // min(len(self._documents), DOCUMENT_BLOCK))
        blocks = torch.arange(len(self._queries)).split(size)
        generator = torch.Generator().manual_seed(self.args.seed * 1009 + round_)
        count = self.args.drawn(round_)

        def drawn(rows: Tensor) -> Tensor:
            queries = query_vectors[rows.to(query_vectors.device)]
            scores, found = best_documents(queries, document_vectors, self.candidates[rows])
            return draw_on_policy(scores, found, count, generator)

        return on_main(lambda: torch.cat([drawn(rows) for rows in blocks]))

    def _found_hard_negatives(self, labels: Labels) -> Tensor:
        if not len(labels.queries):
            return labels.hard
        with self.accelerator.autocast():
            queries = self._queries.mapped(self.model.predictor.encode_query, labels.queries)
            documents = self._documents.mapped(self.model.predictor.encode_document, labels.documents)
        return on_main(lambda: labels.find_hard_negatives(queries, documents))

    def _side(self, model: TrainingStudent, side: str, texts: Sequence[str]) -> FrozenSide | MovingSide:
        return MovingSide(model, side, texts) if self._moving else FrozenSide(model, side, texts, self.teacher.folder)

    def _document_vectors(self) -> Tensor:
        with self.accelerator.autocast():
            return self._documents.mapped(self.model.predictor.encode_document)

    def _query_vectors(self, queries: FrozenSide | MovingSide) -> Tensor:
        with self.accelerator.autocast():
            return queries.mapped(self.model.predictor.encode_query)

    def _rows_per_block(self) -> int:
        return max(1, SAMPLING_SCORES // len(self._documents))
