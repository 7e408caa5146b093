"""Links of the pages lead somewhere; the site lists every page; what is quoted of the code is in it."""

import ast
import re
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from markdown_it import MarkdownIt
from markdown_it.token import Token

from tests.pages.blocks import PAGES, ROOT

PACKAGE = ROOT / "modeling_rabtriever"
FRONT_WORDS = 1400


def _tokens(page: Path) -> list[Token]:
    return MarkdownIt("commonmark").enable("table").parse(page.read_text())


def _targets(page: Path) -> list[str]:
    inline = [child for token in _tokens(page) for child in token.children or ()]
    found = [str(child.attrs.get("href", child.attrs.get("src", ""))) for child in inline]
    return [target for target in found if target]


@cache
def _anchors(page: Path) -> set[str]:
    tokens = _tokens(page)
    titles = [text.content for mark, text in pairwise(tokens) if mark.type == "heading_open"]
    plain = [re.sub(r"[`*]|\[([^]]*)\]\([^)]*\)", r"\1", title).lower() for title in titles]
    return {re.sub(r"[^\w\- ]", "", title).strip().replace(" ", "-") for title in plain}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for target in _targets(page):
        if target.startswith(("https://", "mailto:")):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (anchor and anchor not in _anchors(file)):
            broken.append(target)
    assert broken == []


def test_a_broken_link_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# One `two`\n\n[a](#one-two) [b](#three) [c](other.md)\n")
    assert _anchors(page) == {"one-two"} and _targets(page) == ["#one-two", "#three", "other.md"]
    with pytest.raises(AssertionError, match=r"#three.*other\.md"):
        test_links_lead_somewhere(page)


def test_the_site_lists_every_page() -> None:
    listed = re.findall(r": (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    pages = [page for page in PAGES if page.parent.name != "model_cards"]
    assert sorted(listed) == sorted(page.relative_to(ROOT).as_posix() for page in pages)
    assert yaml.safe_load((ROOT / "mkdocs.yml").read_text())["site_dir"].startswith("build/")


def test_the_readme_is_one_page() -> None:
    text = (ROOT / "README.md").read_text()
    assert len(text.split()) < FRONT_WORDS
    assert "make test " in text and "\nmake test\n" in (ROOT / ".ci" / "run").read_text()


def test_the_messages_in_the_pages_are_those_of_the_code() -> None:
    """Every quoted message of Troubleshooting and Backbones, piece by piece between its dots."""
    said = " \n ".join(_strings())
    quoted = [
        *_first_column_quotes((ROOT / "docs/troubleshooting.md").read_text()),
        *_last_column_quotes((ROOT / "docs/backbones.md").read_text()),
    ]
    assert len(quoted) > 30
    pieces = [piece.strip() for message in quoted for piece in message.split("...")]
    assert [piece for piece in pieces if piece not in said] == []


def _first_column_quotes(text: str) -> list[str]:
    cells = [line.split("|")[1] for line in text.splitlines() if line.startswith("| ")]
    found = [quote for cell in cells for quote in re.findall(r"`([^`]+)`", cell)]
    return [quote for quote in found if " " in quote]


def _last_column_quotes(text: str) -> list[str]:
    refused = [part.split("\n\n")[0] for part in text.split("| refused |")[1:]]
    cells = [line.split("|")[-2] for part in refused for line in part.splitlines() if line.startswith("| ")]
    return [quote for cell in cells for quote in re.findall(r"`([^`]+)`", cell)]


@cache
def _strings() -> tuple[str, ...]:
    found = []
    for path in (*PACKAGE.rglob("*.py"), *(ROOT / "rabtriever_cli").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                found.append(
                    "".join(str(part.value) if isinstance(part, ast.Constant) else " " for part in node.values)
                )
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return tuple(found)


def test_the_map_for_contributors_names_what_is_there() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    names = re.findall(r"`([\w./-]+(?:\.py|\.yaml|\.md|/))`", text)
    assert len(names) > 50
    assert [name for name in names if not any((root / name).exists() for root in (ROOT, PACKAGE))] == []
    found = re.search(r"sed -i 's/(.+?)/.+' (\S+)", text)
    assert found is not None
    broken, place = found.groups()
    assert broken in (ROOT / place).read_text()
