"""The page itself: Gradio components and their events. `ranking` ranks, and `rendering` makes the HTML."""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from ..modeling_generative_reranker import GenerativeRerankerModel
from ..modeling_rabtriever import RabtrieverModel
from ..retrieval.documents import Document
from . import rendering
from .documents import CHARACTERS, OWN_BYTES, OWN_DOCUMENTS, UPLOADS, joined, pasted_texts, uploaded_texts
from .ranking import Collection, Ranker, checked_query
from .uploads import SESSION_SECONDS

SESSIONS = 100  # whose documents are kept; the least recent one is dropped first
WAITING = 32  # visitors in the queue
MOST_EXAMPLES = 8
# One event at a time runs a model, so the times on the page do not depend on other events. None is part of an API.
EVENT: dict[str, Any] = {"concurrency_limit": 1, "concurrency_id": "models", "api_visibility": "private"}
# Fonts of the visitor's system: those of the default theme are downloaded.
SANS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "sans-serif")
MONO = ("ui-monospace", "Menlo", "Consolas", "monospace")
INTRODUCTION = """\
# Rabtriever
Which document answers the query, when a line of reasoning connects the two rather than shared words?
The same documents, ranked side by side. [How it works](https://arxiv.org/abs/2604.23336)
"""


def build_page(
    student: RabtrieverModel,
    documents: Sequence[Document],
    teacher: GenerativeRerankerModel | None = None,
    examples: Sequence[str] = (),
) -> gr.Blocks:
    """The page as a Gradio app that is not started yet.

    Raises:
        ValueError: a model has the wrong class, there are no documents, an example is blank, or there are too many.
    """
    examples = checked_examples(examples)
    actions = _Actions(Ranker(student, teacher), [document.text for document in documents])

    with gr.Blocks(title="Rabtriever", analytics_enabled=False) as page:
        own = gr.State(None, time_to_live=SESSION_SECONDS)
        gr.Markdown(INTRODUCTION)
        with gr.Row():
            query = gr.Textbox(
                label="Query",
                placeholder=examples[0] if examples else "Describe a situation or ask a question",
                info="Press Enter to search",
                max_lines=1,
                max_length=CHARACTERS,
                autofocus=True,
                scale=5,
                min_width=280,
                elem_id="query",
            )
            search = gr.Button("Search", variant="primary", scale=1, min_width=120, elem_id="search")
        with gr.Row(elem_id="examples", visible=bool(examples)):
            clicked = [(gr.Button(text, size="sm", min_width=220), text) for text in examples]
        where = gr.Radio(
            actions.choices(None),
            value="given",
            label="Documents",
            elem_id="where",
        )
        gr.HTML(rendering.sample(actions.given.texts), apply_default_css=False, elem_id="sample")
        found = gr.HTML(rendering.message("Type a query and press Enter."), apply_default_css=False, elem_id="results")
        with gr.Accordion("Your own documents", open=False, elem_id="own"):
            gr.Markdown(
                f"At most {OWN_DOCUMENTS} documents and {OWN_BYTES // 1024} KB at once. They stay in this session's "
                "memory until an hour after the last change, and are not stored. Files: a document per line, as plain "
                "text (.txt) or as an object with a field text (.jsonl)."
            )
            pasted = gr.Textbox(
                label="One document per line",
                lines=4,
                max_lines=10,
                max_length=OWN_BYTES,
                elem_id="pasted",
            )
            add = gr.Button("Add these lines", elem_id="add")
            upload = gr.File(
                label="Or upload .txt or .jsonl",
                file_types=list(UPLOADS),
                height=130,
                elem_id="upload",
            )
            chosen = gr.Dropdown(
                [], multiselect=True, label="Documents to remove", filterable=True, elem_id="chosen", interactive=True
            )
            with gr.Row():
                remove = gr.Button("Remove the chosen", elem_id="remove")
                clear = gr.Button("Remove all", elem_id="clear")
            said = gr.HTML("", apply_default_css=False, elem_id="said")

        asked: dict[str, Any] = {"fn": actions.search, "inputs": [query, where, own], "outputs": found}
        asked |= {"show_progress": "minimal", "trigger_mode": "always_last", **EVENT}
        changed = [own, where, chosen, said]
        gr.on([query.submit, search.click], **asked)
        where.input(**asked)
        for button, text in clicked:
            button.click(None, None, query, js=f"() => {json.dumps(text)}", api_visibility="private").then(**asked)
        # An edit searches in the same event: Gradio's browser code may lose an event right after another one.
        add.click(actions.then_search(actions.add), [pasted, own, query], [*changed, pasted, found], **EVENT)
        upload.upload(actions.then_search(actions.upload), [upload, own, query], [*changed, upload, found], **EVENT)
        remove.click(actions.then_search(actions.remove), [chosen, own, query], [*changed, found], **EVENT)
        clear.click(actions.then_search(actions.clear), [query], [*changed, found], **EVENT)
    page.queue(max_size=WAITING)
    page.state_session_capacity = SESSIONS
    return page


