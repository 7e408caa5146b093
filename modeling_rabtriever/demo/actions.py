"""The functions of the page's events: they take and return values of its components."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from . import rendering
from .collections import Collection
from .documents import joined, pasted_texts, uploaded_texts
from .ranking import IndexedTexts, Ranker


@dataclass(frozen=True)
class Own:
    """A visitor's documents, encoded by the student of the collection of this name."""

    collection: str
    indexed: IndexedTexts

    def __len__(self) -> int:
        """Number of documents."""
        return len(self.indexed)


class Actions:
    """The functions of the page's events. Bad input gives a message, and stays in its field."""

    def __init__(self, collections: Sequence[Collection]) -> None:
        self.collections = {collection.name: collection for collection in collections}
        self.rankers = {name: Ranker(found.student, found.teacher) for name, found in self.collections.items()}
        self.given = {
            name: self.rankers[name].index([document.text for document in found.documents])
            for name, found in self.collections.items()
        }

    def choices(self, name: str, own: Own | None) -> list[tuple[str, str]]:
        """The sets of documents that a visitor can search."""
        number = 0 if own is None else len(own)
        return [(f"Example corpus ({len(self.given[name]):,})", "given"), (f"Your own ({number:,})", "own")]

    def sample(self, name: str) -> str:
        """Some documents of a collection."""
        return rendering.sample(self.given[name].texts)

    def placeholder(self, name: str) -> str:
        """What the empty query field shows."""
        return next(iter(self.collections[name].examples), "Describe a situation or ask a question")

    def choose(self, name: str, where: str, own: Own | None, query: str) -> Iterator[tuple[Any, ...]]:
        """Another collection: its sample, examples and rankings; a visitor's documents are encoded by its student."""
        own = None if own is None else Own(name, self._indexed(name, own))
        changed = (
            own,
            gr.update(choices=self.choices(name, own)),
            gr.update(placeholder=self.placeholder(name)),
            self.sample(name),
            *(gr.update(visible=bool(one.examples) and one.name == name) for one in self.collections.values()),
        )
        yield from _with_rankings(changed, self.search(query, name, where, own))

    def search(self, query: str, name: str, where: str, own: Own | None) -> Iterator[str]:
        """The rankings; the teacher's comes later than the others."""
        if not query.strip():
            yield rendering.message("Type a query and press Enter.")
            return
        if where == "own" and own is None:
            yield rendering.message("You have no documents yet. Add some below.")
            return
        ranker = self.rankers[name]
        indexed = self.given[name] if where == "given" or own is None else self._indexed(name, own)
        try:
            bm25 = ranker.rank_bm25(query, indexed)
            student = ranker.rank_student(query, indexed)
            has_teacher = ranker.teacher is not None
            yield rendering.results(len(indexed), bm25, student, None, teacher_works=has_teacher)
            if has_teacher:
                teacher = ranker.rank_teacher(query, indexed)
                yield rendering.results(len(indexed), bm25, student, teacher, teacher_works=False)
        except ValueError as error:
            yield rendering.message(str(error), is_error=True)

    def then_search(self, edit: Callable[..., tuple[Any, ...]]) -> Callable[..., Iterator[tuple[Any, ...]]]:
        """An edit followed by a search, as one event: the edit's inputs and a query -> its outputs and the results."""

        def both(*given: Any) -> Iterator[tuple[Any, ...]]:
            *_, name, query = given
            changed = edit(*given[:-1])
            own = changed[0]
            if own is not None and not isinstance(own, Own):  # the edit was refused
                yield *changed, gr.skip()
                return
            yield from _with_rankings(changed, self.search(query, name, "given" if own is None else "own", own))

        return both

    def add(self, pasted: str, own: Own | None, name: str) -> tuple[Any, ...]:
        """Adds lines of a text field."""
        try:
            return *self._with(pasted_texts(pasted), own, name), ""
        except ValueError as error:
            return *_refused(error), gr.skip()

    def upload(self, path: str | None, own: Own | None, name: str) -> tuple[Any, ...]:
        """Adds the documents of a file, which is read once and not kept."""
        if path is None:
            return gr.skip(), gr.skip(), gr.skip(), gr.skip(), None
        try:
            return *self._with(uploaded_texts(path), own, name), None
        except ValueError as error:
            return *_refused(error), None
        finally:
            Path(path).unlink(missing_ok=True)

    def remove(self, chosen: list[str] | None, own: Own | None, name: str) -> tuple[Any, ...]:
        """Removes the documents with these keys."""
        if own is None or not chosen:
            return _refused(ValueError("no document is chosen; accepted: at least one"))
        gone = set(chosen)
        indexed = self._indexed(name, own)
        left = [text for text in indexed.texts if _key(text) not in gone]
        said = f"{len(own) - len(left)} removed, {len(left)} left."
        return self._changed(self.rankers[name].index(left, indexed) if left else None, name, said)

    def clear(self, name: str) -> tuple[Any, ...]:
        """Removes all of a visitor's documents."""
        return self._changed(None, name, "All your documents were removed.")

    def _indexed(self, name: str, own: Own) -> IndexedTexts:
        """A visitor's documents for the ranker of this name."""
        return own.indexed if own.collection == name else self.rankers[name].index(own.indexed.texts)

    def _with(self, new: Sequence[str], own: Own | None, name: str) -> tuple[Any, ...]:
        before = None if own is None else self._indexed(name, own)
        known = () if before is None else before.texts
        texts = joined(known, new)
        added = len(texts) - len(known)
        repeated = f", {len(new) - added} repeated" if len(new) > added else ""
        indexed = self.rankers[name].index(texts, before)
        return self._changed(indexed, name, f"{added} added{repeated}; {len(texts)} in total.")

    def _changed(self, indexed: IndexedTexts | None, name: str, said: str) -> tuple[Any, ...]:
        own = None if indexed is None else Own(name, indexed)
        texts = [] if indexed is None else [(text, _key(text)) for text in indexed.texts]
        where = gr.update(choices=self.choices(name, own), value="given" if own is None else "own")
        return own, where, gr.update(choices=texts, value=[]), rendering.message(said)


def _with_rankings(changed: tuple[Any, ...], rankings: Iterator[str]) -> Iterator[tuple[Any, ...]]:
    """An event's other outputs with its first rankings, then the later ones alone."""
    for found in rankings:
        yield *changed, found
        changed = tuple(gr.skip() for _ in changed)


def _refused(error: ValueError) -> tuple[Any, ...]:
    return gr.skip(), gr.skip(), gr.skip(), rendering.message(str(error), is_error=True)


def _key(text: str) -> str:
    """The key that a browser sends for a chosen document, so that requests stay small."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]
