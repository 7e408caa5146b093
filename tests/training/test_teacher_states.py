"""The cache of teacher scores: right, scored once, resumable, refused for another teacher, prompt or text."""

import json
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock

from modeling_rabtriever import GenerativeRerankerModel, RabtrieverProcessor, modeling_prefix_cache
from modeling_rabtriever.distillation import teacher_states
from modeling_rabtriever.distillation.teacher_states import TeacherScores, TeacherStates
from modeling_rabtriever.files import read_tensors, write_tensors
from tests.conftest import DOCUMENTS, QUERIES

PAIRS = torch.tensor([[0, 0], [0, 3], [1, 2], [2, 1], [2, 3]])


@pytest.fixture
def states(reranker: GenerativeRerankerModel, tmp_path: Path) -> TeacherStates:
    return TeacherStates(tmp_path / "states", reranker, QUERIES, DOCUMENTS)


def test_states_are_the_teachers(states: TeacherStates, reranker: GenerativeRerankerModel) -> None:
    queries, documents = PAIRS.T
    assert states.score(queries, documents) == 5
    expected = reranker.predict([(QUERIES[q], DOCUMENTS[d]) for q, d in PAIRS.tolist()])
    torch.testing.assert_close(states.logits(queries, documents), expected, atol=1e-5, rtol=0)
    hidden = states.hidden_states(queries, documents)
    torch.testing.assert_close(reranker.log_odds(hidden), expected, atol=1e-5, rtol=0)
    grid = states.hidden_states(torch.tensor([[0], [2]]), torch.tensor([[3], [1]]))
    torch.testing.assert_close(grid, hidden[[1, 3]].unsqueeze(1))


def test_a_pair_is_scored_once(states: TeacherStates, monkeypatch: pytest.MonkeyPatch) -> None:
    states.score(*PAIRS.T)
    monkeypatch.setattr(states.teacher, "map_pairs", lambda *_, **__: pytest.fail("the teacher scored again"))
    assert states.score(*PAIRS.flip(0).T) == 0
    assert states.score(*torch.cat([PAIRS, PAIRS]).T) == 0
    assert len(states) == 5


