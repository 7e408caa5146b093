"""Queries nobody judged: written by a language model, in the manner of the training queries."""

import json
import random
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, BloomConfig, BloomForCausalLM

from modeling_rabtriever import GenerativeRerankerModel
from modeling_rabtriever.distillation import generated_queries
from modeling_rabtriever.distillation.generated_queries import collect, opening
from modeling_rabtriever.stages import generate_queries
from modeling_rabtriever.stages.distill import training_queries
from modeling_rabtriever.tasks.beir import load_beir, with_unlabelled


@pytest.fixture
def model_folder(reranker: GenerativeRerankerModel, tmp_path: Path) -> Path:
    """A language model that knows nothing yet."""
    folder = tmp_path / "language-model"
    reranker.backbone.save_pretrained(folder)
    reranker.processor.tokenizer.save_pretrained(folder)
    return folder


def flags(beir_folder: Path, model_folder: Path, output: Path, *more: str) -> list[str]:
    settings = {
        "data": beir_folder, "model_name_or_path": model_folder, "output_dir": output, "count": 4, "batch_size": 8,
        "max_new_tokens": 24, "temperature": 1.5, "seed": 3, "num_train_epochs": 40, "learning_rate": 3e-3,
        "per_device_train_batch_size": 8, "activation_checkpointing": False, "use_cpu": True,
    }  # fmt: skip
    return [*(str(item) for name, value in settings.items() for item in (f"--{name}", value)), *more]


def test_new_queries_in_the_manner_of_the_training_queries(
    beir_folder: Path, model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = generate_queries.main(flags(beir_folder, model_folder, tmp_path / "a"))
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    texts = [row["text"] for row in rows]
    assert len(set(texts)) == 4 and len({row["_id"] for row in rows}) == 4
    task = load_beir(beir_folder)
    assert not set(texts) & {query for split in task.splits.values() for query in split.queries}
    assert all(text.split()[0] in ("find", "show", "tell") for text in texts)

    train = task.split("train")
    joined = with_unlabelled(train, path)
    assert joined.queries == [*train.queries, *texts] and joined.relevant[len(train) :] == [{}] * 4
    assert {file.name for file in path.parent.iterdir()} == {"queries.jsonl", "stage.json"}
    generate_queries.main(flags(beir_folder, model_folder, tmp_path / "a"))
    assert "queries: already done" in capsys.readouterr().out
    again = generate_queries.main(flags(beir_folder, model_folder, tmp_path / "b"))
    assert again.read_text() == path.read_text()
    other = generate_queries.main(flags(beir_folder, model_folder, tmp_path / "c", "--seed", "4"))
    assert other.read_text() != path.read_text()


def test_a_model_whose_context_has_no_end(beir_folder: Path, reranker: GenerativeRerankerModel, tmp_path: Path) -> None:
    torch.manual_seed(0)
    tokenizer = reranker.processor.tokenizer
    ends = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    config = BloomConfig(vocab_size=len(tokenizer), hidden_size=32, n_layer=2, n_head=4, **ends)
    assert not hasattr(config, "max_position_embeddings")
    folder = tmp_path / "bloom"
    BloomForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    path = generate_queries.main(flags(beir_folder, folder, tmp_path / "run"))
    assert len(path.read_text().splitlines()) == 4


@pytest.mark.slow
def test_an_interrupted_run_goes_on_and_writes_the_same(
    beir_folder: Path, model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = generate_queries.main(flags(beir_folder, model_folder, tmp_path / "whole", "--batch_size", "2"))
    write, numbers = generated_queries.write_batch, []

    def counted(*arguments: object) -> list[str]:
        if len(numbers) == 2:
            raise KeyboardInterrupt
        numbers.append(arguments[-1])
        return write(*arguments)

    command = flags(beir_folder, model_folder, tmp_path / "cut", "--batch_size", "2")
    monkeypatch.setattr(generated_queries, "write_batch", counted)
    with pytest.raises(KeyboardInterrupt):
        generate_queries.main(command)
    with (tmp_path / "cut" / "queries" / "batches.jsonl").open("a") as file:
        file.write('["a line that was cut o')
    numbers.clear()
    monkeypatch.setattr(
        generated_queries, "write_batch", lambda *arguments: numbers.append(arguments[-1]) or write(*arguments)
    )
    assert generate_queries.main(command).read_text() == whole.read_text()
    assert numbers[0] == "3-2"  # the seed and the first batch that was not yet written


def test_collecting_stops_where_nothing_new_comes() -> None:
    assert collect(iter([["a", "b", "a"], ["b", "c"], ["d", "e"]]), {"b"}, 3) == ["a", "c", "d"]
    with pytest.raises(ValueError, match="1 of 3 queries, and 20 batches in a row brought no new one"):
        collect(iter([["a"]] * 40), set(), 3)


def test_openings_are_the_first_words() -> None:
    rng = random.Random(0)
    query = "bring me the red cup now please"
    found = {opening(query, rng) for _ in range(200)}
    assert found == {"bring", "bring me"}
    assert opening("up", rng) == "up"
    assert {opening("请把红色的杯子拿来", rng) for _ in range(200)} == {
        "请",
        "请把",
        "请把红",
    }  # nine characters, no blank


def test_texts_are_decoded_whole(model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Decoders such as Llama's drop the blank a text begins with, so parts put together would lose it."""
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    model = AutoModelForCausalLM.from_pretrained(model_folder)
    ended = tokenizer(" the lynx")["input_ids"] + [tokenizer.eos_token_id]
    monkeypatch.setattr(
        model, "generate", lambda input_ids, **_: torch.cat([input_ids, torch.tensor([ended] * len(input_ids))], dim=1)
    )
    decode = tokenizer.batch_decode
    monkeypatch.setattr(tokenizer, "batch_decode", lambda *a, **o: [text.lstrip() for text in decode(*a, **o)])
    settings = generated_queries.GenerationArguments(batch_size=2, max_new_tokens=8)
    texts = generated_queries.write_batch(model, tokenizer, ["find"], settings, "0")
    assert texts == ["find the lynx"] * 2


def test_pickled_weights_are_not_read(beir_folder: Path, model_folder: Path, tmp_path: Path) -> None:
    weights = load_file(model_folder / "model.safetensors")
    (model_folder / "model.safetensors").unlink()
    torch.save(weights, model_folder / "pytorch_model.bin")
    with pytest.raises(OSError, match="safetensors"):
        generate_queries.main(flags(beir_folder, model_folder, tmp_path / "run"))


def test_a_log_that_holds_test_queries_is_refused(beir_folder: Path, tmp_path: Path) -> None:
    task = load_beir(beir_folder)
    log = tmp_path / "log.jsonl"
    lines = [{"_id": f"log-{row}", "text": query} for row, query in enumerate(task.split("test").queries[:4])]
    log.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    with pytest.raises(ValueError, match="4 of 24 queries of test are also in train"):
        training_queries(task, "train", str(log), "run")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["--count", "-1"], "count is -1; accepted: 0 or more"),
        (["--swapped", "-1"], "swapped is -1; accepted: 0 or more"),
        (["--count", "0"], "count and swapped are both 0; accepted: at least one query"),
        (["--top_k", "0"], "top_k is 0; accepted"),
        (["--temperature", "0"], "temperature is 0.0; accepted"),
        (["--model_name_or_path", "x.json"], "model_name_or_path is x.json; accepted: .* a pretrained model"),
        (["--max_new_tokens", "127"], "max_new_tokens is 127, after .* tokens of first words; accepted: at most 128"),
    ],
)
def test_unusable_settings_are_refused(
    beir_folder: Path, model_folder: Path, tmp_path: Path, changes: list[str], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        generate_queries.main(flags(beir_folder, model_folder, tmp_path / "run", *changes))


def test_a_tokenizer_that_ends_no_text_is_refused(beir_folder: Path, model_folder: Path, tmp_path: Path) -> None:
    path = model_folder / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "eos_token": None}))
    with pytest.raises(ValueError, match="has no end-of-text token"):
        generate_queries.main(flags(beir_folder, model_folder, tmp_path / "run"))


