"""Rankings as HTML. Every text of a visitor or a corpus is escaped."""

from collections.abc import Mapping, Sequence
from html import escape
from textwrap import shorten

from .ranking import Explanation, RankedList, RankedText

STYLE = """
.gradio-container, .gradio-container > .main { max-width: 1240px !important; margin: 0 auto !important; }
#results, #results > div, #sample > div, #said { padding: 0; }
#sample p { margin: -6px 0 0; overflow-wrap: anywhere; }
#search { align-self: end; min-height: 46px; }
.rabtriever-lists { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 270px), 1fr)); gap: 16px; }
.rabtriever-list, .rabtriever-why { border: 1px solid var(--border-color-primary); border-radius: 10px;
  padding: 14px 16px; background: var(--block-background-fill); color: var(--body-text-color); min-width: 0; }
.rabtriever-list.is-student { border-color: var(--color-accent); box-shadow: inset 0 0 0 1px var(--color-accent); }
.rabtriever-why { margin-top: 16px; }
.rabtriever-list header { display: flex; justify-content: space-between; align-items: baseline; gap: 8px; }
.rabtriever-list h2, .rabtriever-why h2 { font-size: 1.15rem; font-weight: 650; margin: 0; }
.rabtriever-time { font-variant-numeric: tabular-nums; white-space: nowrap; font-weight: 650; }
.rabtriever-note, .rabtriever-place, .rabtriever-tag, .rabtriever-why thead th
  { color: var(--body-text-color-subdued); font-size: .86rem; }
.rabtriever-note { margin: 2px 0 8px; }
.rabtriever-list ol { list-style: none; margin: 0; padding: 0; }
.rabtriever-list li { display: grid; grid-template-columns: 1.4em minmax(0, 1fr) auto; gap: 0 8px; padding: 8px 0;
  border-top: 1px solid var(--border-color-primary); align-items: baseline; min-height: 58px; align-content: start; }
.rabtriever-list li:first-child .rabtriever-text, .rabtriever-list li:first-child .rabtriever-score
  { font-weight: 650; }
.rabtriever-text { overflow-wrap: anywhere; }
.rabtriever-score { font-variant-numeric: tabular-nums; text-align: right; }
.rabtriever-tag { display: block; font-weight: 400; }
.rabtriever-why p { margin: 6px 0 10px; max-width: 80ch; }
.rabtriever-why details { border-top: 1px solid var(--border-color-primary); padding: 8px 0; }
.rabtriever-why summary { cursor: pointer; overflow-wrap: anywhere; }
.rabtriever-why table { border-collapse: collapse; margin: 8px 0 2px; width: 100%; max-width: 680px; }
.rabtriever-why th, .rabtriever-why td { text-align: right; padding: 3px 8px 3px 0; font-weight: 400;
  font-variant-numeric: tabular-nums; }
.rabtriever-why thead th { vertical-align: bottom; }
.rabtriever-why th:first-child { text-align: left; }
.rabtriever-why tfoot th, .rabtriever-why tfoot td { border-top: 1px solid var(--body-text-color); font-weight: 650; }
.rabtriever-bar { width: 34%; }
.rabtriever-bar span { display: block; height: .8em; border-radius: 2px; background: var(--color-accent); }
.rabtriever-bar span.is-negative { background: var(--body-text-color-subdued); }
.rabtriever-message { border-left: 4px solid var(--color-accent); padding: 6px 12px; margin: 4px 0;
  overflow-wrap: anywhere; }
.rabtriever-why summary:focus-visible, button:focus-visible { outline: 3px solid var(--color-accent);
  outline-offset: 2px; }
@media (max-width: 480px) { .rabtriever-wide { display: none; } }
footer { display: none !important; }
"""


def message(text: str, is_error: bool = False) -> str:
    """A line for the visitor, which screen readers read aloud when it appears."""
    return f'<p class="rabtriever-message" role="{"alert" if is_error else "status"}">{escape(text)}</p>'


