"""The paper's ablation without the product: an MLP on both states joined. No inner product, so no index can serve it.

It stands where the student does (trainer, evaluation), but what it calls vectors are the features themselves, and every
score runs the MLP on one pair.
"""

import torch
from modeling_rabtriever.distillation.anchors import drawn_anchors
from modeling_rabtriever.modeling_predictor import RabtrieverPredictor, fold
from torch import Tensor, nn
from transformers import set_seed

from modeling_rabtriever import GenerativeRerankerModel, RabtrieverConfig, RabtrieverModel
from modeling_rabtriever.distillation.distillation_trainer import RabtrieverDistillationTrainer
from modeling_rabtriever.distillation.teacher_states import TeacherStates
from modeling_rabtriever.distillation.training import judged_queries
from modeling_rabtriever.stages import distill
from modeling_rabtriever.stages.recipe import parse_stage
from modeling_rabtriever.tasks.beir import load_beir
from modeling_rabtriever.trainers.stage_folder import model_digest

PAIRS_PER_BLOCK = 65_536


class ConcatPredictor(RabtrieverPredictor):
    """`h_hat = MLP([x_Q; x_D])`, two layers with ReLU."""

    def __init__(self, config: RabtrieverConfig) -> None:
        super().__init__(config)
        units = config.predictor_hidden_size
        self.of_query = nn.Linear(config.query_feature_size, units)  # the first layer, in its two halves
        self.of_document = nn.Linear(config.document_feature_size, units)
        self.to_state = nn.Linear(units, config.hidden_size)

    def forward(self, query_features: Tensor, document_features: Tensor, answer_direction: Tensor) -> Tensor:
        """`(n, features)` and `(n, features)` [`(n, c, features)`] -> `(n, d)` [`(n, c, d)`]."""
        query = self.of_query(query_features)
        if document_features.dim() == 3:
            query = query.unsqueeze(1)
        return self.to_state((query + self.of_document(document_features)).relu())

    @torch.no_grad()
    def fold_whitening(self) -> None:
        """Moves the whitening into the two halves of the first layer."""
        if self.config.feature_whitening:
            fold(self.query_whitening, self.of_query)
            fold(self.document_whitening, self.of_document)
            self.query_whitening = self.document_whitening = None
            self.config.feature_whitening = False

    def encode_query(self, query_features: Tensor, answer_direction: Tensor) -> Tensor:
        """The features as they are."""
        return query_features

    def encode_document(self, document_features: Tensor) -> Tensor:
        """The features as they are."""
        return document_features


class ConcatModel(RabtrieverModel):
    """A student whose score is no inner product."""

    def __init__(self, config: RabtrieverConfig) -> None:
        super().__init__(config)
        self.predictor = ConcatPredictor(config)

    @torch.no_grad()
    def similarity(self, query_embeds: Tensor, document_embeds: Tensor) -> Tensor:
        """The MLP on every pair: `(n, features)` and `(m, features)` -> `(n, m)` fp32."""
        rows = []
        for queries in query_embeds.split(max(1, PAIRS_PER_BLOCK // len(document_embeds))):
            documents = document_embeds.expand(len(queries), -1, -1)
            rows.append(self.predictor(queries, documents, self.answer_direction) @ self.answer_direction)
        return torch.cat(rows)


def concat_trainer(reranker: GenerativeRerankerModel, argv: list[str]) -> RabtrieverDistillationTrainer:
    """A trainer of the ablation with the settings of a `training.distill` command line, and that run's cache.

    Args:
        reranker: the teacher that `--teacher` names.
        argv: the command line.
    """
    run, asked, shape, *_, config = parse_stage("distill", distill.ARGUMENTS, argv)
    task = load_beir(run.data, run.skip_bad)
    judged, dev = run.splits(task)
    unjudged = (asked.unjudged_queries, config.output_dir, run.skip_bad)
    train, inputs = distill.training_queries(task, run.train_split, *unjudged)
    inputs["teacher"] = model_digest(asked.teacher)
    states = distill.states_folder(asked.states, inputs)
    set_seed(config.seed)
    anchors = drawn_anchors(reranker.processor, task.corpus, judged.queries, config.seed, **shape.anchors())
    return RabtrieverDistillationTrainer(
        model=ConcatModel.from_teacher(reranker, **anchors, **shape.predictor()),
        teacher=TeacherStates(states, reranker, train.queries, task.corpus, getattr(torch, config.states_dtype)),
        documents=task.corpus,
        train_dataset=judged_queries(train),
        eval_dataset=None if dev is None else judged_queries(dev),
        args=config,
    )


def concat_student(reranker: GenerativeRerankerModel, argv: list[str]) -> ConcatModel:
    """The trained ablation."""
    trainer = concat_trainer(reranker, argv)
    trainer.train()
    model = trainer.model.eval()
    model.predictor.fold_whitening()
    return model
