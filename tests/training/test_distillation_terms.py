"""What the student's trainer computes: its terms, labels, other queries' documents, teachers with scores alone."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset

from modeling_rabtriever import GenerativeRerankerModel
from modeling_rabtriever.distillation.distillation_trainer import RabtrieverDistillationTrainer
from modeling_rabtriever.distillation.features import read_features
from modeling_rabtriever.distillation.losses import answer_reverse_kl, hidden_state_mse, listwise_kl
from modeling_rabtriever.distillation.teacher_states import TeacherScores, TeacherStates
from modeling_rabtriever.stages import distill
from modeling_rabtriever.stages.recipe import parse_stage
from modeling_rabtriever.tasks.beir import RetrievalTask, load_beir
from tests.training.students import make_trainer

ALONE = {"mse_weight": 0.0, "kl_weight": 0.0}  # the listwise term


@pytest.fixture
def task(beir_folder: Path) -> RetrievalTask:
    return load_beir(beir_folder)


def pairs_of(
    trainer: RabtrieverDistillationTrainer, reranker: GenerativeRerankerModel, task: RetrievalTask, rows: torch.Tensor
) -> dict[str, torch.Tensor]:
    """What student and teacher say of the candidates of some queries, each pair read by itself."""
    student, queries = trainer.model, task.split("train").queries
    found: dict[str, list[torch.Tensor]] = {"scores": [], "logits": [], "predicted": [], "teacher": [], "states": []}
    for row in rows.tolist():
        documents = [task.corpus[place] for place in trainer.candidates[row].tolist()]
        places = torch.arange(len(documents))[None]
        output = student(
            read_features(student, "query", [queries[row]]), read_features(student, "document", documents), places
        )
        asked = reranker(**reranker.processor(query=[queries[row]] * len(documents), document=documents))
        for name, value in (
            ("scores", output.scores[0]),
            ("logits", output.logits[0]),
            ("predicted", output.hidden_state[0]),
            ("teacher", asked.logits),
            ("states", asked.hidden_state),
        ):
            found[name].append(value)
    return {name: torch.stack(values) for name, values in found.items()}


@pytest.mark.parametrize("how", ["none", "full"])
@pytest.mark.parametrize("shape", [None, {"predictor_type": "paper"}], ids=["hadamard", "paper"])
def test_loss_is_the_weighted_sum_over_scored_pairs(
    reranker: GenerativeRerankerModel, task: RetrievalTask, tmp_path: Path, shape: dict[str, Any] | None, how: str
) -> None:
    weights = {"listwise_weight": 0.5, "mse_weight": 2.0, "kl_weight": 3.0}
    trainer = make_trainer(reranker, task, tmp_path, shape, temperature=1.7, train_encoder=how, **weights)
    assert (trainer.model.predictor.query_whitening is None) == (shape is not None)
    trainer.refresh(0)
    rows = torch.tensor([5, 2])
    loss = trainer.compute_loss(trainer.model, {"rows": rows})
    known = pairs_of(trainer, reranker, task, rows)
    expected = (
        0.5 * listwise_kl(known["scores"], known["teacher"], 1.7)
        + 2.0 * hidden_state_mse(known["predicted"], known["states"])
        + 3.0 * answer_reverse_kl(known["logits"], known["teacher"])
    )
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4)


def test_the_papers_recipe_is_equations_12_and_13(
    reranker: GenerativeRerankerModel, task: RetrievalTask, tmp_path: Path
) -> None:
    """Last tokens' states, `h_hat = f(x_Q) * x_D` with a 2-layer ReLU MLP of the hidden size, MSE + 1/4 reverse KL."""
    flags = ["--config", "household", "--config", "students/paper", "--output_dir", str(tmp_path)]
    _, _, shape, *_, config = parse_stage("distill", distill.ARGUMENTS, flags)
    names = ("train_encoder", "listwise_weight", "mse_weight", "kl_weight", "rounds", "label_share")
    settings = {name: getattr(config, name) for name in names}
    trainer = make_trainer(reranker, task, tmp_path, vars(shape), candidates=4, **settings)
    trainer.refresh(0)
    rows = torch.tensor([7, 3, 30])
    loss = trainer.compute_loss(trainer.model, {"rows": rows})

    student, queries = trainer.model, task.split("train").queries
    weights = dict(student.predictor.named_parameters())
    assert {name for name, weight in student.named_parameters() if weight.requires_grad} == {
        f"predictor.{layer}.{part}" for layer in ("query_hidden", "query_output") for part in ("weight", "bias")
    }
    assert weights["query_hidden.weight"].shape == weights["query_output.weight"].shape == (32, 32)

    def last_state(ids: list[int]) -> torch.Tensor:
        return reranker.backbone.base_model(input_ids=torch.tensor([ids])).last_hidden_state[0, -1]

    squares, divergences = [], []
    for row in rows.tolist():
        (ids,) = reranker.processor.query_ids([queries[row]])
        hidden = (weights["query_hidden.weight"] @ last_state(ids) + weights["query_hidden.bias"]).clamp(min=0)
        factors = weights["query_output.weight"] @ hidden + weights["query_output.bias"]
        for document in trainer.candidates[row].tolist():
            text = task.corpus[document]
            (ids,) = reranker.processor.document_ids([text])
            predicted = factors * last_state(ids)
            asked = reranker(**reranker.processor(query=[queries[row]], document=[text]))
            squares += (predicted - asked.hidden_state[0]).square().tolist()
            true_row, false_row = reranker.answer_rows
            p = 1 / (1 + math.exp(-(predicted @ true_row - predicted @ false_row).item()))
            q = 1 / (1 + math.exp(-asked.logits.item()))
            divergences.append(p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q)))
    expected = sum(squares) / len(squares) + 0.25 * sum(divergences) / len(divergences)
    assert loss.item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_labels_are_a_share_of_the_loss(
    reranker: GenerativeRerankerModel, task: RetrievalTask, tmp_path: Path, share: float
) -> None:
    """The loss of a batch, against naive sums over each query's list.

    The teacher's share is over the query's own candidates, the labels' share over the documents of the batch that are
    relevant to some query: 0 to 4, but not 5, 6 and 7; 9 only if it is drawn as a hard negative. Of the relevant
    documents of a query, one is a candidate of the next query instead of its own. The last query has no labels: the
    teacher's share is all.
    """
    rows = torch.arange(5)
    relevant = [[0, 1], [1, 2], [2, 3], [3, 4, 9], []]
    train = Dataset.from_dict({"query": task.split("train").queries[:5], "relevant": relevant})
    given = rows[:, None] + torch.tensor([0, 3])
    trainer = make_trainer(reranker, task, tmp_path, train_dataset=train, given=given, label_share=share, **ALONE)
    trainer.refresh(0)
    every = trainer.model.similarity(trainer._query_vectors(trainer._queries), trainer._document_vectors())
    drawn = set(trainer._hard_negatives(rows).tolist())
    assert drawn <= {0, 1, 2, 3, 4, 9} and bool(drawn) == bool(share)
    batch = sorted({0, 1, 2, 3, 4} | drawn)
    total = 0.0
    for row, own in enumerate(given.tolist()):
        log_p = (every[row, own] / 2).log_softmax(0)
        q = (trainer.teacher.logits(torch.full((2,), row), torch.tensor(own)) / 2).softmax(0)
        soft = float((q * (q.log() - log_p)).sum())
        log_p = (every[row, batch] / 2).log_softmax(0)
        positives = [place for place, document in enumerate(batch) if document in relevant[row]]
        labels = -sum(float(log_p[place]) for place in positives) / max(1, len(positives))
        total += ((1 - share) * soft + share * labels if positives else soft) / len(rows)
    loss = trainer.compute_loss(trainer.model, {"rows": rows})
    assert loss.item() == pytest.approx(total, rel=1e-4)


