"""Progress: bars on a terminal, a line per tenth in a log."""

import io
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import pytest
import tqdm
from transformers.trainer_callback import ProgressCallback
from transformers.utils import logging

import rabtriever_cli as cli
from modeling_rabtriever import RabtrieverModel, modeling_prompted
from modeling_rabtriever.progress import Lines, lines_in_logs, progress


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def shown() -> Iterator[None]:
    """The tests' conftest turns progress off."""
    logging.enable_progress_bar()
    datasets.enable_progress_bars()
    yield
    logging.disable_progress_bar()
    datasets.disable_progress_bars()


@pytest.mark.parametrize("total", [10, 25, 20_000])
def test_a_log_has_a_line_per_tenth(total: int, capsys: pytest.CaptureFixture[str]) -> None:
    with progress(total, "scoring", "pair") as bar:
        for _ in range(total):
            bar.update()
    lines = capsys.readouterr().err.splitlines()
    assert 9 <= len(lines) <= 10
    assert lines[-1].startswith(f"scoring: 100% ({total:,} of {total:,} pairs), 0:00:0")
    assert lines[-1].endswith(" passed, 0:00:00 left")


def test_a_stream_has_a_line_when_the_count_has_doubled(capsys: pytest.CaptureFixture[str]) -> None:
    with progress(None, "encoding", "document") as bar:
        for _ in range(100):
            bar.update(100)
    counts = [line.split()[1] for line in capsys.readouterr().err.splitlines()]
    assert counts == ["100", "200", "400", "800", "1,600", "3,200", "6,400"]


def test_the_time_left_counts_this_run_alone(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([100.0, 160.0])
    monkeypatch.setattr("modeling_rabtriever.progress.time.monotonic", lambda: next(clock))
    lines = Lines(1000, "training", "step", initial=500)
    lines.values["loss"] = 0.12345
    lines.update(100)
    assert capsys.readouterr().err == (
        "training: 60% (600 of 1,000 steps), 0:01:00 passed, 0:04:00 left, loss 0.1235\n"
    )


def test_a_terminal_has_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", terminal := _Terminal())
    with lines_in_logs(), progress(3, "scoring", "pair") as bar:
        assert isinstance(bar, tqdm.tqdm) and logging.tqdm(total=1).disable is False
        bar.update(3)
    assert "\rscoring: 100%" in terminal.getvalue()


def test_quiet_shows_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with progress(3, "scoring", "pair", quiet=True) as bar:
        bar.update(3)
    logging.disable_progress_bar()
    with lines_in_logs(), progress(3, "scoring", "pair") as bar:
        bar.update(3)
    assert capsys.readouterr().err == ""


def test_other_libraries_have_their_bars_back(capsys: pytest.CaptureFixture[str]) -> None:
    with lines_in_logs():
        with logging.tqdm(total=3, desc="Loading weights") as bar:
            bar.update(3)
        assert datasets.are_progress_bars_disabled()
    assert capsys.readouterr().err == "" and not datasets.are_progress_bars_disabled()
    assert logging.tqdm(total=3).disable is False


def test_long_calls_of_a_model(
    student: RabtrieverModel, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(modeling_prompted, "PROGRESS_FROM", 20)
    texts = ["bring the sponge"] * 20
    with lines_in_logs():
        student.encode_document(texts, token_budget=16)
    lines = capsys.readouterr().err.splitlines()
    assert 5 <= len(lines) <= 10 and lines[-1].startswith("reading: 100% (20 of 20 texts)")
    student.encode_document(texts, token_budget=16)
    assert capsys.readouterr().err == ""  # no bar in a log


def test_the_log_of_a_stage(recipe: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", "--config", str(recipe), "--report_to", "none"]) == 0
    printed = "".join(capfd.readouterr())
    assert "\r" not in printed
    lines = [line for line in printed.splitlines() if "%" in line and line.startswith("training: ")]
    assert len(lines) == 10 and lines[-1].startswith("training: 100% (20 of 20 steps)")
    assert ", loss " in lines[-1] and ", eval_corpus_mrr@10 " in lines[-1]
    assert len(printed.splitlines()) < 20, printed


def test_a_trainer_keeps_its_bar_on_a_terminal(teacher_trainer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def bars() -> list[Any]:
        return [one for one in teacher_trainer().callback_handler.callbacks if isinstance(one, ProgressCallback)]

    assert not bars()
    monkeypatch.setattr(sys, "stderr", _Terminal())
    assert bars()
