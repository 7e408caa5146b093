import json

import pytest

from benchmarks.results import FOLDER, bar
from benchmarks.tables import PAGES, TABLES, render


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_say_what_was_measured(page):
    assert render(page.read_text()) == page.read_text()


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
