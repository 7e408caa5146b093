"""Queries without labels, made of others by exchanging names: what stands in the same place of two documents.

"pick up the coke" and "pick up the tea" say that "coke" and "tea" can stand for each other. A query that names one of
them becomes another query with the other name throughout. So every name of the corpus comes up in the sentences that
training queries have for some of them, and a student that hears what the teacher makes of these learns which name
belongs to which document.
"""

import random
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence

LONGEST = 4  # words of a name
SHORT = 30  # words of a document; longer ones, which seldom differ in a name alone, are passed over
BARREN = 1_000  # draws in a row without a new text, until no more are looked for
ANOTHER = 0.5  # probability of one more exchange in the same query

Words = tuple[str, ...]
_EDGES = re.compile(r"^\W+|\W+$")  # punctuation


def partners(documents: Iterable[str]) -> dict[str, list[str]]:
    """Names and what can stand for them, in lower case and in order.

    Two names are partners if two documents are alike but for them, word by word. The documents share at least as many
    words as the longer name has, and the names begin and end with other words ("coke can" and "tea can" say so of
    "coke" and "tea").

    Args:
        documents: of the corpus; blanks separate words, punctuation at their edges does not count. Meant for some
            thousands of documents: all that stand in one place are partners of each other.
    """
    places: dict[tuple[Words, Words], dict[Words, None]] = defaultdict(dict)
    for document in documents:
        words = tuple(filter(None, (_EDGES.sub("", word) for word in document.lower().split())))
        if len(words) > SHORT:
            continue
        for length in range(1, min(LONGEST, len(words) // 2) + 1):
            for start in range(len(words) - length + 1):
                places[words[:start], words[start + length :]][words[start : start + length]] = None
    found: dict[str, dict[str, None]] = defaultdict(dict)
    for names in places.values():
        for name in names:
            for other in names:
                if name[0] != other[0] and name[-1] != other[-1]:
                    found[" ".join(name)][" ".join(other)] = None
    return {name: sorted(others) for name, others in sorted(found.items())}


def swapped(queries: Sequence[str], documents: Iterable[str], count: int, known: Iterable[str], seed: int) -> list[str]:
    """New queries: one or more names of a query, drawn at random, exchanged for partners drawn at random.

    A name is exchanged everywhere in the query, and with it names that it is part of or that are part of it ("tea",
    "tea bag"); if the partner stands there too, it takes the place of the name.

    Args:
        queries: to exchange names in.
        documents: of the corpus, see `partners`.
        count: of new queries.
        known: texts that are not new, in whatever case.
        seed: of the draws.

    Raises:
        ValueError: there are not so many.
    """
    others = partners(documents)
    pattern = "|".join(map(re.escape, sorted(others, key=len, reverse=True)))
    name = re.compile(rf"(?<!\w)(?:{pattern})(?!\w)", re.IGNORECASE)
    named = [(query, sorted({found.lower() for found in name.findall(query)} & others.keys())) for query in queries]
    named = [(query, names) for query, names in named if names]
    rng = random.Random(f"{seed}-swaps")
    taken, texts, barren = {text.lower() for text in known}, list[str](), 0
    while named and len(texts) < count and barren < BARREN:
        query, names = rng.choice(named)
        pairs = [(one, other) for one in names for other in others[one]]
        exchange: dict[str, str] = {}
        while not exchange or rng.random() < ANOTHER:
            one, other = rng.choice(pairs)
            if not exchange.keys() & {one, other}:
                exchange |= {akin: other for akin in names if _part(akin, one)}
                exchange |= {akin: one for akin in names if _part(akin, other)}
        text = name.sub(lambda match, to=exchange: to.get(match[0].lower(), match[0]), query)
        barren = barren + 1 if text.lower() in taken else 0
        if not barren:
            taken.add(text.lower())
            texts.append(text)
    if len(texts) < count:
        raise ValueError(
            f"{count} queries with exchanged names wanted; accepted: at most {len(texts)} or so, as {len(named)} of "
            f"{len(queries)} queries hold one of the {len(others)} names that documents exchange"
        )
    return texts


def _part(one: str, other: str) -> bool:
    """Whether one name holds the other, word by word."""
    return f" {one} " in f" {other} " or f" {other} " in f" {one} "
