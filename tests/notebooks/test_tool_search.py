"""The notebook: in step with its script, without paths of a machine, and every cell runs on a dozen tools."""

import csv
import json
import re
from pathlib import Path

import jupytext
import nbclient
import nbformat
import pytest
from transformers import AutoConfig, AutoModelForCausalLM

from modeling_rabtriever.reranking.backbone import train_tokenizer
from tests.training.tiny_encoders import write_sentence_transformer

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
SCRIPT, NOTEBOOK = NOTEBOOKS / "tool_search.py", NOTEBOOKS / "tool_search.ipynb"
TOOLS = {
    "Umbrella": "Tells whether it will rain.",
    "Ladle": "Finds a recipe for what is in the fridge.",
    "Compass": "Shows the way from one place to another.",
    "Ticker": "Reads the prices of shares.",
    "Quill": "Writes a letter in a tone of your choice.",
    "Abacus": "Adds up expenses.",
    "Gong": "Wakes you at a given hour.",
    "Polyglot": "Puts a text into another language.",
    "Lantern": "Switches the lights at home.",
    "Curtain": "Finds plays and films near you.",
    "Stethoscope": "Explains what a symptom may mean.",
    "Trowel": "Says when to water which plant.",
}
WISHES = ["Could {} help me today?", "I would like {}.", "What can {} do?", "is there something like {}", "{}, please"]
SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
PARAMETERS = """\
run = Path("run")
source, backbone, encoder = "metatool", "backbone", "encoder"
sizes = {"test": 12, "dev": 6, "train": 40}
asked, teacher_steps, student_steps, batch = 30, 2, 2, 8
"""


def test_notebook_and_script_are_in_step() -> None:
    script, notebook = jupytext.read(SCRIPT), nbformat.read(NOTEBOOK, 4)
    assert [(cell.cell_type, cell.source) for cell in notebook.cells] == [
        (cell.cell_type, cell.source) for cell in script.cells
    ]


def test_the_notebook_is_small_and_names_no_machine() -> None:
    text = NOTEBOOK.read_text()
    assert len(text) < 100_000
    assert re.findall(r"(?<![\\w.:/])/(?:home|root|tmp|work|usr|Users|mnt|opt)/", text) == []
    assert "Traceback" not in text


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """MetaTool's two files with a dozen tools, a language model and a sentence encoder."""
    files = tmp_path / "metatool/dataset"
    (files / "data").mkdir(parents=True)
    (files / "plugin_des.json").write_text(json.dumps(TOOLS))
    with (files / "data/all_clean_data.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["Query", "Tool"])
        rows.writerows([wish.format(tool.lower()), tool] for tool in TOOLS for wish in WISHES)
        rows.writerow(["WHAT can the ladle do", "Ladle"])
        rows.writerow(["what can The Ladle do?", "Ladle"])  # the same query again
    tokenizer = train_tokenizer([*TOOLS.values(), *WISHES, "Document: Query: yes no Answer:"] * 5, 400, (" yes", " no"))
    config = AutoConfig.for_model(
        "qwen2", vocab_size=len(tokenizer), num_key_value_heads=2, max_position_embeddings=256, **SIZES
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "backbone")
    tokenizer.save_pretrained(tmp_path / "backbone")
    write_sentence_transformer(tmp_path / "encoder", "bert", "mean")
    return tmp_path


@pytest.mark.slow
def test_every_cell_runs(place: Path) -> None:
    notebook = jupytext.read(SCRIPT)
    (row,) = [row for row, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", [])]
    notebook.cells.insert(row + 1, nbformat.v4.new_code_cell(PARAMETERS))  # as papermill does
    client = nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(place)}})
    client.execute()
    said = "".join(
        output.text
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if output.output_type == "stream" and output.name == "stdout"
    )
    assert "62 requests, 12 tools" in said
    assert len((place / "run/data/queries.jsonl").read_text().splitlines()) == 61
    assert len((place / "run/data/qrels/test.tsv").read_text().splitlines()) == 13
    assert "| test: n = 12, 12 documents |" in said
    assert said.count("| BM25 |") == 2 and "| Rabtriever |" in said
    for folder in ("teacher/model", "student/model", "store", "towers/query", "towers/document"):
        assert (place / "run" / folder).is_dir()
    client.execute()  # what is there is not made again
