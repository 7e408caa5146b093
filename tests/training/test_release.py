"""Model cards, and what is checked of a folder before it is released; nothing is pushed here (tests/hub does)."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard
from transformers import Qwen2Tokenizer

from benchmarks.tables import table
from modeling_rabtriever import GenerativeRerankerModel
from modeling_rabtriever.cards.generate import CardArguments, write_cards
from modeling_rabtriever.cards.licenses import fill_licenses, parse_licenses
from modeling_rabtriever.cards.publishing import check_target, name_card
from modeling_rabtriever.cards.release_checks import check_card, check_loading, expected, release_files
from modeling_rabtriever.distillation.encoders import other_encoder, student_of
from modeling_rabtriever.distillation.student_arguments import StudentArguments
from modeling_rabtriever.stages.card import main as write_card
from modeling_rabtriever.stages.release import main
from tests.hub.finished_run import make_run
from tests.training.tiny_encoders import write_sentence_transformer

LICENSES = {"model": "apache-2.0", "data": "cc-by-sa-4.0"}


@pytest.fixture(scope="module")
def finished_run(tokenizer: Qwen2Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = make_run(tokenizer, tmp_path_factory.mktemp("run"))
    write_cards(run, CardArguments(LICENSES))
    return run


@pytest.fixture
def run(finished_run: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(finished_run, tmp_path / "run"))


def change_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def card_of(run: Path, stage: str = "student") -> ModelCard:
    return ModelCard.load(run / stage / "model" / "README.md")


@pytest.mark.parametrize("stage", ["teacher", "student"])
def test_a_generated_card_is_complete(stage: str, finished_run: Path) -> None:
    folder = finished_run / stage / "model"
    assert {"README.md", "evaluation/test.json", "evaluation/test-reliability.png"} <= set(release_files(folder))
    check_card(folder)
    card, report = card_of(finished_run, stage), json.loads((finished_run / "evaluation" / "test.json").read_text())
    headings = [line for line in card.text.splitlines() if line.startswith("## ")]
    wanted = ["Prompt", "Use", "Results", "Cost", "Training", "Licences", "Limits", "Citation"]
    assert headings == [f"## {name}" for name in wanted]
    assert "**Not for**" in card.text and '- instruction: `"Relevant:"`' in card.text
    assert "| BM25 |" in card.text and f"n = {report['n']}" in card.text and "ECE" in card.text
    assert f"MRR@10 {report['retention']['mrr@10']['mean']:.3f} [" in card.text
    system = report["systems"]["teacher" if stage == "teacher" else "Rabtriever"]
    assert f"{system['milliseconds']:.2f} ms per query" in card.text
    assert ("96 bytes per document vector" in card.text) == (stage == "student")  # 24 numbers in fp32
    assert card.data.license == "apache-2.0" and card.data["base_model_license"] == "not-applicable"
    assert "from scratch (configuration `tiny.json`)" in card.text and str(finished_run) not in card.content


def test_servers_are_named_only_where_they_can_compute_the_model(run: Path) -> None:
    assert "vllm serve" not in card_of(run).text and "features are last + mean" in card_of(run).text
    config = run / "student" / "model" / "config.json"
    change_json(config, feature_poolings=["last"])
    write_cards(run)
    text = card_of(run).text
    assert "vllm serve OUT/document --runner pooling" in text and "not run here" in text
    assert 'SentenceTransformer("OUT/combined")' in text


def test_base_model_and_data_come_from_the_recipe_or_the_caller(run: Path) -> None:
    path = run / "teacher" / "stage.json"
    record = json.loads(path.read_text())
    change_json(path, settings={**record["settings"], "model_name_or_path": "Qwen/Qwen3-0.6B"})
    write_cards(run, CardArguments(LICENSES, datasets=["org/chores"]))
    assert card_of(run).data.base_model == "Qwen/Qwen3-0.6B" and card_of(run).data.datasets == ["org/chores"]
    with pytest.raises(ValueError, match=r"licence of the base model .*--license base_model=LICENCE"):
        check_card(run / "student" / "model")
    change_json(path, settings={**record["settings"], "model_name_or_path": str(run / "teacher")})
    write_cards(run, CardArguments({**LICENSES, "base_model": "mit"}))
    assert "a local copy of a pretrained model" in card_of(run).text and str(run) not in card_of(run).content
    with pytest.raises(ValueError, match=r"does not say the base_model.*--base_model org/name"):
        check_card(run / "student" / "model")
    change_json(path, settings={**record["settings"], "model_name_or_path": None})
    (run / "backbone").mkdir()
    shutil.copy(run / "student" / "stage.json", run / "backbone" / "stage.json")
    change_json(run / "backbone" / "stage.json", settings={"data": "x", "model_name_or_path": "start.json"})
    write_cards(run)
    assert "`start.json`, first with language modelling on the training split" in card_of(run).text


def test_a_stage_that_has_not_ended_has_no_card(run: Path) -> None:
    change_json(run / "student" / "stage.json", done=False)
    with pytest.raises(ValueError, match=r"^.*/student holds no finished stage; accepted: a run whose stages have"):
        write_cards(run)


def test_a_split_with_candidates_alone_says_so(run: Path) -> None:
    path = run / "evaluation" / "test.json"
    report = json.loads(path.read_text())
    del report["calibration"], report["faithfulness"]  # training.evaluate has neither of candidates alone
    path.write_text(
        json.dumps({**report, "first_stage": {"system": "BM25", "documents": 3}, "repeated": {"test in dev": 0.25}})
    )
    (run / "evaluation" / "test-reliability.png").unlink()
    write_cards(run, CardArguments(LICENSES))
    text = card_of(run, "teacher").text
    assert "Only the first 3 documents of BM25 were ranked." in text and "ECE" not in text
    assert "25.0% of the queries of test in dev verbatim" in text and "reliability.png" not in text
    check_card(run / "teacher" / "model")


def test_the_command_line_adds_licences_and_a_benchmark(run: Path) -> None:
    flags = ["--license", "mit", "base_model=not-applicable", "--results", "quickstart_household"]
    write_card([str(run), *flags], table)
    card = card_of(run, "teacher")
    assert card.data.license == "mit" and "| these weights | mit |" in card.text
    assert "| training data | not stated |" in card.text
    assert "household, `test`" in card.text and "python -m benchmarks.quickstart_household" in card.text
    with pytest.raises(ValueError, match="results is 'mine'; accepted: quickstart_household, "):
        write_card([str(run), "--results", "mine"], table)


def test_plots_of_a_split_that_is_gone_go_too(run: Path) -> None:
    evaluation = run / "evaluation"
    for path in list(evaluation.glob("test*")):
        path.rename(evaluation / path.name.replace("test", "dev", 1))
    change_json(evaluation / "dev.json", split="dev")
    write_cards(run, CardArguments(LICENSES))
    names = release_files(run / "student" / "model")
    assert "evaluation/dev.json" in names and "evaluation/test.json" not in names
    check_card(run / "student" / "model")


def test_the_text_of_a_licence_may_lie_beside_its_card(run: Path) -> None:
    folder = run / "student" / "model"
    (folder / "LICENSE").write_text("Acme's terms")
    assert "LICENSE" in release_files(folder) and not expected("LICENSE")  # one in the repository is never deleted


def test_licences_are_parsed_and_filled_in(run: Path) -> None:
    assert parse_licenses(["apache-2.0", "data=cc-by-4.0"]) == {"model": "apache-2.0", "data": "cc-by-4.0"}
    assert parse_licenses(["other:acme-1.0"]) == {"model": "other:acme-1.0"}
    for given in (
        ["Apache 2.0"], ["weights=mit"], ["mit", "model=mit"], ["data="], ["foo-1.0"], ["data=foo-1.0"],
        ["other:Acme 1"], ["other:"], ["not-applicable"],
    ):  # fmt: skip
        with pytest.raises(ValueError, match=r"license '.*' is not usable; accepted: \[WHAT=\]LICENCE"):
            parse_licenses(given)
    card = card_of(run)
    fill_licenses(card, {"data": "mit"})
    assert card.data["data_license"] == "mit" and card.data.license == "apache-2.0"
    assert "| training data | mit |" in card.text and "cc-by-sa-4.0" not in card.content
    fill_licenses(card, {"model": "other:acme-1.0"})
    assert card.data.to_dict()["license"] == "other" and card.data.to_dict()["license_name"] == "acme-1.0"
    assert "| these weights | other (acme-1.0) |" in card.text
    fill_licenses(card, {"model": "mit"})
    assert "license_name" not in card.data.to_dict() and "| these weights | mit |" in card.text
    with pytest.raises(ValueError, match="no <!-- licences --> table"):
        fill_licenses(ModelCard("---\nlicense: mit\n---\n# other"), {})


def test_the_repository_takes_the_place_of_the_name(run: Path) -> None:
    card = card_of(run)
    assert '"student-chores"' in card.text
    for repo in ("org/name", "org/other"):
        name_card(card, repo)
        assert card.data.model_name == repo and card.text.count(repo) == 5
    assert "student-chores" not in card.text and "org/name" not in card.text
    with pytest.raises(ValueError, match="no model_name"):
        name_card(ModelCard("---\nlicense: mit\n---\n# other"), "org/name")


@pytest.mark.parametrize(
    ("repo", "tag", "create_pr", "message"),
    [
        ("name", None, False, "repo is 'name'; accepted: org/name"),
        ("org/na me", None, False, "Repo id must use alphanumeric"),
        ("org/name", "1.0", False, "tag is '1.0'; accepted: vX.Y"),
        ("org/name", "v1.0", True, "accepted: a tag once the pull request is merged"),
    ],
)
def test_targets_are_checked_first(repo: str, tag: str | None, create_pr: bool, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_target(repo, tag, create_pr)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "optimizer.pt", "evaluation/scores.pkl"])
def test_a_pickle_is_never_released(name: str, run: Path) -> None:
    (run / "student" / "model" / name).write_bytes(b"\x80\x04.")
    with pytest.raises(ValueError, match=rf"holds {name}; accepted: weights as safetensors, never a pickle"):
        main(["--model", str(run / "student" / "model"), "--repo", "org/name"])


def test_only_expected_files_are_released(run: Path, tmp_path: Path) -> None:
    folder = run / "student" / "model"
    for name in (".env", "train.py", "evaluation/notes.txt", "modeling_other.py"):
        (folder / name).write_text("secret")
        with pytest.raises(ValueError, match=rf"holds {name}; accepted: what save_pretrained"):
            release_files(folder)
        (folder / name).unlink()
    (folder / "vocab.json").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match=r"holds vocab.json; .*no links"):
        release_files(folder)
    (folder / "vocab.json").unlink()
    (folder / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="lacks safetensors weights"):
        release_files(folder)
    for other in (run, tmp_path / "nowhere"):
        with pytest.raises(ValueError, match="is not a saved model; accepted: <run>/teacher/model"):
            release_files(other)


def replaced(old: str, new: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        card = (folder / "README.md").read_text()
        assert old in card
        (folder / "README.md").write_text(card.replace(old, new))

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (replaced("\nlicense: apache-2.0", ""), r"licence of the model \(license\).*--license model=LICENCE"),
        (replaced("data_license: cc-by-sa-4.0\n", ""), r"licence of the data .*--license data=LICENCE"),
        (replaced("base_model_license: not-applicable\n", ""), "base_model=not-applicable for weights trained from"),
        (
            replaced("data_license: cc-by-sa-4.0", "data_license: cc-by-nc-4.0"),
            "training data is cc-by-nc-4.0, which is non-commercial, that of these weights is apache-2.0",
        ),
        (replaced("data_license: cc-by-sa-4.0", "data_license: cc-by-nd-4.0"), "which forbids derived works; accepted"),
        (
            replaced("data_license: cc-by-sa-4.0", "data_license: unknown"),
            "training data is 'unknown'.*one that is known",
        ),
        (
            replaced("data_license: cc-by-sa-4.0", "data_license: CC-BY-NC-4.0"),
            r"training data is 'CC-BY-NC-4.0' \(data_license\); accepted: a lower-case identifier",
        ),
        (replaced("data_license: cc-by-sa-4.0", "data_license: [mit, cc-by-nc-4.0]"), "accepted: a lower-case identif"),
        (replaced("data_license: cc-by-sa-4.0", "data_license: 4.0"), r"training data is 4.0 .*accepted: a lower-case"),
        (replaced("data_license: cc-by-sa-4.0", "data_license: cc"), "training data is 'cc'.*one that is known"),
        (
            replaced("data_license: cc-by-sa-4.0", "data_license: fair-noncommercial-research-license"),
            "fair-noncommercial-research-license, which is non-commercial",
        ),
        (
            replaced("data_license: cc-by-sa-4.0", "data_license: other"),
            "training data is other, whose terms only its text tells, that of these weights is apache-2.0; accepted",
        ),
        (replaced("\nlicense: apache-2.0", "\nlicense: foo-1.0"), r"weights is 'foo-1.0' .*the Hub does not list; acc"),
        (
            replaced("data_license: cc-by-sa-4.0", "data_license: foo-1.0"),
            r"data is 'foo-1.0' .*does not list; accepted",
        ),
        (
            replaced("\nlicense: apache-2.0", "\nlicense: other"),
            "other without a license_name; accepted: --license other:",
        ),
        (
            replaced("data_license: cc-by-sa-4.0", "data_license: deepfloyd-if-license"),
            "deepfloyd-if-license, which is non-commercial",
        ),
        (replaced("pipeline_tag: text-ranking\n", ""), "metadata lacks pipeline_tag"),
        (replaced("## Limits\n", "## Limits\n\n{{ limits }}\n"), "unfilled placeholder: '{{ limits }}'"),
        (replaced("## Limits\n", "## Limits\n\nTODO\n"), "unfilled placeholder: 'TODO'"),
        (replaced("value: 1.0", "value: 0.5"), "the card says success@. = 0.5 on test, .* says"),
        (lambda folder: (folder / "evaluation" / "test.json").unlink(), "says None; write it again"),
        (
            lambda folder: (folder / "evaluation" / "test-recall.png").unlink(),
            "shows evaluation/test-recall.png, which",
        ),
        (lambda folder: (folder / "README.md").unlink(), "README.md is missing; write it first"),
    ],
)
def test_incomplete_cards_are_refused(change: Callable[[Path], None], message: str, run: Path) -> None:
    folder = run / "student" / "model"
    change(folder)
    with pytest.raises(ValueError, match=message):
        check_card(folder)


@pytest.mark.slow
def test_a_folder_whose_code_is_not_the_packages_is_refused(run: Path) -> None:
    folder = run / "student" / "model"
    path = folder / "modeling_rabtriever.py"
    original = path.read_text()
    path.write_text(original + "\nRabtrieverModel.encode_query = lambda self, queries: torch.ones(len(queries), 24)\n")
    with pytest.raises(ValueError, match=r"has other scores without the package: up to .* apart; accepted: "):
        check_loading(folder)
    path.write_text(original + "\nimport modeling_rabtriever.files\n")
    with pytest.raises(ValueError, match=r"does not load without the package(.|\n)*modeling_rabtriever"):
        check_loading(folder)


@pytest.mark.parametrize(("encoder", "base_model"), [("org/small", "org/small"), ("local", None)])
def test_a_student_on_another_encoder_comes_from_that(
    reranker: GenerativeRerankerModel, run: Path, tmp_path: Path, encoder: str, base_model: str | None
) -> None:
    """Its teacher may have been trained from scratch; its own weights were not."""
    small = write_sentence_transformer(tmp_path / "local", "bert", "mean", "bring ")
    encoder_of_its_own = other_encoder(str(small), reranker.processor)
    student = student_of(encoder_of_its_own, reranker.answer_direction, StudentArguments()).served()
    folder = run / "student"
    student.save_pretrained(folder / "model")
    settings = json.loads((folder / "stage.json").read_text())["settings"]
    own = encoder if base_model else str(small)
    change_json(folder / "stage.json", settings={**settings, "encoder": own, "train_encoder": "full"})
    write_cards(run, CardArguments(LICENSES))
    card = card_of(run)
    assert card.data.to_dict().get("base_model") == base_model and "base_model_license" not in card.data.to_dict()
    assert "vllm serve OUT/document" in card.text and "--pooling mean " in card.text
    assert "| base model | not stated |" in card.text and "None" not in card.text.partition("## Use")[0]
    assert '- query, read by itself: `"[CLS]bring {query}[SEP]"`' in card.text
    assert card_of(run, "teacher").data["base_model_license"] == "not-applicable"
    with pytest.raises(ValueError, match="the card does not say the licence of the base model"):
        check_card(folder / "model")


def test_a_student_on_the_teachers_first_layers_comes_from_its_teacher(run: Path) -> None:
    folder = run / "student"
    settings = json.loads((folder / "stage.json").read_text())["settings"]
    change_json(folder / "stage.json", settings={**settings, "encoder": "1", "train_encoder": "lora"})
    write_cards(run, CardArguments(LICENSES))
    assert "the first 1 layers of the teacher's backbone (trained with it by adapters, now merged)" in card_of(run).text
    assert card_of(run).data["base_model_license"] == "not-applicable"
    check_card(folder / "model")
