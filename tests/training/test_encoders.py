"""Students whose encoder trains: what they start from, what a step reads and changes, and what is left at the end."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from sentence_transformers import SentenceTransformer

from modeling_rabtriever import GenerativeRerankerModel, RabtrieverModel
from modeling_rabtriever.distillation.distillation_config import RabtrieverDistillationConfig
from modeling_rabtriever.distillation.encoder_training import finish_encoder, train_encoder
from modeling_rabtriever.distillation.encoders import Encoder, other_encoder, student_of, teachers_encoder
from modeling_rabtriever.distillation.features import read_features
from modeling_rabtriever.distillation.student import UNIT_SCALE, TrainingStudent
from modeling_rabtriever.distillation.student_arguments import StudentArguments
from modeling_rabtriever.distillation.training import distill, finished
from modeling_rabtriever.stages.distill import main as distill_main
from modeling_rabtriever.tasks.beir import load_beir
from tests.conftest import DOCUMENTS, QUERIES, fresh_student
from tests.training.students import make_trainer
from tests.training.tiny_encoders import SPECIAL, write_encoder, write_sentence_transformer


def student_on(encoder: Encoder, reranker: GenerativeRerankerModel, **shape: Any) -> TrainingStudent:
    return student_of(encoder, reranker.answer_direction, StudentArguments(**shape))


@pytest.mark.parametrize("pooling", ["mean", "cls", "lasttoken"])
@pytest.mark.parametrize("family", SPECIAL)
def test_another_encoder_reads_as_it_does_by_itself(
    reranker: GenerativeRerankerModel, tmp_path: Path, family: str, pooling: str
) -> None:
    folder = write_sentence_transformer(tmp_path / "st", family, pooling, "bring ")
    student = student_on(other_encoder(str(folder), reranker.processor), reranker)
    theirs = SentenceTransformer(str(folder), device="cpu")
    for side, texts, prompt in (("document", DOCUMENTS, ""), ("query", QUERIES, "bring ")):
        own = read_features(student, side, texts)
        alone = torch.cat([theirs.encode([prompt + text], convert_to_tensor=True) for text in texts])
        torch.testing.assert_close(torch.nn.functional.normalize(own), alone, atol=1e-5, rtol=0)
    served = student.served()
    served.save_pretrained(tmp_path / "student")
    again = RabtrieverModel.from_pretrained(tmp_path / "student")
    torch.testing.assert_close(again.encode_query(QUERIES), served.encode_query(QUERIES))
    assert again.processor.true_token_id is None


def test_limits_leave_room_for_the_encoders_frame(
    make_reranker: Callable[..., GenerativeRerankerModel], tmp_path: Path
) -> None:
    reranker = make_reranker()
    reranker.processor = reranker.processor.replace(max_document_length=60, max_query_length=20)
    encoder = other_encoder(str(write_encoder(tmp_path / "roberta", "roberta")), reranker.processor)
    assert encoder.processor.max_document_length == 36  # 40 positions less padding's two and the two special tokens
    assert encoder.processor.max_query_length == 20
    read_features(student_on(encoder, reranker), "document", ["bring the ladder " * 30])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"modules.json": [{"path": "", "type": "x.Transformer"}, {"path": "1_Pooling", "type": "x.WordWeights"}]},
         "has modules Transformer, WordWeights; accepted: Transformer, Pooling, Normalize"),
        ({"1_Pooling/config.json": {"embedding_dimension": 24, "pooling_mode": "weightedmean"}},
         "pools by weightedmean; accepted: one of cls, mean, lasttoken"),
    ],
)  # fmt: skip
def test_what_an_encoder_cannot_do_is_refused(
    reranker: GenerativeRerankerModel, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    folder = write_sentence_transformer(tmp_path / "st", "bert", "mean")
    for name, content in changes.items():
        (folder / name).write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message):
        other_encoder(str(folder), reranker.processor)


def test_a_folder_that_is_no_model_is_refused(reranker: GenerativeRerankerModel, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"encoder .* cannot be loaded .*; accepted: a Hub id or a folder"):
        other_encoder(str(tmp_path), reranker.processor)


def test_the_first_layers_of_the_teacher(reranker: GenerativeRerankerModel) -> None:
    student = student_on(teachers_encoder(reranker, 1), reranker)
    assert student.config.text_config.num_hidden_layers == len(student.backbone.layers) == 1
    (ids,) = reranker.processor.document_ids(DOCUMENTS[:1])
    states = reranker.backbone.base_model(input_ids=torch.tensor([ids]), output_hidden_states=True).hidden_states
    last = reranker.backbone.base_model.norm(states[1][0])
    expected = torch.cat([last[-1], last.mean(0)])
    torch.testing.assert_close(read_features(student, "document", DOCUMENTS[:1])[0], expected)
    trained = student_on(teachers_encoder(reranker, 1, "full"), reranker)  # one pooling, as servers have
    torch.testing.assert_close(read_features(trained, "document", DOCUMENTS[:1])[0], last[-1])
    with pytest.raises(ValueError, match="encoder is 3 layers; accepted: 1 to 2, those of the teacher's backbone"):
        teachers_encoder(reranker, 3)


def test_the_whole_backbone_is_copied(reranker: GenerativeRerankerModel) -> None:
    """The student's weights are its own: training them leaves the teacher as it is."""
    student = fresh_student(reranker)
    torch.testing.assert_close(student.backbone.state_dict(), reranker.backbone.base_model.state_dict())
    pointers = {weight.data_ptr() for weight in reranker.parameters()}
    assert not pointers & {weight.data_ptr() for weight in student.parameters()}