def test_log_odds_alone_are_stored_if_no_states_are_wanted(
    reranker: GenerativeRerankerModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = TeacherStates(tmp_path, reranker, QUERIES, DOCUMENTS, states=False)
    assert alone.score(*PAIRS.T) == 5
    expected = reranker.predict([(QUERIES[q], DOCUMENTS[d]) for q, d in PAIRS.tolist()])
    torch.testing.assert_close(alone.logits(*PAIRS.T), expected, atol=1e-5, rtol=0)
    (shard,) = tmp_path.glob("pairs-*")
    assert "states" not in read_tensors(shard)[0]
    # A cache with states scores these pairs again; one without states reads the log-odds of both.
    assert TeacherStates(tmp_path, reranker, QUERIES, DOCUMENTS).score(*PAIRS[:3].T) == 3
    assert TeacherStates(tmp_path, reranker, QUERIES, DOCUMENTS).score(*PAIRS[:3].T) == 0
    monkeypatch.setattr(reranker, "map_pairs", lambda *_, **__: pytest.fail("the teacher scored again"))
    assert TeacherStates(tmp_path, reranker, QUERIES, DOCUMENTS, states=False).score(*PAIRS.T) == 0


def test_a_pair_without_a_score_is_an_error(states: TeacherStates) -> None:
    with pytest.raises(ValueError, match="has not scored some of these pairs"):
        states.logits(torch.tensor([0]), torch.tensor([0]))
    states.score(*PAIRS.T)
    with pytest.raises(ValueError, match="has not scored some of these pairs"):
        states.hidden_states(torch.tensor([1]), torch.tensor([3]))


def test_an_interrupted_run_keeps_its_finished_shards(
    reranker: GenerativeRerankerModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(teacher_states, "SHARD_PAIRS", 2)
    states = TeacherStates(tmp_path, reranker, QUERIES, DOCUMENTS)
    encode, calls = reranker.map_pairs, []

    def killed_in_the_second_shard(reduce: Any, prefixes: Any, suffixes: Any, pairs: Any, **options: Any) -> Any:
        calls.append(len(pairs))
        if sum(calls) > 2:
            raise KeyboardInterrupt
        return encode(reduce, prefixes, suffixes, pairs, **options)

    monkeypatch.setattr(reranker, "map_pairs", killed_in_the_second_shard)
    with pytest.raises(KeyboardInterrupt):
        states.score(*PAIRS.T)
    (tmp_path / ".pairs-000001.safetensors.123.tmp").write_bytes(b"half a shard")  # what a killed process leaves
    monkeypatch.setattr(reranker, "map_pairs", encode)
    resumed = TeacherStates(tmp_path, reranker, QUERIES, DOCUMENTS)
    assert len(resumed) == 2
    assert resumed.score(*PAIRS.T) == 3
    expected = reranker.predict([(QUERIES[q], DOCUMENTS[d]) for q, d in PAIRS.tolist()])
    torch.testing.assert_close(resumed.logits(*PAIRS.T), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(reranker.log_odds(resumed.hidden_states(*PAIRS.T)), expected, atol=1e-5, rtol=0)


def test_a_broken_shard_is_named_and_only_its_pairs_are_scored_again(
    reranker: GenerativeRerankerModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(teacher_states, "SHARD_PAIRS", 2)
    first = TeacherStates(tmp_path, reranker, QUERIES, DOCUMENTS)
    first.score(*PAIRS.T)
    broken = sorted(tmp_path.glob("pairs-*"))[1]
    whole, lost = broken.read_bytes(), len(read_tensors(broken)[0]["keys"])
    for place in range(0, len(whole), len(whole) // 40):
        broken.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(ValueError, match=f"{broken} is broken.*Delete it to have its pairs scored again"):
            TeacherStates(tmp_path, reranker, QUERIES, DOCUMENTS)
    broken.unlink()
    resumed = TeacherStates(tmp_path, reranker, QUERIES, DOCUMENTS)
    assert resumed.score(*PAIRS.T) == lost
    torch.testing.assert_close(resumed.logits(*PAIRS.T), first.logits(*PAIRS.T), atol=1e-5, rtol=0)


@pytest.mark.parametrize("tensors", [{"keys": torch.arange(2)}, {"keys": torch.arange(2), "logits": torch.ones(3)}])
def test_something_else_in_a_shards_place_is_refused(
    reranker: GenerativeRerankerModel, tmp_path: Path, tensors: dict[str, torch.Tensor]
) -> None:
    TeacherStates(tmp_path, reranker, QUERIES, DOCUMENTS)
    write_tensors(tmp_path / "pairs-x.safetensors", tensors)
    with pytest.raises(ValueError, match="pairs-x.safetensors .*accepted: the shard as it was written"):
        TeacherStates(tmp_path, reranker, QUERIES, DOCUMENTS)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff"])
def test_a_broken_fingerprint_is_refused(reranker: GenerativeRerankerModel, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "fingerprint.json").write_bytes(content)
    with pytest.raises(ValueError, match="fingerprint.json is not"):
        TeacherStates(tmp_path, reranker, QUERIES, DOCUMENTS)


def test_runs_that_share_a_folder_score_each_pair_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of two at the same time, one scores; the other waits for its scores and then adds the rest."""
    scored: list[int] = []

    def slow(queries: torch.Tensor, documents: torch.Tensor) -> dict[str, torch.Tensor]:
        scored.extend((documents * 50 + queries).tolist())
        time.sleep(0.3)
        return {"logits": documents.float()}

    runs = [TeacherScores(tmp_path, 50, slow, {"scorer": "slow"}) for _ in range(2)]
    wanted = [torch.cartesian_prod(torch.arange(50), torch.arange(first, first + 8)).T for first in (0, 4)]
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda run, pairs: run.score(*pairs), runs, wanted))
    assert sorted(found) == [200, 400] and len(scored) == len(set(scored)) == 600
    for run, (queries, documents) in zip(runs, wanted, strict=True):
        assert torch.equal(run.logits(queries, documents), documents.float())
    assert len(TeacherScores(tmp_path, 50, slow, {"scorer": "slow"})) == 600
    assert "waiting for another run that scores with this teacher" in capsys.readouterr().out


def test_a_run_that_waited_until_all_its_pairs_were_scored_goes_on(
    states: TeacherStates, reranker: GenerativeRerankerModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = TeacherStates(states.folder, reranker, QUERIES, DOCUMENTS)
    acquire = teacher_states._acquire

    def acquire_late(lock: FileLock) -> None:
        monkeypatch.setattr(teacher_states, "_acquire", acquire)
        other.score(*PAIRS.T)  # between the look at what is missing and the lock
        acquire(lock)

    monkeypatch.setattr(teacher_states, "_acquire", acquire_late)
    assert states.score(*PAIRS.T) == 0
    assert torch.equal(states.logits(*PAIRS.T), other.logits(*PAIRS.T))


def test_pairs_that_another_run_scored_are_not_scored_again(
    states: TeacherStates, reranker: GenerativeRerankerModel
) -> None:
    other = TeacherStates(states.folder, reranker, QUERIES, DOCUMENTS)
    states.score(*PAIRS[:3].T)
    assert other.score(*PAIRS.T) == 2
    assert states.score(*PAIRS.T) == 0 and len(states) == 5


def test_a_pair_in_two_shards_counts_once(states: TeacherStates) -> None:
    states.score(*PAIRS.T)
    (shard,) = states.folder.glob("pairs-*")
    shutil.copy(shard, states.folder / "pairs-copy.safetensors")
    again = TeacherStates(states.folder, states.teacher, QUERIES, DOCUMENTS)
    assert len(again) == 5
    assert torch.equal(again.logits(*PAIRS.T), states.logits(*PAIRS.T))
    assert torch.equal(again.hidden_states(*PAIRS.T), states.hidden_states(*PAIRS.T))


def test_blocks_of_documents_change_nothing(
    reranker: GenerativeRerankerModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(modeling_prefix_cache, "PREFIX_TOKENS", 12)
    queries, documents = torch.cartesian_prod(torch.arange(len(QUERIES)), torch.arange(len(DOCUMENTS))).T
    states = TeacherStates(tmp_path, reranker, QUERIES, DOCUMENTS)
    assert states.score(queries, documents) == len(QUERIES) * len(DOCUMENTS)
    expected = reranker.predict([(query, document) for query in QUERIES for document in DOCUMENTS])
    torch.testing.assert_close(states.logits(queries, documents), expected, atol=1e-5, rtol=0)


def test_a_cache_of_another_teacher_prompt_or_text_is_refused(
    make_reranker: Callable[..., GenerativeRerankerModel], tokenizer: Any, tmp_path: Path
) -> None:
    reranker = make_reranker()
    TeacherStates(tmp_path, reranker, QUERIES, DOCUMENTS)
    TeacherStates(tmp_path, make_reranker(), QUERIES, DOCUMENTS)  # the same weights again are the same teacher

    def refused(teacher: GenerativeRerankerModel, different: str, documents: list[str] = DOCUMENTS) -> None:
        with pytest.raises(ValueError, match=rf"another teacher, prompt or task \(different: {different}\)"):
            TeacherStates(tmp_path, teacher, QUERIES, documents)

    refused(reranker, "texts", DOCUMENTS[:2])
    refused(make_reranker(num_hidden_layers=1), "backbone, weights")
    refused(make_reranker(rms_norm_eps=0.1), "backbone")
    refused(make_reranker().to(torch.bfloat16), "weights")
    trained = make_reranker()
    for weights in trained.backbone.parameters():  # a step of training, less than rounding to bf16 changes
        weights.data.mul_(1.0001)
    refused(trained, "weights")
    swapped = make_reranker()
    swapped.config.true_token_id, swapped.config.false_token_id = 1, 0
    refused(swapped, "answers")
    reranker.processor = RabtrieverProcessor(
        tokenizer, instruction="Is it?", max_document_length=16, max_query_length=16
    )
    refused(reranker, "reading")


def test_a_backbone_that_another_device_summed_is_the_same_teacher(
    reranker: GenerativeRerankerModel, tmp_path: Path
) -> None:
    TeacherStates(tmp_path, reranker, QUERIES, DOCUMENTS)
    path = tmp_path / "fingerprint.json"
    identity = json.loads(path.read_text())
    last = int(identity["backbone"][-8:-6], 16)  # the lowest byte of the last sum
    identity["backbone"] = f"{identity['backbone'][:-8]}{last ^ 1:02x}{identity['backbone'][-6:]}"
    path.write_text(json.dumps(identity))
    TeacherStates(tmp_path, reranker, QUERIES, DOCUMENTS)


def test_a_broken_teacher_is_not_cached(states: TeacherStates) -> None:
    states.teacher.backbone.get_output_embeddings().weight.data.fill_(float("nan"))
    with pytest.raises(ValueError, match="NaN or infinity"):
        states.score(*PAIRS.T)
    assert len(states) == 0 and not list(states.folder.glob("*.safetensors"))
