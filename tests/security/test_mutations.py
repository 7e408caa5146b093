"""Files and command lines nobody meant: a right answer, or exit status 2 and a message of ours, in time."""

import io
import json
import random
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

import rabtriever_cli as cli
from modeling_rabtriever import GenerativeRerankerModel, RabtrieverModel
from tests.conftest import DOCUMENTS
from tests.modeling.old_students import write_old

SECONDS = 20  # of one command; they take a tenth of one
many = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
values = st.recursive(
    st.none()
    | st.booleans()
    | st.sampled_from([-1, 0, 1, 3, 10**9, 1.5, float("nan"), "", "x", "../x", "\ud800", "cpu"]),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["a", "model_type"]), inner, max_size=2)
    ),
    max_leaves=4,
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a student, one of before 0.1, a teacher, a corpus, its vectors and a store; only copied."""
    return tmp_path_factory.mktemp("whole")


@pytest.fixture
def folder(whole: Path, student: RabtrieverModel, reranker: GenerativeRerankerModel, tmp_path: Path) -> Path:
    if not any(whole.iterdir()):
        student.save_pretrained(whole / "student")
        reranker.save_pretrained(whole / "teacher")
        write_old(whole / "old", reranker, num_heads=2, document_prior=True)
        rows = [
            {"id": f"d{row}", "title": "", "text": text, "year": 2000 + row, "room": "attic"}
            for row, text in enumerate(DOCUMENTS * 3)
        ]
        for row, document in enumerate(rows):
            document["text"] += f" {row}"
        (whole / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        names = {name: str(whole / name) for name in ("student", "corpus.jsonl", "vectors", "store")}
        encode = [
            "encode",
            "--model",
            names["student"],
            "--corpus",
            names["corpus.jsonl"],
            "--output",
            names["vectors"],
        ]
        assert cli.main([*encode, "--documents-per-shard", "5", "--quiet"]) == 0
        assert cli.main(["index", "--vectors", names["vectors"], "--store", names["store"], "--quiet"]) == 0
    return tmp_path


def _fresh(whole: Path, folder: Path) -> Path:
    place = folder / "copy"
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(whole, place)
    return place


@contextmanager
def _in_time() -> Iterator[None]:
    def late(*_: Any) -> None:
        raise TimeoutError(f"no answer within {SECONDS} seconds")

    previous = signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)


def _answer(capsys: pytest.CaptureFixture[str], command: list[str]) -> list[dict[str, Any]] | None:
    """What the command line prints, or `None` where it refuses; anything else is an error."""
    capsys.readouterr()
    with _in_time():
        try:
            status = cli.main([*command, "--quiet"])
        except SystemExit as error:  # of argparse
            status = error.code
    captured = capsys.readouterr()
    assert status in (0, 2), (status, captured.err)
    assert "Traceback" not in captured.err
    if status == 2:
        assert "accepted" in captured.err or "usage: rabtriever" in captured.err or "Errno" in captured.err, (
            captured.err
        )
        return None
    rows: list[dict[str, Any]] = [json.loads(line, parse_constant=pytest.fail) for line in captured.out.splitlines()]
    return rows


def _rank(place: Path, model: str) -> list[str]:
    return ["rank", "--model", str(place / model), "--query", "a", "--documents", str(place / "corpus.jsonl")]


def _search(place: Path) -> list[str]:
    return [
        "search",
        "--model",
        str(place / "student"),
        "--store",
        str(place / "store"),
        "--query",
        "a",
        "--top-k",
        "12",
    ]


def _set(content: Any, path: list[int], value: Any) -> Any:
    """Another value at some place of a JSON object; `path` chooses it."""
    holder = content
    for number, choice in enumerate(path):
        keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
        key = keys[choice % len(keys)]
        inner = holder[key]
        if number == len(path) - 1 or not isinstance(inner, dict | list) or not inner:
            if value == "delete" and isinstance(holder, dict):
                del holder[key]
            else:
                holder[key] = value
            break
        holder = inner
    return content


@pytest.mark.slow
@many
@given(
    model=st.sampled_from(["student", "teacher", "old"]),
    name=st.sampled_from(["config.json", "processor_config.json", "tokenizer_config.json", "tokenizer.json"]),
    path=st.lists(st.integers(0, 500), min_size=1, max_size=3),
    value=values | st.just("delete"),
)
def test_any_settings_of_a_model(
    whole: Path, folder: Path, capsys: pytest.CaptureFixture[str], model: str, name: str, path: list[int], value: Any
) -> None:
    place = _fresh(whole, folder)
    file = place / model / name
    file.write_text(json.dumps(_set(json.loads(file.read_text()), path, value)))
    found = _answer(capsys, _rank(place, model))
    assert found is None or len(found) == 12


@pytest.mark.slow
@many
@given(change=st.sampled_from(["cut", "drop", "add", "type", "flip", "empty"]), number=st.integers(0, 10**6))
def test_any_weights_of_a_model(
    whole: Path, folder: Path, capsys: pytest.CaptureFixture[str], change: str, number: int
) -> None:
    place = _fresh(whole, folder)
    file = place / ("student", "teacher", "old")[number % 3] / "model.safetensors"
    weights = load_file(file)
    name = sorted(weights)[number % len(weights)]
    if change in ("cut", "flip", "empty"):
        content = bytearray(file.read_bytes())
        header = 8 + int.from_bytes(content[:8], "little")
        content[number % header] ^= 1 << number % 8
        kept = {"cut": len(content) - 1 - number % len(content), "flip": len(content), "empty": 0}[change]
        file.write_bytes((content if change == "flip" else file.read_bytes())[:kept])
    else:
        tensor = weights.pop(name)
        if change == "add":
            weights |= {name: tensor, "more": tensor.clone()}
        elif change == "type":
            weights[name] = (100 * tensor).byte()
        save_file(weights, file, metadata={"format": "pt"})
    found = _answer(capsys, _rank(place, file.parent.name))
    # A bit of the header that names the format is not read; all other changes are noticed.
    assert found is None or (change == "flip" and len(found) == 12)


def _broken(content: bytes, number: int, how: str) -> bytes:
    changed = bytearray(content)
    if how == "flip":
        place = number % (8 * len(changed))
        changed[place // 8] ^= 1 << place % 8
    elif how == "cut":
        del changed[number % len(changed) :]
    else:
        changed[number % len(changed) : number % len(changed)] = b"\xff\x00{"
    return bytes(changed)


@many
@given(number=st.integers(0, 10**7), how=st.sampled_from(["flip", "cut", "insert"]))
def test_any_corpus(whole: Path, folder: Path, capsys: pytest.CaptureFixture[str], number: int, how: str) -> None:
    place = _fresh(whole, folder)
    file = place / "corpus.jsonl"
    file.write_bytes(_broken(file.read_bytes(), number, how))
    found = _answer(capsys, _rank(place, "student"))
    if found is not None:
        lines = [json.loads(line) for line in file.read_bytes().decode().splitlines() if line.strip()]
        assert sorted(row["text"] for row in found) == sorted(
            f"{line.get('title', '')} {line['text']}".strip() for line in lines
        )


@pytest.mark.slow
@many
@given(number=st.integers(0, 10**7), how=st.sampled_from(["flip", "cut", "insert", "lose"]))
def test_any_vectors(whole: Path, folder: Path, capsys: pytest.CaptureFixture[str], number: int, how: str) -> None:
    place = _fresh(whole, folder)
    expected = _answer(capsys, _search(place))
    files = sorted((place / "vectors").iterdir())
    file = files[number % len(files)]
    content = file.read_bytes()
    file.unlink()
    if how != "lose":
        file.write_bytes(_broken(content, number // len(files), how))
    shutil.rmtree(place / "store")
    if _answer(capsys, ["index", "--vectors", str(place / "vectors"), "--store", str(place / "store")]) is None:
        file.write_bytes(content)  # the other shards were kept
        assert _answer(capsys, ["index", "--vectors", str(place / "vectors"), "--store", str(place / "store")]) == []
    # A bit of the model's fingerprint makes it another model's store, which is refused.
    assert _answer(capsys, _search(place)) in (expected, None)


@pytest.mark.slow
@many
@given(number=st.integers(0, 10**7), how=st.sampled_from(["cut", "lose", "insert"]))
def test_any_store(whole: Path, folder: Path, capsys: pytest.CaptureFixture[str], number: int, how: str) -> None:
    place = _fresh(whole, folder)
    expected = _answer(capsys, _search(place))
    files = sorted(path for path in (place / "store").rglob("*") if path.is_file())
    file = files[number % len(files)]
    content = file.read_bytes()
    file.unlink()
    if how != "lose" and content:
        file.write_bytes(_broken(content, number // len(files), how))
    found = _answer(capsys, _search(place))
    assert found is None or found == expected or len(found[0]["hits"]) < 12  # an older version is a version


FLAGS = [
    "--model", "--corpus", "--output", "--vectors", "--documents-per-shard", "--token-budget", "--engine", "--store",
    "--delete", "--approximate", "--query", "--queries", "--top-k", "--where", "--precision", "--rerank",
    "--rerank-depth", "--batch-size", "--documents", "--format", "--device", "--dtype", "--revision", "--skip-bad",
    "--dim", "--words", "--hybrid", "--recall",
]  # fmt: skip
WORDS = [
    "student", "teacher", "corpus.jsonl", "vectors", "store", "new", "nothing", "-", ".", "..", "0", "1", "-1", "1.5",
    "1e9", "9" * 30, "NaN", "cpu", "cuda", "cuda:7", "meta", "evil", "auto", "float32", "bfloat16", "int8", "local",
    "main", "year > 2001", "year =", "room = 'attic'", "hub:x", "hub:", "", "a\nb", "\u00fc",
]  # fmt: skip


@many
@given(
    command=st.sampled_from(["encode", "index", "search", "rank", "info"]),
    pairs=st.lists(st.tuples(st.sampled_from(FLAGS), st.sampled_from(WORDS)), max_size=3),
    seed=st.integers(0, 10**6),
)
def test_any_command_line(
    whole: Path,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    pairs: list[tuple[str, str]],
    seed: int,
) -> None:
    place = _fresh(whole, folder)
    monkeypatch.chdir(place)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO((place / "corpus.jsonl").read_bytes())))
    right: dict[str, list[str]] = {
        "encode": ["--model", "student", "--corpus", "corpus.jsonl", "--output", "new"],
        "index": ["--vectors", "vectors", "--store", "store"],
        "search": ["--model", "student", "--store", "store", "--query", "a"],
        "rank": ["--model", "student", "--query", "a", "--documents", "corpus.jsonl"],
        "info": ["student"],
    }
    flags = list(right[command])
    rng = random.Random(seed)
    for flag, word in pairs:
        if flag in flags and rng.random() < 0.7:
            flags[flags.index(flag) + 1] = word
        else:
            flags += [flag, word]
    before = (place / "student" / "config.json").read_bytes()
    _answer(capsys, [command, *flags])
    assert (place / "student" / "config.json").read_bytes() == before