def test_a_retriever_of_unit_vectors_starts_with_its_cosines(reranker: GenerativeRerankerModel, tmp_path: Path) -> None:
    folder = write_sentence_transformer(tmp_path / "st", "bert", "mean", "bring ")
    student = student_on(other_encoder(str(folder), reranker.processor), reranker)
    assert student.config.unit_vectors and not student.whitens
    theirs, served = SentenceTransformer(str(folder), device="cpu"), student.served()
    cosines = theirs.similarity(theirs.encode_query(QUERIES), theirs.encode_document(DOCUMENTS))
    ours = served.similarity(served.encode_query(QUERIES), served.encode_document(DOCUMENTS))
    torch.testing.assert_close(ours, cosines, atol=1e-5, rtol=0)
    torch.testing.assert_close(served.encode_document(DOCUMENTS).norm(dim=1), torch.ones(len(DOCUMENTS)))
    places = torch.arange(len(DOCUMENTS)).expand(len(QUERIES), -1)
    features = (read_features(student, side, texts) for side, texts in (("query", QUERIES), ("document", DOCUMENTS)))
    output = student(*features, places)
    assert output.hidden_state is None
    torch.testing.assert_close(output.scores, UNIT_SCALE * cosines, atol=1e-3, rtol=0)


def test_a_student_of_unit_vectors_has_no_state_to_compare(
    reranker: GenerativeRerankerModel, beir_folder: Path, tmp_path: Path
) -> None:
    folder = write_sentence_transformer(tmp_path / "st", "bert", "mean")
    config = RabtrieverDistillationConfig(str(tmp_path / "run"), mse_weight=0.1, candidates=4, use_cpu=True)
    with pytest.raises(ValueError, match=r"mse_weight is 0.1 .*accepted: 0 for both, because a student that starts"):
        distill(reranker, load_beir(beir_folder), config, StudentArguments(encoder=str(folder)))


