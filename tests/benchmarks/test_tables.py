import json

import pytest

from benchmarks.front_table import SOURCES
from benchmarks.option_page import option_page
from benchmarks.results import FOLDER, bar
from benchmarks.tables import OPTIONS, PAGES, TABLES, render


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_say_what_was_measured(page):
    assert render(page.read_text()) == page.read_text()


def test_the_page_of_options_is_that_of_the_code():
    assert option_page() == OPTIONS.read_text()


def test_the_front_table_shows_the_best_of_the_labels(tmp_path):
    for name in SOURCES:
        result = json.loads((FOLDER / f"{name}.json").read_text())
        for row in result["rows"]:
            if row.get("method") == "InfoNCE":
                row["mrr@10"] |= {"mean": 0.99, "low": 0.98, "high": 1.0}
        (tmp_path / f"{name}.json").write_text(json.dumps(result))
    lines = render("<!-- results:front_page -->\n<!-- /results -->", tmp_path).splitlines()
    cells = {line.split("|")[1].split(",")[0].strip(): line.split("|") for line in lines if line.startswith("| ")}
    assert cells["SayCan"][5].strip() == cells["CoS-E"][5].strip() == "99.0 [98.0, 100.0]"
    assert cells["CoS-E"][2].strip() == "8,061"


def test_a_small_p_is_not_shown_as_none(tmp_path):
    result = json.loads((FOLDER / "student_equal_bill.json").read_text())
    for row in result["rows"]:
        if "p" in row["ndcg@10"]:
            row["ndcg@10"]["p"] = 0.0004 if row["method"] == "KL" else 0.9006
    (tmp_path / "student_equal_bill.json").write_text(json.dumps(result))
    text = render("<!-- results:student_equal_bill -->\n<!-- /results -->", tmp_path)
    p_values = {line.split("|")[1].strip(): line.split("|")[6].strip() for line in text.splitlines() if "|" in line}
    assert p_values["KL"] == "< 0.001" and p_values["BM25"] == "0.901"
    assert "from all-MiniLM-L6-v2" in text


def test_tables_come_from_the_files(tmp_path):
    result = json.loads((FOLDER / "evaluation_tasks.json").read_text())
    for row in result["rows"]:
        row["test"]["systems"]["teacher"]["success@1"] |= {"mean": 0.1234, "low": 0.1, "high": 0.2}
    (tmp_path / "evaluation_tasks.json").write_text(json.dumps(result))
    text = render("a\n<!-- results:evaluation_tasks -->\nold\n<!-- /results -->\nb", tmp_path)
    assert "12.3 [10.0, 20.0]" in text
    assert "old" not in text
    assert text.startswith("a\n") and text.endswith("\nb")


def test_a_marker_may_name_one_set():
    found = render("<!-- results:evaluation_sets saycan -->\n<!-- /results -->")
    everything = render("<!-- results:evaluation_sets -->\n<!-- /results -->")
    assert "SayCan" in found and "SayCan" in everything
    assert "TheoremQA" not in found and "TheoremQA" in everything
    with pytest.raises(ValueError, match="evaluation_sets has no rows of nothing"):
        render("<!-- results:evaluation_sets nothing -->\n<!-- /results -->")


def test_unknown_and_unmeasured_results_are_errors(tmp_path):
    with pytest.raises(ValueError, match="results:nothing has no table"):
        render("<!-- results:nothing -->\n<!-- /results -->")
    with pytest.raises(FileNotFoundError):
        render(f"<!-- results:{next(iter(TABLES))} -->\n<!-- /results -->", tmp_path)


def test_bars():
    assert bar("x", 4.0, ">=", 3.5, 5)["holds"] is True
    assert bar("x", 3.0, "<", 3.0, 5)["holds"] is False
    assert bar("x", None, ">=", 3.5, 0, why="no GPU") == {
        "name": "x", "value": None, "op": ">=", "limit": 3.5, "n": 0, "why": "no GPU"
    }  # fmt: skip
