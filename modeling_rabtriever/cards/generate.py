"""Generates the model cards of a run from the records of its stages: no number is typed by hand."""

import json
import shlex
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from transformers import AutoConfig

from ..evaluation.labels import COLUMNS, NOTE
from ..evaluation.report import Report, calibration_line
from ..files import read_record, replace_file, write_text
from ..tasks.named import load_task, named_tasks
from .layout import CARDS, EVALUATION
from .licenses import FROM_SCRATCH, license_fields, license_table

TEMPLATES = Path(__file__).parent / "templates"
# Plots of a split by the stage evaluate: end of the file name -> caption.
PLOTS = {
    "recall": "Queries answered among the first k",
    "scores": "Scores of relevant and of other documents",
    "reliability": "Reliability of the teacher's probabilities",
}


@dataclass
class CardArguments:
    """Facts that a run does not record.

    Args:
        licenses: `model`, `base_model`, `data` -> licence identifier of the Hub, or `other:NAME`.
        base_model: Hub id that the model to release started from; default: the recipe's, if that is a Hub id. It goes
            into both cards, except a student's whose encoder has a Hub id.
        datasets: Hub ids of the data; default: the task's, if it is on the Hub.
        table: Markdown to add to the results, such as a table over seeds.
    """

    licenses: dict[str, str] = field(default_factory=dict)
    base_model: str | None = None
    datasets: list[str] | None = None
    table: str | None = None


def write_cards(run: Path, about: CardArguments | None = None) -> None:
    """Writes README.md, and the reports and plots it shows, into the model folders of teacher and student.

    Args:
        run: folder of a finished and evaluated run.
        about: facts that the run does not record; missing licences appear as not stated and prevent a release.

    Raises:
        ValueError: a stage has not run there, or a result has no table.
    """
    about = about or CardArguments()
    files = [json.loads(path.read_text()) for path in sorted((run / "evaluation").glob("*.json"))]
    reports = [Report.from_json(file) for file in files if "systems" in file]  # the stage's own record has none
    if not reports:
        raise ValueError(f"{run / 'evaluation'} holds no report; accepted: a run with a finished stage evaluate")
    records = {stage: _record(run / stage) for stage in CARDS}
    task = load_task(records["teacher"]["data"], records["teacher"]["settings"].get("skip_bad", False))
    start = _start(run, records["teacher"])
    datasets = about.datasets or _datasets(records["teacher"]["data"])
    shared = {
        "task": task.name,
        "train": task.split(records["teacher"]["settings"]["train_split"]),
        "corpus_size": len(task.corpus),
        "start": start.words,
        "encoder": _encoder(records["student"]["settings"]),
        "reports": reports,
        "results": "\n\n".join(report.markdown(calibration_line(report)) for report in reports),
        "note": NOTE,
        "benchmark": about.table,
        **records,
    }
    environment = _environment()
    for stage, (template, system, tags) in CARDS.items():
        folder = run / stage / "model"
        name = f"{stage}-{task.name}"
        metadata = {"datasets": datasets, **_origin(about, start, records[stage]["settings"])}
        data = ModelCardData(
            library_name="transformers",
            pipeline_tag="text-ranking",
            tags=tags,
            model_name=name,
            eval_results=[result for report in reports for result in _eval_results(report, system)],
            **{key: value for key, value in metadata.items() if value},
        )
        example = task.split(reports[0].split)
        text = environment.get_template(template).render(
            card_data=data.to_yaml(),
            model_name=name,
            system=system,
            query=example.queries[0],
            documents=list(task.corpus[:2]),
            prompt=json.loads((folder / "processor_config.json").read_text()),
            config=AutoConfig.from_pretrained(folder, trust_remote_code=False),  # adds defaults for older folders
            plots=_copy_evaluation(run / "evaluation", folder / EVALUATION, reports),
            licenses=license_table(metadata),
            **shared,
        )
        write_text(folder / "README.md", str(ModelCard(text)))