def test_a_retriever_of_any_length_starts_with_its_products(reranker: GenerativeRerankerModel, tmp_path: Path) -> None:
    folder = write_sentence_transformer(tmp_path / "st", "bert", "mean", unit=False)
    student = student_on(other_encoder(str(folder), reranker.processor), reranker)
    queries, documents = (
        read_features(student, side, texts) for side, texts in (("query", QUERIES), ("document", DOCUMENTS))
    )
    assert not student.whitens
    served = student.served()
    scores = served.similarity(served.encode_query(QUERIES), served.encode_document(DOCUMENTS))
    products = queries @ documents.T
    assert torch.corrcoef(torch.stack([products.flatten(), scores.flatten()]))[0, 1] > 0.98
    assert torch.equal(scores.argmax(1), products.argmax(1))
    torch.testing.assert_close(scores, (student.predictor.scale * queries) @ documents.T, atol=1e-5, rtol=1e-5)
    assert 0 < (student.predictor.scale - 1).abs().mean() < 0.2  # all features count alike, but for noise


def test_other_encoders_start_with_a_fresh_predictor(reranker: GenerativeRerankerModel, tmp_path: Path) -> None:
    folder = write_encoder(tmp_path / "plain", "bert")
    student = student_on(other_encoder(str(folder), reranker.processor), reranker, embedding_dim=8)
    assert student.whitens and student.config.embedding_dim == 8 and student.config.query_hidden_size == 4 * 24


@pytest.mark.parametrize("how", ["none", "lora", "full"])
def test_what_trains(reranker: GenerativeRerankerModel, beir_folder: Path, tmp_path: Path, how: str) -> None:
    task = load_beir(beir_folder)
    before = reranker.backbone.base_model.state_dict()
    trainer = make_trainer(
        reranker, task, tmp_path, train_encoder=how, max_steps=40, encoder_learning_rate=1e-2, learning_rate=1e-2,
        mse_weight=0.0, kl_weight=0.0, logging_steps=5,
    )  # fmt: skip
    whitening = trainer.model.predictor.document_whitening.weight.clone()
    trainer.train()
    losses = [record["listwise"] for record in trainer.state.log_history if "listwise" in record]
    assert losses[-1] < 0.5 * losses[0]
    assert torch.equal(trainer.model.predictor.document_whitening.weight, whitening)
    vectors = trainer._document_vectors()
    student = finished(trainer)
    torch.testing.assert_close(student.encode_document(task.corpus), vectors, atol=1e-4, rtol=1e-4)
    after = student.backbone.state_dict()
    assert after.keys() == before.keys()
    moved = {name for name in after if not torch.equal(after[name], before[name])}
    linear = {name for name in after if "proj" in name and name.endswith("weight")}
    assert moved == {"none": set(), "lora": linear, "full": set(after)}[how]
    assert not any(weight.requires_grad for weight in student.parameters())


