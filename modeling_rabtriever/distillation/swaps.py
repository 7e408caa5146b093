"""Queries without labels, made from training queries by exchanging names that the corpus uses in the same place.

The documents "pick up the coke" and "pick up the tea" show that "coke" and "tea" are interchangeable. A query that
mentions one of them becomes a new query that mentions the other instead. This way every name of the corpus appears in
the sentences that training queries use for some of the names. From the teacher's scores of these queries, the student
learns which name belongs to which document.
"""

import random
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence

LONGEST = 4  # words of a name
SHORT = 30  # words of a document; longer documents rarely differ in a name alone and are skipped
BARREN = 1_000  # draws in a row without a new text, after which the search ends
ANOTHER = 0.5  # probability of one more exchange in the same query

Words = tuple[str, ...]
_EDGES = re.compile(r"^\W+|\W+$")  # punctuation


def partners(documents: Iterable[str]) -> dict[str, list[str]]:
    """Names and the names that can replace them, lower-cased and sorted.

    Two names are partners if two documents are identical, word by word, except for these names. The documents must
    share at least as many words as the longer name has, and the names must differ in their first and last words ("coke
    can" and "tea can" make "coke" and "tea" partners).

    Args:
        documents: the corpus; whitespace separates words, and punctuation around a word is ignored. Meant for a few
            thousand documents, because all names in the same place are partners of each other.
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
    """New queries: one or more randomly drawn names of a query are replaced by randomly drawn partners.

    A name is replaced everywhere in the query, together with names that contain it or are contained in it ("tea", "tea
    bag"). If the query mentions the partner too, the two names trade places.

    Args:
        queries: to exchange names in.
        documents: the corpus, see `partners`.
        count: number of new queries.
        known: texts that do not count as new, in any case.
        seed: of the draws.

    Raises:
        ValueError: there are not that many.
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
        text = _exchanged(query, name, exchange)
        if text.lower() in taken:
            barren += 1
        else:
            barren = 0
            taken.add(text.lower())
            texts.append(text)
    if len(texts) < count:
        raise ValueError(
            f"swapped is {count}; accepted: at most about {len(texts)}, because {len(named)} of {len(queries)} queries "
            f"contain one of the {len(others)} names that the documents exchange"
        )
    return texts


def _exchanged(query: str, name: re.Pattern[str], exchange: dict[str, str]) -> str:
    return name.sub(lambda match: exchange.get(match[0].lower(), match[0]), query)


def _part(one: str, other: str) -> bool:
    """Whether one name contains the other, word by word."""
    return f" {one} " in f" {other} " or f" {other} " in f" {one} "
