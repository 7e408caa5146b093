"""The page in a browser, as a visitor uses it."""

import json
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from modeling_rabtriever import RabtrieverModel
from modeling_rabtriever.demo.documents import OWN_BYTES
from tests.conftest import DOCUMENTS, QUERIES
from tests.demo.conftest import SHELF, RunningPage

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
expect = sync_api.expect
pytestmark = pytest.mark.slow
EVIL = "<img src=x onerror='window.ran=1'> sponge ${window.ran=2} {{ran}} <b>bold</b>"


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Any, running: RunningPage) -> Iterator[Any]:
    """A visitor's page; whatever the test does, nothing may be asked of another host."""
    context = browser.new_context(viewport={"width": 1240, "height": 900})
    page = context.new_page()
    page.set_default_timeout(20_000)
    expect.set_options(timeout=20_000)
    hosts: set[str | None] = set()
    page.on("request", lambda request: hosts.add(urllib.parse.urlparse(request.url).hostname))
    page.goto(running.url)
    page.get_by_label("Query").wait_for()
    yield page
    context.close()
    assert hosts - {None, ""} == {"127.0.0.1"}


def ranking(page: Any, name: str) -> Any:
    return page.get_by_role("region", name=f"Ranking of {name}")


def texts(page: Any, name: str) -> list[str]:
    return ranking(page, name).locator(".rabtriever-text").all_inner_texts()


def bring(page: Any, text: str) -> None:
    page.get_by_role("button", name="Your own documents").click()
    page.get_by_label("One document per line").fill(text)
    page.get_by_role("button", name="Add these lines").click()


def test_enter_ranks_with_all_three(page: Any, running: RunningPage) -> None:
    query = "the sponge for my drink"
    page.get_by_label("Query").fill(query)
    page.get_by_label("Query").press("Enter")
    ranking(page, "Teacher").wait_for()
    assert texts(page, "BM25") == ["bring the sponge"]
    for name, model in (("Rabtriever", running.student), ("Teacher", running.teacher)):
        expected = model.rank(query, DOCUMENTS)
        assert texts(page, name) == [hit["text"] for hit in expected]
        shown = ranking(page, name).locator(".rabtriever-score").all_inner_texts()
        scores = [float(text.split("\n")[0]) for text in shown]
        assert scores == pytest.approx([hit["score"] for hit in expected], abs=0.011)
    for name in ("BM25", "Rabtriever", "Teacher"):
        assert re.fullmatch(r"[\d,.]+ ms", ranking(page, name).locator(".rabtriever-time").inner_text())
    best = running.teacher.rank(query, DOCUMENTS)[0]["text"]
    mine = ranking(page, "Rabtriever").get_by_role("listitem").filter(has_text=best)
    expect(mine).to_contain_text("teacher #1")

    parts = page.locator("details[open] tbody tr td:nth-child(4)").all_inner_texts()
    (total,) = page.locator("details[open] tfoot td:nth-child(4)").all_inner_texts()
    assert len(parts) == 6
    assert sum(map(float, parts)) == pytest.approx(float(total), abs=0.04)
    second = page.locator("summary").nth(1)
    second.focus()
    second.press("Enter")
    expect(page.locator("details[open] summary")).to_have_text(re.compile(r"^2\."))


def test_the_keyboard_is_enough(page: Any) -> None:
    query = page.get_by_label("Query")
    query.press("Enter")
    page.wait_for_timeout(1000)  # Gradio's script may lose an event that follows right behind another
    expect(page.get_by_role("status").filter(has_text="Type a query and press Enter.")).to_be_visible()
    order = []
    query.focus()
    for _ in range(5):
        page.keyboard.press("Tab")
        order.append(page.evaluate("(e => e.innerText || e.value)(document.activeElement)").strip())
    assert order[:4] == ["Search", QUERIES[1], "given", "own"] and order[4].startswith("Your own documents")
    page.get_by_role("button", name=QUERIES[1]).press("Enter")
    ranking(page, "Teacher").wait_for()
    expect(query).to_have_value(QUERIES[1])
    assert len(texts(page, "Rabtriever")) == len(DOCUMENTS)


def test_a_visitors_documents(page: Any, browser: Any, running: RunningPage) -> None:
    page.get_by_label("Query").fill("the sponge")
    page.get_by_role("radio", name="Your own (0)").check()
    expect(page.get_by_text("You have no documents yet.")).to_be_visible()
    bring(page, f"{EVIL}\na lamp\n\na ladder\na lamp")
    expect(page.get_by_text("3 added, 1 repeated; 3 in total.")).to_be_visible()
    expect(page.get_by_role("radio", name="Your own (3)")).to_be_checked()
    ranking(page, "Teacher").wait_for()
    assert texts(page, "BM25") == [EVIL]
    own = [EVIL, "a lamp", "a ladder"]
    assert texts(page, "Rabtriever") == [hit["text"] for hit in running.student.rank("the sponge", own)]
    assert page.evaluate("window.ran") is None and page.locator("#results img, #results li b").count() == 0

    page.get_by_label("Documents to remove").click()
    expect(page.get_by_role("option").first).to_have_text(re.compile(re.escape(EVIL)))
    assert page.locator("img[src=x]").count() == 0
    page.get_by_role("option", name="sponge").click()
    page.get_by_role("button", name="Remove the chosen").click()
    expect(page.get_by_text("1 removed, 2 left.")).to_be_visible()
    expect(ranking(page, "BM25")).to_contain_text("No document shares a word")
    assert sorted(texts(page, "Rabtriever")) == ["a ladder", "a lamp"]

    other = browser.new_page()  # another visitor
    other.goto(running.url)
    expect(other.get_by_role("radio", name="Your own (0)")).to_be_visible()
    other.close()
    page.get_by_role("button", name="Remove all").click()
    expect(page.get_by_role("radio", name="Example corpus (4)")).to_be_checked()