def test_adapters_are_merged_into_plain_weights(reranker: GenerativeRerankerModel) -> None:
    student = fresh_student(reranker)
    train_encoder(student, "lora")
    for name, weight in student.named_parameters():
        if "lora_B" in name:
            weight.data.normal_()
    vectors = read_features(student, "document", DOCUMENTS)
    merged = {}
    for name, weight in reranker.backbone.base_model.state_dict().items():
        module, _, kind = name.rpartition(".")
        merged[name] = weight.clone()
        if "proj" in module and kind == "weight":
            layer = student.backbone.get_submodule(module)
            merged[name] += 2 * layer.lora_B["default"].weight @ layer.lora_A["default"].weight  # lora_alpha / r = 2
    finish_encoder(student, "lora")
    torch.testing.assert_close(student.backbone.state_dict(), merged, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(read_features(student, "document", DOCUMENTS), vectors, atol=1e-4, rtol=1e-4)


def test_the_encoder_has_a_learning_rate_of_its_own(
    reranker: GenerativeRerankerModel, beir_folder: Path, tmp_path: Path
) -> None:
    trainer = make_trainer(
        reranker, load_beir(beir_folder), tmp_path, train_encoder="full", learning_rate=0.02,
        encoder_learning_rate=0.003, weight_decay=0.5,
    )  # fmt: skip
    optimizer = trainer.create_optimizer()
    names = {id(weight): name for name, weight in trainer.model.named_parameters()}
    found = {names[id(weight)]: group for group in optimizer.param_groups for weight in group["params"]}
    assert found.keys() == {name for name, weight in trainer.model.named_parameters() if weight.requires_grad}
    for name, group in found.items():
        assert group["lr"] == (0.003 if name.startswith("backbone.") else 0.02)
        assert group["weight_decay"] == (0.0 if "norm" in name or name.endswith("bias") else 0.5)


def test_a_shift_that_no_loss_reads_does_not_train(
    reranker: GenerativeRerankerModel, beir_folder: Path, tmp_path: Path
) -> None:
    """It moves all documents of a query alike."""
    task = load_beir(beir_folder)
    for weights, trains in (({"mse_weight": 0.0, "kl_weight": 0.0}, False), ({"mse_weight": 0.0}, True)):
        shift = make_trainer(reranker, task, tmp_path, **weights).model.predictor.shift
        assert shift.weight.requires_grad == trains


@pytest.mark.parametrize(
    "settings",
    [{"activation_checkpointing": True}, {"per_device_train_batch_size": 6, "gradient_accumulation_steps": 2}],
    ids=str,
)
def test_what_saves_memory_changes_no_weight(
    reranker: GenerativeRerankerModel, beir_folder: Path, tmp_path: Path, settings: dict[str, Any]
) -> None:
    task = load_beir(beir_folder)
    found = []
    for number, own in enumerate(({}, settings)):
        trainer = make_trainer(
            reranker, task, tmp_path / str(number), train_encoder="full", optim="sgd", learning_rate=0.1,
            encoder_learning_rate=0.1, max_steps=3, rounds=0, candidates=12, **own,
        )  # fmt: skip
        trainer.train()
        found.append(finished(trainer).state_dict())
    torch.testing.assert_close(found[1], found[0], atol=1e-5, rtol=1e-4)


def test_mixed_precision_trains_the_encoder(
    reranker: GenerativeRerankerModel, beir_folder: Path, tmp_path: Path
) -> None:
    """Its weights stay fp32, and so do vectors and losses."""
    trainer = make_trainer(
        reranker, load_beir(beir_folder), tmp_path, train_encoder="full", bf16=True, max_steps=30, logging_steps=5,
        encoder_learning_rate=1e-2, learning_rate=1e-2, mse_weight=0.0, kl_weight=0.0,
    )  # fmt: skip
    trainer.train()
    losses = [record["listwise"] for record in trainer.state.log_history if "listwise" in record]
    assert losses[-1] < 0.5 * losses[0]
    assert {weight.dtype for weight in trainer.model.parameters()} == {torch.float32}
    assert trainer._document_vectors().dtype == torch.float32


def test_from_python(reranker: GenerativeRerankerModel, beir_folder: Path, tmp_path: Path) -> None:
    """The function gives what the stage writes."""
    task = load_beir(beir_folder)
    reranker.save_pretrained(tmp_path / "teacher")
    settings: dict[str, Any] = {
        "train_encoder": "full", "candidates": 6, "rounds": 1, "max_steps": 4,
        "use_cpu": True, "report_to": "none", "disable_tqdm": True, "per_device_train_batch_size": 12,
    }  # fmt: skip
    config = RabtrieverDistillationConfig(str(tmp_path / "python"), **settings)
    student = distill(reranker, task, config, StudentArguments(embedding_dim=16))
    flags = [item for name, value in settings.items() for item in (f"--{name}", str(value))]
    flags += ["--data", str(beir_folder), "--output_dir", str(tmp_path / "stage"), "--embedding_dim", "16"]
    folder = distill_main([*flags, "--teacher", str(tmp_path / "teacher")])
    stage = RabtrieverModel.from_pretrained(folder)
    torch.testing.assert_close(student.encode_query(QUERIES), stage.encode_query(QUERIES), atol=1e-5, rtol=1e-4)
    small = write_sentence_transformer(tmp_path / "st", "bert", "mean")
    flags += ["--output_dir", str(tmp_path / "small"), "--encoder", str(small), "--embedding_dim", "null"]
    again = RabtrieverModel.from_pretrained(distill_main([*flags, "--teacher", str(tmp_path / "teacher")]))
    assert again.config.hidden_size == again.config.embedding_dim == 24