def test_unusable_files_of_queries_are_refused(beir_folder: Path, tmp_path: Path) -> None:
    train = load_beir(beir_folder).split("train")
    with pytest.raises(ValueError, match=r"none.jsonl is missing; accepted"):
        with_unlabelled(train, tmp_path / "none.jsonl")
    (tmp_path / "q.jsonl").write_text(json.dumps({"_id": "train-find-0", "text": "new"}) + "\n")
    with pytest.raises(ValueError, match="has the id train-find-0, which the split train has too"):
        with_unlabelled(train, tmp_path / "q.jsonl")


def test_names_exchanged_beside_what_a_model_writes(beir_folder: Path, model_folder: Path, tmp_path: Path) -> None:
    with (beir_folder / "corpus.jsonl").open("a") as corpus:  # no training query names these
        for animal in ("owl", "newt"):
            corpus.write(json.dumps({"_id": animal, "title": "", "text": f"a story about the {animal}"}) + "\n")
    both = generate_queries.main(flags(beir_folder, model_folder, tmp_path / "both", "--swapped", "6"))
    texts = [json.loads(line)["text"] for line in both.read_text().splitlines()]
    assert len(set(texts)) == 10
    alone = flags(beir_folder, model_folder, tmp_path / "alone", "--swapped", "6", "--count", "0")
    at = alone.index("--model_name_or_path")
    path = generate_queries.main(alone[:at] + alone[at + 2 :])  # no model is needed
    assert {file.name for file in path.parent.iterdir()} == {"queries.jsonl", "stage.json"}
    known = {query for split in load_beir(beir_folder).splits.values() for query in split.queries}
    assert not set(texts) & known
    kept = [json.loads(line)["text"] for line in path.read_text().splitlines()]
    assert set(kept) == {f"{word} me the {animal}" for word in ("find", "show", "tell") for animal in ("owl", "newt")}


def test_too_few_names_are_found_out_before_anything_is_written(
    beir_folder: Path, model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generated_queries, "fit", lambda *_: pytest.fail("the model was fitted"))
    with pytest.raises(ValueError, match="swapped is 6; accepted: at most about 0"):
        generate_queries.main(flags(beir_folder, model_folder, tmp_path, "--swapped", "6"))
