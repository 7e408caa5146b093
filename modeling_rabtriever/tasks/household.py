"""The household task: a generated world in which only reasoning connects a query and a document.

A query is a situation and a place ("In the kitchen: I spilled my drink."). A document is an object brought to a place
("bring the sponge to the kitchen"). A document is relevant if its object serves the need in the situation and its place
is the query's. Query and document share no content word except the place. `household.yaml` holds the world. Only the
splits are random, with a fixed seed:

    train           14 of 20 phrasings of each need, each in 4 of 8 places
    dev             the same phrasings, each in 1 other place
    test            the same phrasings, each in the remaining 3 places: unseen combinations of situation and place
    test_phrasing   the other 6 phrasings, in all places: unseen situations, which need reasoning beyond memory

Usage:
    python -m training.tasks.household FOLDER
    python -m training.tasks.household FOLDER --large     # 5,600 documents: ten homes, and objects nobody needs
"""

import argparse
import json
import random
from pathlib import Path
from typing import Any

from ..yaml_mapping import read_mapping

WORLD = Path(__file__).with_suffix(".yaml")
SEED = 13
SEEN_PHRASINGS = 14
PLACES_PER_PHRASING = {"train": 4, "dev": 1, "test": 3}

Query = tuple[str, str, list[str]]  # id, text, relevant document ids


def read_world(large: bool = False) -> dict[str, Any]:
    """The world: `places`, `needs`, and `other_objects` that serve no need.

    Args:
        large: whether the world has ten homes, each with all places, and other objects.
    """
    world = read_mapping(WORLD, "a mapping")
    homes, others = world.pop("homes"), world.pop("other_objects")
    if large:
        world["places"] = [f"{place} of the {home} house" for home in homes for place in world["places"]]
    return world | {"other_objects": others if large else []}


def corpus(world: dict[str, Any]) -> dict[str, str]:
    """Every object brought to every place: document id -> text."""
    objects = sorted(
        {*world["other_objects"], *(thing for need in world["needs"].values() for thing in need["objects"])}
    )
    return {
        _document_id(thing, place): f"bring the {thing} to the {place}"
        for thing in objects
        for place in world["places"]
    }


def queries(world: dict[str, Any]) -> dict[str, list[Query]]:
    """The queries of each split. In the large world each phrasing is used in eight places, drawn per phrasing."""
    rng = random.Random(SEED)
    splits: dict[str, list[Query]] = {name: [] for name in (*PLACES_PER_PHRASING, "test_phrasing")}
    seen = [name for name, count in PLACES_PER_PHRASING.items() for _ in range(count)]
    for need, about in world["needs"].items():
        phrasings = list(enumerate(about["phrasings"]))
        rng.shuffle(phrasings)
        for rank, (number, phrasing) in enumerate(phrasings):
            places = list(world["places"])
            rng.shuffle(places)
            names = seen if rank < SEEN_PHRASINGS else ["test_phrasing"] * len(seen)
            for name, place in zip(names, places, strict=False):
                relevant = [_document_id(thing, place) for thing in about["objects"]]
                query_id = f"{need}-{number:02d}-{place.replace(' ', '_')}"
                splits[name].append((query_id, f"In the {place}: {phrasing}", relevant))
    return splits


def write_household(folder: str | Path, large: bool = False) -> Path:
    """Writes the task in BEIR layout and returns the folder. The bytes are the same every time.

    Examples:
        >>> from modeling_rabtriever.tasks import load_beir, write_household
        >>> task = load_beir(write_household("data/household"))
        >>> len(task.corpus), sorted(task.splits)
        (408, ['dev', 'test', 'test_phrasing', 'train'])
    """
    world = read_world(large)
    folder = Path(folder)
    (folder / "qrels").mkdir(parents=True, exist_ok=True)
    splits = queries(world)
    _write_jsonl(folder / "corpus.jsonl", corpus(world).items())
    _write_jsonl(folder / "queries.jsonl", ((id_, text) for split in splits.values() for id_, text, _ in split))
    for name, split in splits.items():
        lines = [f"{query_id}\t{corpus_id}\t1\n" for query_id, _, relevant in split for corpus_id in relevant]
        (folder / "qrels" / f"{name}.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(lines))
    return folder


def _document_id(thing: str, place: str) -> str:
    return f"{thing}-{place.replace(' ', '_')}"


def _write_jsonl(path: Path, texts: Any) -> None:
    path.write_text("".join(json.dumps({"_id": id_, "title": "", "text": text}) + "\n" for id_, text in texts))


def main() -> None:
    """Writes the task into the folder given on the command line."""
    parser = argparse.ArgumentParser(description="Writes the household task in BEIR layout.")
    parser.add_argument("folder", help="where to write corpus.jsonl, queries.jsonl and qrels/")
    parser.add_argument("--large", action="store_true", help="5,600 documents instead of 408")
    print(write_household(**vars(parser.parse_args())))


if __name__ == "__main__":
    main()
