"""Documents of the page: the corpus it starts with, and a visitor's pasted or uploaded texts, within limits."""

import re
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from ..retrieval.documents import Document, DocumentReader, to_document
from ..retrieval.json_lines import decode_line, numbered_lines, parse_line

CORPUS_DOCUMENTS = 5_000  # in the corpus that the page starts with; all vectors and the BM25 index are in memory
OWN_DOCUMENTS = 500  # per session
OWN_BYTES = 256 * 1024  # pasted or uploaded at once
CHARACTERS = 2_000  # in a document or a query
UPLOADS = (".jsonl", ".txt")
_SURROGATE = re.compile("[\ud800-\udfff]")  # half a character


def read_corpus(source: str | Path) -> list[Document]:
    """The corpus that a page starts with.

    Raises:
        ValueError: `DocumentReader` cannot read the source, a line is not a document, or there are no documents or more
            than 5,000.
    """
    documents = list(islice(DocumentReader(source), CORPUS_DOCUMENTS + 1))
    if not documents:
        raise ValueError(f"{source} holds no documents; accepted: at least one")
    if len(documents) > CORPUS_DOCUMENTS:
        raise ValueError(
            f"{source} holds more than {CORPUS_DOCUMENTS:,} documents; accepted by the page: at most that many "
            "(rabtriever index and search have no limit)"
        )
    return documents


def pasted_texts(text: str) -> list[str]:
    """One document per line that is not blank.

    Raises:
        ValueError: all lines are blank, the text or a line is too long, or a line holds half a character.
    """
    return _within_limits("the pasted text", len(text.encode(errors="surrogatepass")), text.split("\n"))


def uploaded_texts(path: str | Path) -> list[str]:
    """Texts of an uploaded file: JSON lines with a field `text` and perhaps `title`, or plain lines, by its ending.

    Messages have the last part of its path alone, so that they do not show the server's folders.

    Raises:
        ValueError: the file has another ending or too many bytes, is not UTF-8, or is gone; or a line is not a
            document, with its number.
    """
    path = Path(path)
    name = path.name
    if path.suffix.lower() not in UPLOADS:
        raise ValueError(f"{name} ends in {path.suffix!r}; accepted: {', '.join(UPLOADS)}")
    is_json = path.suffix.lower() == ".jsonl"
    try:
        size = path.stat().st_size
        _check_size(name, size)
        with path.open("rb") as file:
            lines = [_text(name, number, line, is_json) for number, _, line in numbered_lines(file)]
    except OSError as error:  # later uploads pushed it out
        raise ValueError(f"{name} is gone; accepted: upload it again") from error
    return _within_limits(name, size, lines)


def joined(before: Sequence[str], new: Sequence[str]) -> list[str]:
    """A visitor's documents and the new ones, without repeated texts.

    Raises:
        ValueError: together they are more than a session may keep.
    """
    texts = list(dict.fromkeys([*before, *new]))
    if len(texts) > OWN_DOCUMENTS:
        raise ValueError(
            f"there are {len(before)} documents and {len(texts) - len(before)} new ones; accepted: at most "
            f"{OWN_DOCUMENTS} in total"
        )
    return texts


def _text(name: str, number: int, line: bytes, is_json: bool) -> str:
    try:
        if not is_json:
            return decode_line(line)
        row = parse_line(line)
        if isinstance(row, dict):
            row = {**row, "id": str(number), "_id": None}
        return to_document(row).text
    except ValueError as error:
        raise ValueError(f"{name} line {number}: {error}") from error


def _within_limits(name: str, size: int, lines: Sequence[str]) -> list[str]:
    _check_size(name, size)
    texts = [line.strip() for line in lines if line.strip()]
    if not texts:
        raise ValueError(f"{name} holds no document; accepted: one per line")
    for number, text in enumerate(texts, start=1):
        check_text(f"{name}: document {number}", text)
    return texts


def check_text(name: str, text: str) -> None:
    """Raises a ValueError if a document or query of the page is too long or holds half a character."""
    if len(text) > CHARACTERS:
        raise ValueError(f"{name} has {len(text):,} characters; accepted: at most {CHARACTERS:,}")
    half = _SURROGATE.search(text)
    if half is not None:
        raise ValueError(
            f"{name} holds half a character ({half[0]!r}, character {half.start() + 1}); accepted: text without lone "
            "surrogates"
        )


def _check_size(name: str, size: int) -> None:
    if size > OWN_BYTES:
        raise ValueError(f"{name} has {size:,} bytes; accepted: at most {OWN_BYTES:,}")
