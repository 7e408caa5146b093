# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Search 199 tools by request
#
# An assistant can call 199 tools. Which one does a request need? "What shall I wear tomorrow?" needs *AbleStyle*, "I want to
# know what the stars say" needs *Horoscopes_by_Inner_Self*. Often the two share no word.
#
# This notebook goes from nothing to a search: data, baselines, a teacher, a student, evaluation, own requests, an index, an
# export. Install it with `pip install ".[train,retrieval,export]" jupyterlab` in a clone.
#
# **How long.** It runs without a GPU. Training takes most of the time: the teacher makes 60 of the 250 steps of the recipe
# `metatool`, whose teacher took 56 minutes on one busy core. What is finished in `run` is not made again, and training that was
# interrupted resumes. Put finished models into `run/teacher/model` and `run/student/model`, and nothing is trained at all.

# %%
import csv
import json
import os
import random
import re
import urllib.request
from pathlib import Path

from sentence_transformers import SentenceTransformer

from modeling_rabtriever.distillation import RabtrieverDistillationConfig, StudentArguments, distill
from modeling_rabtriever.evaluation import evaluate
from modeling_rabtriever.export import export_sentence_transformers
from modeling_rabtriever.files import write_folder
from modeling_rabtriever.loading import load_model
from modeling_rabtriever.reranking import (
    BackboneArguments,
    NegativeArguments,
    PromptArguments,
    RerankerTrainingConfig,
    train_reranker,
)
from modeling_rabtriever.retrieval import DocumentReader, Searcher, VectorStore, encode_corpus
from modeling_rabtriever.tasks import load_beir
from modeling_rabtriever.tasks.beir import Split

# %% tags=["parameters"]
run = Path("runs/tool-search")
source = os.environ.get("METATOOL")  # a clone of MetaTool; without it, two files are downloaded
backbone = "HuggingFaceTB/SmolLM2-135M-Instruct"  # of the teacher: a Hub id or a folder
encoder = "sentence-transformers/all-MiniLM-L6-v2"  # what the student starts from
sizes = {"test": 2000, "dev": 1000, "train": 12_000}  # queries of each split
asked = 2000  # training queries for which the teacher is asked
teacher_steps, student_steps, batch = 60, 200, 32

# %% [markdown]
# ## The data
#
# [MetaTool](https://github.com/HowieHwong/MetaTool) (MIT) has 20,614 requests, written by ChatGPT and GPT-4, each with the tool it
# needs, and a description of every tool.

# %%
COMMIT = "35e81bb7576826e980c80fed8f8c0a2b4a1e6fbb"
FILES = {"requests": "dataset/data/all_clean_data.csv", "tools": "dataset/plugin_des.json"}


def metatool_file(path):
    """A file of MetaTool: of the clone, or downloaded once."""
    if source is not None:
        return Path(source) / path
    file = run / "metatool" / Path(path).name
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_suffix(".part")
        urllib.request.urlretrieve(f"https://raw.githubusercontent.com/HowieHwong/MetaTool/{COMMIT}/{path}", part)
        part.rename(file)
    return file


with metatool_file(FILES["requests"]).open(encoding="utf-8-sig", newline="") as lines:
    requests = [(" ".join(row["Query"].split()), row["Tool"]) for row in csv.DictReader(lines)]
described = json.loads(metatool_file(FILES["tools"]).read_text(encoding="utf-8"))
tools = sorted({tool for _, tool in requests})
print(f"{len(requests):,} requests, {len(tools)} tools")

# %% [markdown]
# The trainers read a folder in BEIR layout: documents, queries, and the right documents of the queries of each split. Requests that
# differ only by case or punctuation become one query, so that no query of test occurs in train.

# %%
queries = {}  # what two spellings share -> the first spelling, and the tools
for text, tool in requests:
    spelling = re.sub(r"[^a-z0-9]+", " ", text.lower()).strip()
    queries.setdefault(spelling, (text, set()))[1].add(tool)
queries = list(queries.values())