def test_another_collection(page: Any, running: RunningPage) -> None:
    page.get_by_label("Query").fill("a lamp")
    bring(page, "a lamp\na ladder")
    ranking(page, "Teacher").wait_for()
    page.get_by_role("radio", name="Top shelf").check()
    expect(ranking(page, "Teacher")).to_have_count(0)
    expect(page.get_by_role("radio", name="Your own (2)")).to_be_checked()  # now encoded by the other student
    assert texts(page, "BM25") == ["a lamp"] and sorted(texts(page, "Rabtriever")) == ["a ladder", "a lamp"]
    expect(page.get_by_text("In the example corpus: \u201ca cup\u201d")).to_be_visible()
    expect(page.get_by_role("button", name=QUERIES[1])).to_be_hidden()
    page.get_by_role("radio", name="Example corpus (3)").check()
    page.get_by_role("button", name="a cup").click()
    expect(ranking(page, "BM25").locator(".rabtriever-text")).to_have_text(["a cup"])
    shelf = RabtrieverModel.from_pretrained(running.folder / "2-top-shelf/model")
    assert texts(page, "Rabtriever") == [hit["text"] for hit in shelf.rank("a cup", SHELF)]
    page.get_by_role("radio", name="Errands").check()
    ranking(page, "Teacher").wait_for()
    assert len(texts(page, "Rabtriever")) == len(DOCUMENTS)


def test_uploads(page: Any, running: RunningPage) -> None:
    page.get_by_role("button", name="Your own documents").click()
    chooser = page.locator("#upload input[type=file]")
    lines = "".join(json.dumps({"text": text}) + "\n" for text in ("a sponge", "a kettle"))
    chooser.set_input_files({"name": "own.jsonl", "mimeType": "application/json", "buffer": lines.encode()})
    expect(page.get_by_text("2 added; 2 in total.")).to_be_visible()
    chooser.set_input_files({"name": "own.jsonl", "mimeType": "application/json", "buffer": b'{"text": \n'})
    expect(page.get_by_role("alert").filter(has_text="own.jsonl line 1: broken JSON")).to_be_visible()
    assert left(running, "own.jsonl") == []  # read once, not kept

    large = b"a line\n" * (OWN_BYTES // 7 + 1)
    chooser.set_input_files({"name": "large.txt", "mimeType": "text/plain", "buffer": large})
    expect(page.get_by_text(re.compile("maximum allowed size", re.IGNORECASE)).first).to_be_visible()
    expect(page.get_by_role("radio", name="Your own (2)")).to_be_checked()
    status = post_file(running.url + "gradio_api/upload", large)
    assert status == 413
    assert left(running, "large*") == []


def left(running: RunningPage, pattern: str) -> list[Path]:
    """Uploads that are still there after a moment: they go right behind the answer."""
    deadline = time.monotonic() + 10
    while found := [path for path in running.uploads.rglob(pattern) if path.is_file()]:
        if time.monotonic() > deadline:
            break
        time.sleep(0.1)
    return found


def test_a_phone(page: Any) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    page.get_by_label("Query").fill(QUERIES[0])
    page.get_by_label("Query").press("Enter")
    ranking(page, "Teacher").wait_for()
    bring(page, "unbreakable" * 30)
    ranking(page, "Teacher").filter(has_text="unbreakable").wait_for()
    width = page.evaluate("Math.max(document.documentElement.scrollWidth, document.body.scrollWidth)")
    assert width <= 390
    boxes = [ranking(page, name).bounding_box() for name in ("BM25", "Rabtriever", "Teacher")]
    assert len({round(box["x"]) for box in boxes}) == 1
    assert boxes[0]["y"] + boxes[0]["height"] <= boxes[1]["y"] < boxes[2]["y"]


def test_no_other_hosts(page: Any, running: RunningPage) -> None:
    events = [line.split() for line in running.addresses.read_text().splitlines()]
    assert {host for _, host in events} <= {"127.0.0.1", "::1", "localhost"}


def post_file(url: str, content: bytes) -> int:
    body = (
        b'--x\r\nContent-Disposition: form-data; name="files"; filename="large.txt"\r\n\r\n'
        + content
        + b"\r\n--x--\r\n"
    )
    return answer(urllib.request.Request(url, body, {"Content-Type": "multipart/form-data; boundary=x"}))


def answer(request: str | urllib.request.Request) -> int:
    try:
        with urllib.request.urlopen(request) as answered:
            return answered.status
    except urllib.error.HTTPError as error:
        with error:  # holds the connection
            return error.code
