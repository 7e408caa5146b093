"""What every process of a launched run does: the stages a file lists, one after the other. Not a test itself.

    torchrun --standalone --nproc_per_node 2 -m tests.training.launched FILE

FILE holds JSON lines {"module": ..., "flags": [...], "stop_after": ...}, the last one optional: a number of passes
after which every process gives up, as if it had been stopped. What came of each goes into FILE.<process>.
"""

import importlib
import io
import json
import os
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer

from modeling_rabtriever.trainers.processes import on_each, process_index

BAD_INPUT, STOPPED = 2, 130


def run(module: str, flags: list[str], stop_after: int | None = None) -> dict[str, Any]:
    """Runs a stage as its module would as a program."""
    printed, error, status, passes = io.StringIO(), "", 0, 0
    training_step = Trainer.training_step

    def counted(*arguments: Any) -> Any:
        nonlocal passes
        passes += 1
        if passes > (stop_after or passes):
            raise KeyboardInterrupt
        return training_step(*arguments)

    Trainer.training_step = counted
    try:
        with redirect_stdout(printed):
            importlib.import_module(module).main(flags)
    except (ValueError, OSError) as raised:
        error, status = str(raised), BAD_INPUT
    except SystemExit as left:
        status = int(left.code or 0)
    except KeyboardInterrupt:
        status = STOPPED
    finally:
        Trainer.training_step = training_step
    return {"status": status, "error": error, "printed": printed.getvalue(), "passes": passes}


def main(flags: Sequence[str]) -> None:
    """A stage of which one process, `flags[0]`, cannot go on."""
    on_each(lambda: _fail() if process_index() == int(flags[0]) else None)


def _fail() -> None:
    raise ValueError("this process cannot go on")


if __name__ == "__main__":
    torch.set_num_threads(1)
    Path(f"{sys.argv[1]}.{os.environ['RANK']}.pid").write_text(str(os.getpid()))
    commands = [json.loads(line) for line in Path(sys.argv[1]).read_text().splitlines()]
    found = [run(**command) for command in commands]
    Path(f"{sys.argv[1]}.{os.environ['RANK']}").write_text("".join(f"{json.dumps(one)}\n" for one in found))