order = list(range(len(queries)))
random.Random(13).shuffle(order)
data = run / "data"
(data / "qrels").mkdir(parents=True, exist_ok=True)
for split, size in sizes.items():
    rows, order = order[:size], order[size:]
    judged = [f"r{row}\t{tool}\t1\n" for row in rows for tool in sorted(queries[row][1])]
    (data / "qrels" / f"{split}.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(judged), encoding="utf-8")
for name, texts in (
    ("queries", [{"_id": f"r{row}", "text": text} for row, (text, _) in enumerate(queries)]),
    ("corpus", [{"_id": tool, "title": tool, "text": " ".join(described[tool].split())} for tool in tools]),
):
    (data / f"{name}.jsonl").write_text("".join(json.dumps(text) + "\n" for text in texts), encoding="utf-8")

task = load_beir(data)
test = task.split("test")
for text, relevant in list(zip(test.queries, test.relevant, strict=True))[:4]:
    print(f"{text}\n    {' / '.join(task.corpus[row] for row in relevant)}")

# %% [markdown]
# ## What is there without us
#
# Trivial baselines first, and the sentence encoder as it is. TF-IDF + logistic regression and the label prior see the training
# queries with their tools; BM25 and the encoder do not.

# %%
as_it_is = SentenceTransformer(encoder, device="cpu")
print(evaluate([as_it_is], task).table)

# %% [markdown]
# ## The teacher
#
# A language model that reads a tool's description, then a request, and answers yes or no. Its score is the log-odds of the two
# answers. It learns to prefer the right tool to three others.


# %%
def made_once(folder, make):
    """The model in a folder; `make` trains it if the folder is not there."""
    if not folder.exists():
        write_folder(folder, make().save_pretrained)
    return load_model(folder)


training = {"resume_from_checkpoint": True, "eval_strategy": "no", "save_steps": 20, "use_cpu": True, "seed": 0}


def train_teacher():
    """A teacher by the recipe `metatool`, with fewer steps."""
    config = RerankerTrainingConfig(
        str(run / "teacher"),
        objective="listwise",
        max_steps=teacher_steps,
        per_device_train_batch_size=batch,
        learning_rate=5e-5,
        warmup_steps=teacher_steps // 10,
        **training,
    )
    prompt = PromptArguments(
        true_answer=" yes",
        false_answer=" no",
        instruction="Is Document the tool for Query? Answer:",
        max_document_length=48,
        max_query_length=64,
    )
    negatives = NegativeArguments(negatives_per_positive=3, hard_negative_depth=20)
    return train_reranker(task, config, BackboneArguments(backbone), prompt, negatives)


teacher = made_once(run / "teacher/model", train_teacher)
right = [task.corpus[row] for row in test.relevant[0]]
print(test.queries[0])
for hit in teacher.rank(test.queries[0], [*task.corpus[:5], *right], top_k=3):
    print(f"{hit['score']:7.2f}  {hit['text']}")

# %% [markdown]
# It is good and slow: it reads every tool's description again for every request. So it becomes the teacher of a student.
#
# ## The student
#
# The student starts from the sentence encoder and learns from the teacher's scores and from the labels. Its score is a cosine of
# two vectors, so the tools' vectors are computed once.


# %%
def train_student():
    """A student by the recipe `metatool`, with fewer queries."""
    config = RabtrieverDistillationConfig(
        str(run / "student"),
        candidates=4,
        rounds=2,
        label_share=0.9,
        max_steps=student_steps,
        per_device_train_batch_size=batch,
        learning_rate=1e-4,
        encoder_learning_rate=1e-4,
        warmup_steps=student_steps // 10,
        **training,
    )
    whole = task.split("train")
    some = Split("train", whole.query_ids[:asked], whole.queries[:asked], whole.relevant[:asked])
    return distill(teacher, task, config, StudentArguments(encoder=encoder), some)


student = made_once(run / "student/model", train_student)
print(f"{student.num_parameters():,} parameters, vectors of {student.config.embedding_dim} numbers")

# %% [markdown]
# ## Is it better?
#
# On requests that none of them has seen in training. Brackets hold 95% intervals over queries.

# %%
print(evaluate([as_it_is, student], task, train_split="none").table)  # the baselines that learn from train are above

# %% [markdown]
# ## Ask it
#
# `encode_corpus` writes the tools' vectors, a store keeps them, a searcher asks it. With the teacher as second stage, the first
# eight tools are ranked again.

# %%
vectors = encode_corpus(student, DocumentReader(data / "corpus.jsonl"), run / "vectors")
store = VectorStore.of_corpus(run / "store", vectors)
mine = [
    "I have nothing to wear for a wedding in July.",
    "My flat is too expensive, where could I live instead?",
    "Make slides of this report.",
]
for text, hits in zip(mine, Searcher(student, store).search(mine, top_k=3), strict=True):
    print(text)
    for hit in hits:
        print(f"{hit.score:7.2f}  {hit.text[:100]}")

# %%
(hits,) = Searcher(student, store, teacher).search(mine[:1], top_k=3, rerank_depth=8)
for hit in hits:
    print(f"{hit.score:7.2f}  {hit.text[:100]}")

# %% [markdown]
# ## Take it elsewhere
#
# The export is two stock sentence-transformers models, one for requests and one for tools. It needs no custom code, and
# [any server](../docs/serve.md) can run it.

# %%
towers = run / "towers"
if not towers.exists():
    export_sentence_transformers(student, towers)
both = SentenceTransformer(str(towers / "combined"), device="cpu")
scores = both.similarity(both.encode_query(mine), both.encode_document(task.corpus))
for text, row in zip(mine, scores.argmax(-1).tolist(), strict=True):
    print(f"{text}  ->  {task.corpus_ids[row]}")

# %% [markdown]
# Next: [the demo page](../docs/demo.md) shows such a search in a browser, [Train on your data](../docs/train.md) does the same with
# your own folder, and the [results](../benchmarks/RESULTS.md) say what the teacher adds to the labels.