def _environment() -> Environment:
    environment = Environment(  # a missing value is an error
        loader=FileSystemLoader(TEMPLATES), undefined=StrictUndefined, trim_blocks=True, keep_trailing_newline=True
    )
    # Jinja's own tojson escapes <, > and ' for HTML, which would be wrong in code blocks.
    environment.filters["quoted"] = partial(json.dumps, ensure_ascii=False)
    environment.filters["shell"] = shlex.quote
    return environment


class _Start(NamedTuple):
    words: str  # no local path: a card is public
    hub_id: str | None = None
    scratch: bool = False


def _start(run: Path, teacher: dict[str, Any]) -> _Start:
    """What the teacher's weights started from."""
    name, pretrained = teacher["settings"]["model_name_or_path"], ""
    if name is None:  # the stage pretrain ran before
        name = _record(run / "backbone")["settings"]["model_name_or_path"]
        pretrained = ", first with language modelling on the training split"
    if name.endswith(".json"):
        return _Start(f"from scratch (configuration `{Path(name).name}`{pretrained})", scratch=True)
    if Path(name).exists():
        return _Start(f"from a local copy of a pretrained model{pretrained}")
    return _Start(f"from [`{name}`](https://huggingface.co/{name}){pretrained}", name)


def _origin(about: CardArguments, start: _Start, settings: dict[str, Any]) -> dict[str, Any]:
    """The base model of a stage's weights, and the licences; a student may have another encoder."""
    found, scratch, encoder = about.base_model or start.hub_id, start.scratch, settings.get("encoder")
    if encoder is not None and not encoder.isdigit():  # a number: that many layers of the teacher's backbone
        found = about.base_model if Path(encoder).exists() else encoder
        scratch = False
    licenses = {"base_model": FROM_SCRATCH} if found is None and scratch else {}
    licenses |= about.licenses
    return {"base_model": found, **license_fields(licenses)}


def _encoder(settings: dict[str, Any]) -> str:
    """The student's encoder, in words; older runs do not record it."""
    how = {"none": "frozen", "full": "trained with it", "lora": "trained with it by adapters, now merged"}
    name = settings.get("encoder")
    if name is None:
        start = "the teacher's backbone"
    elif name.isdigit():
        start = f"the first {name} layers of the teacher's backbone"
    else:
        start = "a local copy of another text encoder" if Path(name).exists() else f"the encoder `{name}`"
    return f"{start} ({how[settings.get('train_encoder', 'none')]})"


def _datasets(source: str) -> list[str]:
    if source.startswith("hub:"):
        return [source.removeprefix("hub:")]
    known = named_tasks().get(source)
    return [known.hub] if known is not None and known.hub is not None else []


def _record(folder: Path) -> dict[str, Any]:
    record = read_record(folder / "stage.json", settings=dict)
    if not record.get("done"):
        raise ValueError(f"{folder} holds no finished stage; accepted: a run whose stages have all ended")
    return {**record, "data": record["settings"]["data"]}


def _copy_evaluation(source: Path, target: Path, reports: Sequence[Report]) -> list[tuple[str, str]]:
    """Copies reports and plots beside the card; returns caption and relative path of each plot."""
    names, plots = [], []
    for report in reports:
        names.append(f"{report.split}.json")
        for ending, caption in PLOTS.items():
            plot = f"{report.split}-{ending}.png"
            if (source / plot).is_file():
                names.append(plot)
                plots.append((f"{caption} (`{report.split}`)", f"{EVALUATION}/{plot}"))
    for name in names:
        replace_file(target / name, partial(shutil.copyfile, source / name))
    for path in target.iterdir():
        if path.name not in names:  # from a split that is no longer evaluated
            path.unlink()
    return plots


def _eval_results(report: Report, system: str) -> list[EvalResult]:
    return [
        EvalResult(
            task_type="text-ranking",
            dataset_type=report.task,
            dataset_name=report.task,
            dataset_split=report.split,
            dataset_args={"queries": report.n, "documents": report.documents},
            metric_type=metric,
            metric_name=label,
            metric_value=round(report.systems[system].metrics[metric].mean, 4),
        )
        for metric, label in COLUMNS.items()
    ]