def theme() -> gr.themes.Base:
    """Colours and fonts."""
    base = gr.themes.Base(primary_hue="teal", neutral_hue="slate", font=SANS, font_mono=MONO)
    # The theme's own greys, and its white on light teal, have too little contrast.
    return base.set(
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_400",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_400",
        block_label_text_color="*neutral_700",
        block_title_text_color="*neutral_700",
        color_accent="*primary_700",
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_dark="*primary_700",
    )


def checked_examples(examples: Sequence[str]) -> list[str]:
    """Example queries, without whitespace at their edges.

    Raises:
        ValueError: there are more than 8, or one is blank or too long.
    """
    if len(examples) > MOST_EXAMPLES:
        raise ValueError(f"{len(examples)} examples are given; accepted: at most {MOST_EXAMPLES}")
    return [checked_query(example) for example in examples]


class _Actions:
    """The functions of the page's events. Bad input gives a message, and stays in its field."""

    def __init__(self, ranker: Ranker, texts: Sequence[str]) -> None:
        self.ranker = ranker
        self.given = ranker.collection(texts)

    def choices(self, own: Collection | None) -> list[tuple[str, str]]:
        number = 0 if own is None else len(own)
        return [(f"Example corpus ({len(self.given):,})", "given"), (f"Your own ({number:,})", "own")]

    def search(self, query: str, where: str, own: Collection | None) -> Iterator[str]:
        collection = self.given if where == "given" else own
        if not query.strip():
            yield rendering.message("Type a query and press Enter.")
            return
        if collection is None:
            yield rendering.message("You have no documents yet. Add some below.")
            return
        try:
            bm25 = self.ranker.rank_bm25(query, collection)
            student = self.ranker.rank_student(query, collection)
            has_teacher = self.ranker.teacher is not None
            yield rendering.results(len(collection), bm25, student, None, teacher_works=has_teacher)
            if has_teacher:
                teacher = self.ranker.rank_teacher(query, collection)
                yield rendering.results(len(collection), bm25, student, teacher, teacher_works=False)
        except ValueError as error:
            yield rendering.message(str(error), is_error=True)

    def then_search(self, edit: Callable[..., tuple[Any, ...]]) -> Callable[..., tuple[Any, ...]]:
        """An edit followed by a search, as one event: the edit's inputs and a query -> its outputs and the results."""

        def both(*given: Any) -> tuple[Any, ...]:
            *rest, query = given
            changed = edit(*rest)
            own = changed[0]
            if own is not None and not isinstance(own, Collection):  # the edit was refused
                return *changed, gr.skip()
            *_, found = self.search(query, "given" if own is None else "own", own)
            return *changed, found

        return both

    def add(self, pasted: str, own: Collection | None) -> tuple[Any, ...]:
        try:
            return *self._with(pasted_texts(pasted), own), ""
        except ValueError as error:
            return *self._refused(error), gr.skip()

    def upload(self, path: str | None, own: Collection | None) -> tuple[Any, ...]:
        if path is None:
            return gr.skip(), gr.skip(), gr.skip(), gr.skip(), None
        try:
            return *self._with(uploaded_texts(path), own), None
        except ValueError as error:
            return *self._refused(error), None
        finally:
            Path(path).unlink(missing_ok=True)  # read once, not kept

    def remove(self, chosen: list[str] | None, own: Collection | None) -> tuple[Any, ...]:
        if own is None or not chosen:
            return self._refused(ValueError("no document is chosen; accepted: at least one"))
        gone = set(chosen)
        left = [text for text in own.texts if _key(text) not in gone]
        said = f"{len(own) - len(left)} removed, {len(left)} left."
        return self._changed(self.ranker.collection(left, own) if left else None, said)

    def clear(self) -> tuple[Any, ...]:
        return self._changed(None, "All your documents were removed.")

    def _with(self, new: Sequence[str], own: Collection | None) -> tuple[Any, ...]:
        before = () if own is None else own.texts
        texts = joined(before, new)
        added = len(texts) - len(before)
        repeated = f", {len(new) - added} repeated" if len(new) > added else ""
        return self._changed(self.ranker.collection(texts, own), f"{added} added{repeated}; {len(texts)} in total.")

    def _changed(self, own: Collection | None, said: str) -> tuple[Any, ...]:
        texts = [] if own is None else [(text, _key(text)) for text in own.texts]
        where = gr.update(choices=self.choices(own), value="given" if own is None else "own")
        return own, where, gr.update(choices=texts, value=[]), rendering.message(said)

    def _refused(self, error: ValueError) -> tuple[Any, ...]:
        return gr.skip(), gr.skip(), gr.skip(), rendering.message(str(error), is_error=True)


def _key(text: str) -> str:
    """The key that a browser sends for a chosen document, so that requests stay small."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]
