"""Memory and time to the first training step of a student, on millions of synthetic documents and queries.

Usage:
    python -m benchmarks.student_streaming FOLDER    # writes 5 GB there for ten million; an hour on one shared core

Each size has as many documents as queries, texts of about a hundred bytes, and one label per query. A process of its
own loads the task with all its checks, builds the trainer of a student of the tiny teacher that comes with the package,
and trains until its first step is done. Before it, the teacher scores CANDIDATES documents for each of the queries that
the steps come to, STEPS * BATCH. Models are tiny, so that reading and holding the data is what is measured.
"""

import argparse
import json
import random
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from benchmarks.results import bar, with_earlier, write_result
from modeling_rabtriever import GenerativeRerankerModel, example
from modeling_rabtriever.distillation.distillation_config import RabtrieverDistillationConfig
from modeling_rabtriever.distillation.student_arguments import StudentArguments
from modeling_rabtriever.distillation.training import fresh_student, make_trainer, reranker_scores
from modeling_rabtriever.tasks.named import load_task

SIZES = (100_000, 1_000_000, 10_000_000)
STEPS, BATCH, CANDIDATES = 25, 64, 4
SETTINGS = {"steps": STEPS, "batch": BATCH, "candidates": CANDIDATES, "encoder": "full", "label_share": 0.5}
ANONYMOUS_GB, MINUTES = 3.0, 15.0  # the bars, for ten million
WORDS = "ant bear cat dog eel fox goat hen ibis jay kiwi lynx mole newt owl pig quail rat seal toad"


class StopAtFirstStep(TrainerCallback):
    """Ends the training after one step."""

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stops."""
        control.should_training_stop = True


def write_task(folder: Path, size: int) -> None:
    """Writes a task in BEIR layout, unless an earlier run has finished it."""
    qrels = folder / "qrels" / "train.tsv"
    if qrels.exists():
        return
    qrels.parent.mkdir(parents=True, exist_ok=True)
    for name in ("corpus", "queries"):
        with (folder / f"{name}.jsonl").open("w") as file:
            file.writelines(_lines(name, size))
    partial = qrels.with_suffix(".partial")
    with partial.open("w") as file:
        file.write("query-id\tcorpus-id\tscore\n")
        file.writelines(f"q{row}\td{(row * 7919) % size}\t1\n" for row in range(size))
    partial.rename(qrels)


def _lines(name: str, size: int) -> Iterator[str]:
    rng, letter = random.Random(name), {"corpus": "d", "queries": "q"}[name]
    phrases = [" ".join(rng.choices(WORDS.split(), k=18)) for _ in range(1000)]
    for row in range(size):
        yield f'{{"_id": "{letter}{row}", "text": "{name} {row} tells of the {phrases[row % 1000]}"}}\n'


class Memory:
    """The most memory of this process so far, in GB, from samples each 20 ms: its own, and with mapped files."""

    def __init__(self) -> None:
        self.own = 0.0
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while True:
            fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
            self.own = max(self.own, int(fields["RssAnon"].split()[0]) / 1e6)
            time.sleep(0.02)

    @property
    def mapped(self) -> float:
        """With pages of mapped files, which the system takes back when it needs them."""
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def measure(folder: Path, runs: Path) -> dict[str, Any]:
    """One task, until the first step; call it in a new process, because peak memory is that of the process."""
    memory = Memory()
    teacher = GenerativeRerankerModel.from_pretrained(example("household", "teacher"))
    before, started, worked, phases = memory.own, time.perf_counter(), time.process_time(), {}

    def phase(name: str) -> None:
        phases[name] = round(time.process_time() - worked - sum(phases.values()), 1)
        print(f"{folder.name}: {name} {phases[name]} s, {memory.own:.2f} GB", file=sys.stderr, flush=True)

    task = load_task(folder)
    phase("load")
    config = RabtrieverDistillationConfig(
        output_dir=str(runs / "checkpoints"), report_to="none", disable_tqdm=True, use_cpu=True, save_strategy="no",
        max_steps=STEPS, per_device_train_batch_size=BATCH, candidates=CANDIDATES, rounds=0, train_encoder="full",
        label_share=0.5,
    )  # fmt: skip
    train = task.split("train")
    scores = reranker_scores(teacher, task, train, config, runs / "states")
    trainer = make_trainer(fresh_student(teacher, StudentArguments(), config), scores, task, train, None, config)
    trainer.add_callback(StopAtFirstStep())
    phase("trainer")
    trainer.train()
    phase("teacher and first step")
    return {
        "documents": len(task.corpus),
        "queries": len(train),
        "teacher_pairs": trainer.teacher_pairs,
        "processor_seconds": phases,
        "total_processor_seconds": sum(phases.values()),
        "seconds": round(time.perf_counter() - started, 1),
        "start_gb": before,
        "own_gb": memory.own,
        "with_mapped_files_gb": memory.mapped,
    }


def main() -> None:
    """Measures every size in a process of its own, and adds it to the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the data goes; finished data is used again")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--only", type=int, help="measure one size in this process and print its row")
    arguments = parser.parse_args()
    if arguments.only is not None:
        task = arguments.folder / str(arguments.only)
        print(json.dumps(measure(task, arguments.folder / f"runs-{arguments.only}-{time.time_ns()}")))
        return
    for size in arguments.sizes:
        write_task(arguments.folder / str(size), size)
        command = [sys.executable, "-m", "benchmarks.student_streaming", str(arguments.folder), "--only", str(size)]
        printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        row = json.loads(printed.splitlines()[-1])  # the trainer prints its log before
        rows = with_earlier("benchmarks.student_streaming", [row], ("documents",))
        rows.sort(key=lambda one: one["documents"])
        print(row, write_result("benchmarks.student_streaming", SETTINGS, rows, bars_of(rows[-1])), flush=True)


def bars_of(row: dict[str, Any]) -> list[dict[str, Any]]:
    """The largest size."""
    name, minutes = f"{row['documents']:,} documents and as many queries", row["total_processor_seconds"] / 60
    return [
        bar(f"peak memory without mapped files, GB, {name}", row["own_gb"], "<=", ANONYMOUS_GB, 1),
        bar(f"minutes of processor time to the first step, {name}", minutes, "<=", MINUTES, 1),
    ]


if __name__ == "__main__":
    main()
