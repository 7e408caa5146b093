"""The teacher in sentence-transformers, without custom code."""

import json
import os
import subprocess
import sys

import pytest
import torch
from sentence_transformers import CrossEncoder
from transformers import AutoModel

from modeling_rabtriever import RabtrieverProcessor
from modeling_rabtriever.export import export_cross_encoder
from tests.conftest import DOCUMENTS, FAMILIES, QUERIES

PAIRS = [(query, document) for query in QUERIES for document in DOCUMENTS]
ODD_PAIRS = [("a\n\nb.", "ends with a line\n"), (" two  blanks ", "ü🙂x!")]

LOADER = """
import json, sys
sys.modules["modeling_rabtriever"] = None
from sentence_transformers import CrossEncoder
from transformers import AutoModel
model = CrossEncoder(sys.argv[1], device="cpu")
pairs = json.load(sys.stdin)
print(json.dumps([model.predict(pairs).tolist(), model.rank(pairs[0][0], ["a lamp", "the sponge"])[0]["score"]]))
"""


@pytest.mark.parametrize("family", FAMILIES)
def test_scores_are_ours_without_custom_code(make_reranker, family, tmp_path):
    reranker = make_reranker(family)
    folder = export_cross_encoder(reranker, tmp_path / "model")
    finished = subprocess.run(
        [sys.executable, "-c", LOADER, str(folder)],
        input=json.dumps(PAIRS + ODD_PAIRS),
        env={**os.environ, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    scores, best = json.loads(finished.stdout)
    torch.testing.assert_close(torch.tensor(scores), reranker.predict(PAIRS + ODD_PAIRS), atol=1e-5, rtol=0)
    assert best == pytest.approx(reranker.rank(QUERIES[0], ["a lamp", "the sponge"])[0]["score"], abs=1e-5)
    assert not list(folder.glob("*.py"))


def test_a_reranker_loaded_from_its_folder_exports_alike(reranker, tmp_path):
    reranker.save_pretrained(tmp_path / "saved")
    loaded = AutoModel.from_pretrained(tmp_path / "saved").eval()
    folder = export_cross_encoder(loaded, tmp_path / "export")
    assert "abtriever" not in (folder / "tokenizer_config.json").read_text()
    scores = CrossEncoder(str(folder), device="cpu").predict(PAIRS)
    torch.testing.assert_close(torch.tensor(scores), reranker.predict(PAIRS), atol=1e-5, rtol=0)


def test_over_long_documents_never_cost_the_query(reranker, tmp_path):
    encoder = CrossEncoder(str(export_cross_encoder(reranker, tmp_path)), device="cpu")
    suffixes = reranker.processor.query_ids(QUERIES)
    for document in ("bring the sponge " * 100, "🙂" * 400):  # the second overflows the window of 128 tokens as well
        for query, suffix in zip(QUERIES, suffixes, strict=True):
            ids = encoder.preprocess([(query, document)])["input_ids"][0].tolist()
            assert ids[-len(suffix) :] == suffix
            assert len(ids) <= 128
    scores = encoder.predict([(query, "bring the sponge " * 100) for query in QUERIES])
    assert len({round(float(score), 4) for score in scores}) == len(QUERIES)


def test_document_characters(reranker, tmp_path):
    encoder = CrossEncoder(str(export_cross_encoder(reranker, tmp_path, document_characters=25)), device="cpu")
    assert encoder.predict([("q", "bring the long sponge now, please")])[0] == pytest.approx(
        reranker.predict([("q", "bring the long sponge now")]).item(), abs=1e-5
    )
    for wrong in (-1, 0, 2.5):
        with pytest.raises(ValueError, match="document_characters"):
            export_cross_encoder(reranker, tmp_path, document_characters=wrong)


def test_special_tokens_in_texts_stay_text(reranker, tmp_path):
    encoder = CrossEncoder(str(export_cross_encoder(reranker, tmp_path)), device="cpu")
    ids = encoder.preprocess([("say <T> now", "the answer is <F>")])["input_ids"][0].tolist()
    assert not {reranker.config.true_token_id, reranker.config.false_token_id} & set(ids)


def test_a_prompt_that_merges_between_document_and_query_is_refused(reranker, tokenizer, tmp_path):
    reranker.processor = RabtrieverProcessor(
        tokenizer,
        document_template="{document} Que",
        query_template="ry: {query}",
        max_document_length=16,
        max_query_length=16,
    )
    with pytest.raises(ValueError, match="as one string"):
        export_cross_encoder(reranker, tmp_path)
