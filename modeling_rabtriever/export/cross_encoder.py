"""The teacher as a `sentence_transformers.CrossEncoder`: a classifier with one label and a tokenizer of pairs."""

from pathlib import Path

import torch
from sentence_transformers import CrossEncoder

from ..errors import refusing
from ..files import write_folder, write_text
from ..modeling_generative_reranker import GenerativeRerankerModel
from .prompt_tokenizer import padding_id, save_pair_tokenizer
from .stock_backbone import check_backbone, stock_backbone, write_classifier
from .towers import check_close, full_precision

_README = """\
---
library_name: sentence-transformers
pipeline_tag: text-ranking
---

A language model that reads a document, then a query, and scores the pair: the log-odds of "relevant".

```python
from sentence_transformers import CrossEncoder

print(CrossEncoder("this folder").predict([("a query", "a document")]))
```

{limits}
"""


def export_cross_encoder(reranker: GenerativeRerankerModel, folder: str | Path) -> Path:
    """Writes a folder that `sentence_transformers.CrossEncoder(folder)` loads without `trust_remote_code`.

    Its `predict` and `rank` give the log-odds of `GenerativeRerankerModel.predict`. The backbone becomes a classifier
    whose only row is the difference of the answers' rows, and its tokenizer puts the prompt around a pair, document
    first. Batches are padded on the right, so backbones with learned positions give the same scores in a batch.
    Everything is fp32, and is compared with the teacher before the folder appears. `pair_limits` says how over-long
    pairs are cut.

    Args:
        reranker: the teacher, with its processor.
        folder: new or empty; it appears when everything is written and checked.

    Raises:
        ValueError: the weights are quantised, transformers has no classifier for this family, the folder is not empty,
            no stock tokenizer gives the processor's ids (`save_pair_tokenizer`), or the scores differ.

    Examples:
        >>> from sentence_transformers import CrossEncoder
        >>> from modeling_rabtriever import GenerativeRerankerModel, example
        >>> from modeling_rabtriever.export import export_cross_encoder
        >>> teacher = GenerativeRerankerModel.from_pretrained(example("household", "teacher"))
        >>> exported = CrossEncoder(str(export_cross_encoder(teacher, "runs/cross-encoder")))
        >>> pair = ("In the kitchen: I spilled my drink.", "bring the sponge to the kitchen")
        >>> assert abs(exported.predict([pair])[0] - teacher.predict([pair])[0]) < 1e-3
    """
    check_backbone(reranker)

    def write(new: Path) -> None:
        config, weights = stock_backbone(reranker)
        config.pad_token_id = padding_id(reranker.processor, config.vocab_size)
        write_classifier(config, weights, reranker.answer_direction, new)
        samples = save_pair_tokenizer(reranker.processor, config.pad_token_id, new)
        write_text(new / "README.md", _README.format(limits=pair_limits(reranker)))
        _check_scores(reranker, new, samples)

    with refusing(
        "this teacher cannot be exported", "a teacher as save_pretrained writes it, and a folder to write to"
    ):
        return write_folder(Path(folder), write)


def pair_limits(reranker: GenerativeRerankerModel) -> str:
    """What the exported cross-encoder does with texts beyond the teacher's limits."""
    processor = reranker.processor
    cut_end = "beginning" if processor.query_truncation_side == "left" else "end"
    return (
        f"Documents of up to {processor.max_document_length} tokens and queries of up to {processor.max_query_length} "
        "get the teacher's scores. A tokenizer has one limit for both: a longer prompt is cut to "
        f"{processor.max_pair_length} tokens, the longer text first and at its {cut_end}. So the cross-encoder may "
        "read more of a text beyond its own limit than the teacher, and give it another score."
    )


@torch.no_grad()
def _check_scores(reranker: GenerativeRerankerModel, folder: Path, samples: dict[str, list[str]]) -> None:
    encoder = CrossEncoder(str(folder), device="cpu")
    queries, documents = samples["query"], samples["document"]
    count = max(len(queries), len(documents))
    pairs = [(queries[row % len(queries)], documents[(7 * row) % len(documents)]) for row in range(count)]
    found = encoder.predict(pairs, batch_size=8, show_progress_bar=False, convert_to_tensor=True)
    check_close("scores of the cross-encoder", found.cpu(), full_precision(reranker).predict(pairs).cpu())
