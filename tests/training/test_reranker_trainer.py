"""The teacher's trainer: TRL's loss on the answer token, the listwise objective, and refusals."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import torch
from trl import SFTTrainer

from modeling_rabtriever import GenerativeRerankerModel
from modeling_rabtriever.evaluation.metrics import mean_metrics, rank_documents
from modeling_rabtriever.evaluation.samples import corpus_sample
from modeling_rabtriever.reranking.losses import listwise_cross_entropy
from modeling_rabtriever.reranking.pairs import pair_dataset
from modeling_rabtriever.reranking.reranker_trainer import RerankerTrainer, RerankerTrainingConfig
from modeling_rabtriever.reranking.watch import say_cost, watched_corpus
from modeling_rabtriever.tasks.beir import RetrievalTask, Split, load_beir
from tests.training.conftest import GROUPS

MakeTrainer: TypeAlias = Callable[..., RerankerTrainer]


def _batch(trainer: RerankerTrainer) -> dict[str, torch.Tensor]:
    return next(iter(trainer.get_train_dataloader()))


def test_sft_loss_is_trls(teacher_trainer: MakeTrainer) -> None:
    trainer = teacher_trainer()
    batch = _batch(trainer)
    ours = trainer.compute_loss(trainer.model, dict(batch))
    del batch["prefix_lengths"]
    theirs = SFTTrainer.compute_loss(trainer, trainer.model, dict(batch))
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-5)


def test_listwise_loss_is_the_softmax_over_log_odds_of_a_group(
    reranker: GenerativeRerankerModel, beir_folder: Path, teacher_trainer: MakeTrainer
) -> None:
    trainer = teacher_trainer(objective="listwise")
    loss = trainer.compute_loss(trainer.model, _batch(trainer))
    task = load_beir(beir_folder)
    log_odds = torch.stack(
        [
            reranker.predict([(task.split("train").queries[query], task.corpus[row]) for row in group])
            for query, group in GROUPS
        ]
    )
    assert loss.item() == pytest.approx(listwise_cross_entropy(log_odds).item(), rel=1e-4)
    expected = (log_odds.argmax(1) == 0).float().mean().item()
    logged: dict[str, float] = {}
    trainer.log(logged)
    assert logged["leads_group" if trainer.model.training else "eval_leads_group"] == expected


def test_what_is_logged_is_the_mean_since_the_last_log_of_its_kind(
    reranker: GenerativeRerankerModel, teacher_trainer: MakeTrainer
) -> None:
    trainer = teacher_trainer()
    batch = _batch(trainer)
    leads = []
    for _ in range(2):
        reranker.get_output_embeddings().weight.data.normal_()
        trainer.model.train()
        trainer.compute_loss(trainer.model, batch)
        pairs = trainer.model(batch["input_ids"], batch["attention_mask"])
        answers = batch["labels"].ne(-100).int().argmax(-1)
        logits = pairs.logits[torch.arange(16), answers - 1]
        log_odds = (logits[:, reranker.config.true_token_id] - logits[:, reranker.config.false_token_id]).view(4, 4)
        leads.append((log_odds.argmax(-1) == 0).float().mean().item())
    trainer.model.eval()
    between: dict[str, float] = {"eval_loss": 1.0}
    trainer.log(between)
    assert "leads_group" not in between and "eval_leads_group" not in between
    trainer.model.train()
    for expected in ({"leads_group": sum(leads) / 2}, {}):
        logged: dict[str, float] = {}
        trainer.log(logged)
        assert {name: logged[name] for name in logged if name == "leads_group"} == pytest.approx(expected)


@pytest.mark.parametrize("objective", ["sft", "listwise"])
def test_training_changes_the_wrapped_model(
    reranker: GenerativeRerankerModel, teacher_trainer: MakeTrainer, objective: str
) -> None:
    query, documents = "find me the ant", ["a story about the ant", "a story about the goat"]
    before = reranker.predict([(query, document) for document in documents])
    trainer = teacher_trainer(objective=objective, learning_rate=1e-2, num_train_epochs=1)
    trainer.train()
    after = reranker.eval().predict([(query, document) for document in documents])
    assert not torch.allclose(before, after)
    record = next(record for record in trainer.state.log_history if "train_loss" in record)
    assert record["train_loss"] > 0


def test_gradient_accumulation_averages(reranker: GenerativeRerankerModel, teacher_trainer: MakeTrainer) -> None:
    """Two half batches accumulated move the weights as one whole batch does."""
    start = {name: weight.clone() for name, weight in reranker.state_dict().items()}
    moved = []
    for size, steps in ((16, 1), (8, 2)):
        reranker.load_state_dict(start)
        teacher_trainer(
            per_device_train_batch_size=size,
            gradient_accumulation_steps=steps,
            optim="sgd",
            learning_rate=0.1,
            max_grad_norm=1e9,
            lr_scheduler_type="constant",
        ).train()
        moved.append(reranker.answer_rows)
    torch.testing.assert_close(moved[0], moved[1], atol=1e-5, rtol=1e-4)


def test_nan_loss_stops_training(reranker: GenerativeRerankerModel, teacher_trainer: MakeTrainer) -> None:
    trainer = teacher_trainer()
    reranker.get_output_embeddings().weight.data.fill_(float("nan"))
    with pytest.raises(ValueError, match="the teacher's loss is not finite"):
        trainer.train()


def test_batches_that_split_groups_are_refused(teacher_trainer: MakeTrainer) -> None:
    with pytest.raises(ValueError, match="per_device_train_batch_size is 6; accepted: a multiple of the group size 4"):
        teacher_trainer(per_device_train_batch_size=6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_length": 64}, "max_length is 64; accepted: set max_document_length"),
        ({"remove_unused_columns": True}, "remove_unused_columns is true; accepted: false"),
        ({"objective": "ranknet"}, "objective is 'ranknet'; accepted: sft, listwise"),
        ({"document_lm_weight": -1.0}, "document_lm_weight is -1.0; accepted: 0 or more"),
        ({"document_lm_weight": float("nan")}, "document_lm_weight is nan; accepted: 0 or more"),
    ],
)
def test_unusable_settings_are_refused(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RerankerTrainingConfig(output_dir=str(tmp_path), **settings)


def test_the_corpus_is_ranked_at_every_evaluation(
    reranker: GenerativeRerankerModel, beir_folder: Path, teacher_trainer: MakeTrainer
) -> None:
    """Beside the share of groups that a relevant document leads, which says nothing of all the other documents."""
    task = load_beir(beir_folder)
    dev = task.split("dev")
    trainer = teacher_trainer(
        eval_dataset=pair_dataset(GROUPS, dev, task.corpus, reranker.processor), eval_strategy="steps", eval_steps=1
    )
    trainer.corpus_watch = watched_corpus(task, dev)
    trainer.train()
    evaluated = next(record for record in trainer.state.log_history if "eval_loss" in record)
    scores = reranker.eval().score(dev.queries, task.corpus)
    expected = mean_metrics(rank_documents(scores, 10), dev.relevant)
    assert evaluated["eval_corpus_success@1"] == expected["success@1"] and "eval_leads_group" in evaluated
    found = trainer.evaluate()
    assert found["eval_corpus_mrr@10"] == expected["mrr@10"] and found["eval_loss"] > 0
    trainer.model.train()
    trainer.corpus_watch.measure(reranker)
    assert trainer.model.training


def test_evaluations_rank_in_the_precision_of_training(
    reranker: GenerativeRerankerModel,
    beir_folder: Path,
    teacher_trainer: MakeTrainer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    task = load_beir(beir_folder)
    dev = task.split("dev")
    groups = pair_dataset(GROUPS, dev, task.corpus, reranker.processor)
    trainer = teacher_trainer(eval_dataset=groups, bf16=True)
    trainer.corpus_watch = watched_corpus(task, dev)
    score, scored = reranker.score, []

    def recorded(*texts: Any) -> torch.Tensor:
        scored.append(score(*texts))
        return scored[-1]

    monkeypatch.setattr(reranker, "score", recorded)
    trainer.evaluate()
    reranker.eval()
    texts = (trainer.corpus_watch.queries, trainer.corpus_watch.documents)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(scored[0], score(*texts))
    assert not torch.equal(scored[0], score(*texts))


@pytest.mark.parametrize(
    ("documents", "strategy", "warns"), [(256, "steps", True), (256, "epoch", False), (78, "steps", False)]
)
def test_evaluations_that_rank_many_pairs_are_announced(
    documents: int, strategy: str, warns: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    split = Split("dev", [f"q{row}" for row in range(64)], [f"query {row}" for row in range(64)], [{0: 1}] * 64)
    task = RetrievalTask("many", [f"d{row}" for row in range(documents)], ["a text"] * documents, {})
    config = RerankerTrainingConfig(output_dir=str(tmp_path), eval_strategy=strategy, eval_steps=20, report_to="none")
    say_cost(watched_corpus(task, split), config)
    printed = capsys.readouterr().out
    assert ("Warning: with eval_steps 20, every evaluation scores 16,384 pairs with the teacher" in printed) == warns
    assert bool(printed) == warns


def test_what_is_watched_is_bounded_and_holds_the_relevant() -> None:
    relevant = [{row: 1, 5000 + row: 2} for row in range(500)]
    split = Split("dev", [f"q{row}" for row in range(500)], [f"query {row}" for row in range(500)], relevant)
    task = RetrievalTask("many", [f"d{row}" for row in range(9000)], [f"text {row}" for row in range(9000)], {})
    watch = watched_corpus(task, split)
    assert watch == watched_corpus(task, split)
    assert (len(watch.queries), len(watch.documents), len(set(watch.documents))) == (64, 256, 256)
    for query, relevant in zip(watch.queries, watch.relevant, strict=True):
        row = split.queries.index(query)
        assert {watch.documents[place]: grade for place, grade in relevant.items()} == {
            f"text {row}": 1, f"text {5000 + row}": 2,
        }  # fmt: skip
    log = [{"eval_leads_group": 0.5, "eval_corpus_success@1": 0.2, "eval_corpus_mrr@10": 0.3}]
    log += [{"eval_leads_group": 0.88, "eval_corpus_success@1": 0.138, "eval_corpus_mrr@10": 0.25}, {"loss": 1.0}]
    assert watch.line(log) == (
        "On dev a relevant document leads its group for 88.0% of the queries; in the corpus (64 queries, 256 of 9,000 "
        "documents) the teacher has R@1 13.8, MRR@10 25.0."
    )
    assert watch.line([{"loss": 1.0}]) == ""


def test_a_sample_takes_fewer_queries_where_many_documents_are_relevant() -> None:
    relevant = [{10 * query + place: 1 for place in range(10)} for query in range(30)]
    queries, documents = corpus_sample(relevant, 1000, 30, 50)
    assert len(queries) == 5 and documents == sorted(row for query in queries for row in relevant[query])
    queries, documents = corpus_sample([dict.fromkeys(range(80), 1)], 1000, 30, 50)
    assert queries == [0] and documents == list(range(80))
    assert corpus_sample(relevant, 300, 30, 400) == (list(range(30)), list(range(300)))