def sample(texts: Sequence[str]) -> str:
    """A sample of the corpus: its first, middle and last document, shortened."""
    rows = sorted({0, len(texts) // 2, len(texts) - 1})
    shown = "; ".join(f"\u201c{escape(shorten(texts[row], 60, placeholder=' ...'))}\u201d" for row in rows)
    return f'<p class="rabtriever-note">In the example corpus: {shown}</p>'


def results(
    documents: int, bm25: RankedList, student: RankedList, teacher: RankedList | None, teacher_works: bool
) -> str:
    """The rankings of so many documents side by side, the teacher's once it is done, and the student's explanations."""
    places = {} if teacher is None else teacher.places
    columns = [
        _column("BM25", "Counts words that query and document share.", bm25, places),
        _column("Rabtriever", "Reads the query, then takes an inner product per document.", student, places, True),
    ]
    if teacher is not None:
        columns.append(_column("Teacher", f"A language model reads the query with each of {documents:,}.", teacher, {}))
    elif teacher_works:
        columns.append(
            '<section class="rabtriever-list"><header><h2>Teacher</h2></header>'
            f'<p class="rabtriever-note" role="status">Reads the query with each of {documents:,} documents ...</p>'
            "</section>"
        )
    return f'<div class="rabtriever-lists">{"".join(columns)}</div>{_why(student)}'


def _column(name: str, note: str, ranked: RankedList, places: Mapping[int, int], is_student: bool = False) -> str:
    items = "".join(_item(place, hit, places) for place, hit in enumerate(ranked.hits, start=1))
    body = f"<ol>{items}</ol>" if items else "<p>No document shares a word with the query.</p>"
    return (
        f'<section class="rabtriever-list{" is-student" if is_student else ""}" aria-label="Ranking of {name}">'
        f'<header><h2>{name}</h2><span class="rabtriever-time">{_duration(ranked.milliseconds)}</span></header>'
        f'<p class="rabtriever-note">{note}</p>{body}</section>'
    )


def _item(place: int, hit: RankedText, places: Mapping[int, int]) -> str:
    tag = f'<span class="rabtriever-tag">teacher #{places[hit.row]:,}</span>' if hit.row in places else ""
    return (
        f'<li><span class="rabtriever-place">{place}</span><span class="rabtriever-text">{escape(hit.text)}</span>'
        f'<span class="rabtriever-score">{hit.score:.2f}{tag}</span></li>'
    )


def _why(student: RankedList) -> str:
    parts = []
    for place, hit in enumerate(student.hits, start=1):
        if hit.explanation is not None:
            parts.append(
                f'<details name="rabtriever-why"{" open" if place == 1 else ""}><summary>{place}. {escape(hit.text)} '
                f"<b>{hit.score:.2f}</b></summary>{_table(hit.explanation)}</details>"
            )
    return (
        '<section class="rabtriever-why"><h2>Where Rabtriever\'s scores come from</h2>'
        "<p>Query and document each become a list of numbers, without seeing the other. The score multiplies the two "
        "lists number by number and adds up: an inner product, nothing else. Below are the largest products. A single "
        "dimension has no name; training gave it its use. Scores compare documents for one query, not queries.</p>"
        f"{''.join(parts)}</section>"
    )


def _table(explanation: Explanation) -> str:
    largest = max(abs(value) for value in [*(term.product for term in explanation.terms), explanation.rest]) or 1
    digits = 2 if largest >= 1 else 3  # a cosine's products are small
    rows = [
        _row(str(term.dimension), f"{term.query:.2f}", f"{term.document:.2f}", term.product, largest, digits)
        for term in explanation.terms
    ]
    if explanation.others:
        rows.append(_row(f"other {explanation.others:,}", "", "", explanation.rest, largest, digits))
    return (
        '<table><thead><tr><th scope="col">dimension</th><th scope="col">query</th>'
        '<th scope="col">&times; document</th><th scope="col">= product</th>'
        '<td class="rabtriever-wide"></td></tr></thead>'
        f"<tbody>{''.join(rows)}</tbody>"
        '<tfoot><tr><th scope="row">score</th><td></td><td></td>'
        f'<td>{explanation.score:.{digits}f}</td><td class="rabtriever-wide"></td></tr></tfoot></table>'
    )


def _row(name: str, query: str, document: str, product: float, largest: float, digits: int) -> str:
    width = round(100 * abs(product) / largest)
    sign = ' class="is-negative"' if product < 0 else ""
    return (
        f'<tr><th scope="row">{name}</th><td>{query}</td><td>{document}</td><td>{product:+.{digits}f}</td>'
        f'<td class="rabtriever-bar rabtriever-wide"><span{sign} style="width:{width}%"></span></td></tr>'
    )


def _duration(milliseconds: float) -> str:
    return f"{milliseconds:,.0f} ms" if milliseconds >= 10 else f"{milliseconds:.1f} ms"
