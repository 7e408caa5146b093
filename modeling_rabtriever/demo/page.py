"""The page itself: Gradio components and which events call which action."""

import json
from collections.abc import Sequence
from typing import Any

import gradio as gr

from . import rendering
from .actions import Actions
from .collections import Collection
from .documents import CHARACTERS, OWN_BYTES, OWN_DOCUMENTS, UPLOADS
from .uploads import SESSION_SECONDS

SESSIONS = 100  # whose documents are kept; the least recent one is dropped first
WAITING = 32  # visitors in the queue
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


def build_page(collections: Sequence[Collection]) -> gr.Blocks:
    """The page as a Gradio app that is not started yet.

    Raises:
        ValueError: there are no collections, or two have the same name.
    """
    names = [collection.name for collection in collections]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"the collections are {names}; accepted: at least one, each with a name of its own")
    actions = Actions(collections)
    first = names[0]

    with gr.Blocks(title="Rabtriever", analytics_enabled=False) as page:
        own = gr.State(None, time_to_live=SESSION_SECONDS)
        gr.Markdown(INTRODUCTION)
        name = gr.Radio(names, value=first, label="Collection", visible=len(names) > 1, elem_id="collection")
        with gr.Row():
            query = gr.Textbox(
                label="Query",
                placeholder=actions.placeholder(first),
                info="Press Enter to search",
                max_lines=1,
                max_length=CHARACTERS,
                autofocus=True,
                scale=5,
                min_width=280,
                elem_id="query",
            )
            search = gr.Button("Search", variant="primary", scale=1, min_width=120, elem_id="search")
        rows, clicked = [], []
        for collection in collections:
            shown = bool(collection.examples) and collection.name == first
            with gr.Row(elem_classes="examples", visible=shown) as row:
                clicked += [(gr.Button(text, size="sm", min_width=220), text) for text in collection.examples]
            rows.append(row)
        where = gr.Radio(
            actions.choices(first, None),
            value="given",
            label="Documents",
            elem_id="where",
        )
        sample = gr.HTML(actions.sample(first), apply_default_css=False, elem_id="sample")
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

        asked: dict[str, Any] = {"fn": actions.search, "inputs": [query, name, where, own], "outputs": found}
        asked |= {"show_progress": "minimal", "trigger_mode": "always_last", **EVENT}
        changed = [own, where, chosen, said]
        gr.on([query.submit, search.click], **asked)
        where.input(**asked)
        name.input(actions.choose, [name, where, own, query], [own, where, query, sample, *rows, found], **EVENT)
        for button, text in clicked:
            button.click(None, None, query, js=f"() => {json.dumps(text)}", api_visibility="private").then(**asked)
        # An edit searches in the same event: Gradio's browser code may lose an event right after another one.
        add.click(actions.then_search(actions.add), [pasted, own, name, query], [*changed, pasted, found], **EVENT)
        upload.upload(
            actions.then_search(actions.upload), [upload, own, name, query], [*changed, upload, found], **EVENT
        )
        remove.click(actions.then_search(actions.remove), [chosen, own, name, query], [*changed, found], **EVENT)
        clear.click(actions.then_search(actions.clear), [name, query], [*changed, found], **EVENT)
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