@pytest.mark.parametrize("term", ["mse_weight", "kl_weight"])
def test_a_teacher_without_states_leaves_the_listwise_term(
    reranker: GenerativeRerankerModel, task: RetrievalTask, tmp_path: Path, term: str
) -> None:
    scores = TeacherScores(
        tmp_path / "scores", 36, lambda q, d: {"logits": -((q % 12 - d) ** 2).float()}, {"scorer": "distance"}
    )
    with pytest.raises(ValueError, match="but this teacher gives scores without states; accepted: 0 for both"):
        make_trainer(reranker, task, tmp_path, teacher=scores, **{**ALONE, term: 0.1})
    trainer = make_trainer(reranker, task, tmp_path, teacher=scores, candidates=4, **ALONE)
    trainer.train()
    assert len(scores) == trainer.teacher_pairs == 36 * 4


def test_the_kl_reads_no_states(reranker: GenerativeRerankerModel, task: RetrievalTask, tmp_path: Path) -> None:
    queries = task.split("train").queries
    teacher = TeacherStates(tmp_path / "states", reranker, queries, task.corpus, states=False)
    make_trainer(reranker, task, tmp_path, teacher=teacher, mse_weight=0.0).train()
    with pytest.raises(ValueError, match="mse_weight is 0.1 and .*accepted: 0 for both"):
        make_trainer(reranker, task, tmp_path, teacher=teacher)
