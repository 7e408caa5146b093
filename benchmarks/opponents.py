"""Models that sentence-transformers trains from the same start, on the same pairs as our student.

- KL: DistillKLDivLoss on the teacher's log-odds, all weights; cosines have the same scale as ours;
- KL, LoRA: the same with adapters of rank 32;
- MarginMSE: MarginMSELoss on the same lists;
- InfoNCE: labels only, other queries' documents as negatives (MultipleNegativesRankingLoss); a batch has no document
  twice, so in a corpus of 8 documents it has 8 queries, and there are as many more steps;
- InfoNCE, hard negatives: the same with one more document per query, from the first thirty of the untrained start;
- MaxSim: one vector per token, distilled on the same lists, so its index is that many times larger.

All of them read as many tokens of a query and of a document as the teacher and our student do.
"""

import copy
import math
import random
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from sentence_transformers import (
    MultiVectorEncoder,
    MultiVectorEncoderTrainer,
    MultiVectorEncoderTrainingArguments,
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.base.modules import Transformer
from sentence_transformers.multi_vector_encoder.losses import MultiVectorDistillKLDivLoss
from sentence_transformers.sentence_transformer.losses import (
    DistillKLDivLoss,
    MarginMSELoss,
    MultipleNegativesRankingLoss,
)
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling
from sentence_transformers.sentence_transformer.training_args import BatchSamplers
from sentence_transformers.util import pairwise_dot_score
from torch import Tensor
from transformers import PreTrainedTokenizerBase, set_seed

from benchmarks.bills import Bill, Setting
from modeling_rabtriever import GenerativeRerankerModel, RabtrieverProcessor
from modeling_rabtriever.distillation.labels import HARD_DEPTH
from modeling_rabtriever.distillation.student import UNIT_SCALE
from modeling_rabtriever.evaluation.metrics import rank_documents

HARD, MAX_SIM = "InfoNCE, hard negatives", "MaxSim"
METHODS = ("KL", "KL, LoRA", "MarginMSE", "InfoNCE", HARD, MAX_SIM)

Model = SentenceTransformer | MultiVectorEncoder


class Opponent:
    """The methods for one start and the texts of one task.

    Args:
        teacher: whose backbone and prompt are taken where there is no encoder.
        corpus: the documents.
        bill: the training pairs of all methods.
        setting: how they train.
        encoder: folder of a sentence-transformers model to start from.
        seed: of everything random.
    """

    def __init__(
        self, teacher: GenerativeRerankerModel, corpus: list[str], bill: Bill, setting: Setting,
        encoder: str | None = None, seed: int = 0,
    ) -> None:  # fmt: skip
        self.teacher, self.bill, self.setting, self.encoder, self.seed = teacher, bill, setting, encoder, seed
        processor = teacher.processor
        self._query, self._document = ("{}", "{}") if encoder is not None else prompts(processor)
        self._tokenizer = processor.tokenizer if encoder is None else self.as_it_is().tokenizer
        shortened = kept_part(self._tokenizer, corpus, processor.max_document_length, "right")
        self._corpus = [self._document.format(text) for text in shortened]

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods that fit this start: a language model has no initial ranking to take hard negatives from."""
        return tuple(method for method in METHODS if self.encoder is not None or method != HARD)

    def as_it_is(self) -> Model:
        """The untrained start."""
        return self._untrained("InfoNCE")

    def train(self, method: str, rate: float) -> tuple[Model, float]:
        """A trained model and the seconds of its training."""
        setting, labels = self.setting, method.startswith("InfoNCE")
        set_seed(self.seed)
        model = self._untrained(method)
        if method == "KL, LoRA":
            model.add_adapter(LoraConfig(r=32, lora_alpha=64, target_modules="all-linear"))
        batch, steps = self.length(method)
        rows = self.rows(method, batch * steps)
        trainer_class: Any = SentenceTransformerTrainer
        arguments_class: Any = SentenceTransformerTrainingArguments
        if isinstance(model, MultiVectorEncoder):
            trainer_class, arguments_class = MultiVectorEncoderTrainer, MultiVectorEncoderTrainingArguments
        with tempfile.TemporaryDirectory() as folder:
            arguments = arguments_class(
                output_dir=folder, max_steps=steps, per_device_train_batch_size=batch, learning_rate=rate,
                warmup_steps=steps // 10, lr_scheduler_type="cosine", bf16=setting.bf16, use_cpu=True,
                save_strategy="no", report_to="none", logging_steps=50, seed=self.seed, disable_tqdm=True,
                batch_sampler=BatchSamplers.NO_DUPLICATES if labels else BatchSamplers.BATCH_SAMPLER,
            )  # fmt: skip
            trainer = trainer_class(model=model, args=arguments, train_dataset=rows, loss=self._loss(model, method))
            started = time.monotonic()
            trainer.train()
            seconds = time.monotonic() - started
        return model.eval(), seconds

    def length(self, method: str) -> tuple[int, int]:
        """Queries per step, and steps.

        A batch of InfoNCE holds no document twice; if there are fewer documents than queries in a batch, its batches
        are as large as they can be, and more.
        """
        setting = self.setting
        if not method.startswith("InfoNCE"):
            return setting.batch, setting.steps
        batch = min(setting.labels_batch, len({row for own in self.bill.relevant for row in own}))
        return batch, math.ceil(setting.steps * setting.labels_batch / batch)

    def rows(self, method: str, count: int) -> Dataset:
        """`count` rows: `query`, `document_0`, ... and `label`, the teacher's log-odds of each.

        Those of InfoNCE have one relevant document and no label.
        """
        rng, bill = random.Random(self.seed), self.bill
        labels = method.startswith("InfoNCE")
        chosen = bill.labelled if labels else list(range(len(bill.queries)))
        rows: list[int] = []
        for _ in range(math.ceil(count / len(chosen))):
            rows += rng.sample(chosen, len(chosen))
        rows = rows[:count]
        asked = self._asked(bill.queries)
        columns: dict[str, list[Any]] = {"query": [asked[row] for row in rows]}
        if labels:
            columns["document_0"] = [self._corpus[rng.choice(bill.relevant[row])] for row in rows]
            if method == HARD:
                hard = self._hard_negatives(chosen)
                columns["document_1"] = [self._corpus[rng.choice(hard[row])] for row in rows]
            return Dataset.from_dict(columns)
        for place in range(bill.documents.shape[1]):
            columns[f"document_{place}"] = [self._corpus[int(bill.documents[row, place])] for row in rows]
        columns["label"] = [bill.scores[row].tolist() for row in rows]
        return Dataset.from_dict(columns)

    @torch.no_grad()
    def scores(self, model: Model, queries: list[str]) -> Tensor:
        """Scores of the whole corpus, `(n, m)`: cosine (InfoNCE), inner products (KL, MarginMSE) or MaxSim."""
        tensors: Any = {"show_progress_bar": False}
        if not isinstance(model, MultiVectorEncoder):
            tensors["convert_to_tensor"] = True
        vectors = model.encode_query(self._asked(queries), **tensors)
        found: Tensor = model.similarity(vectors, model.encode_document(self._corpus, **tensors))
        return found.float().cpu()

    def bytes_per_document(self, model: Model) -> int:
        """Mean bytes of the fp32 vectors of a document."""
        sample = self._corpus[:256]
        vectors = model.encode_document(sample, show_progress_bar=False)
        return round(4 * sum(torch.as_tensor(vector).numel() for vector in vectors) / len(sample))

    def _asked(self, queries: list[str]) -> list[str]:
        """The queries in their prompt, as long as the teacher and our student read them."""
        processor = self.teacher.processor
        shortened = kept_part(self._tokenizer, queries, processor.max_query_length, processor.query_truncation_side)
        return [self._query.format(text) for text in shortened]

    def _hard_negatives(self, chosen: list[int]) -> dict[int, list[int]]:
        found = self.scores(self.as_it_is(), [self.bill.queries[row] for row in chosen])
        ranked = rank_documents(found, HARD_DEPTH)
        return {
            row: [place for place in best if place not in self.bill.relevant[row]]
            for row, best in zip(chosen, ranked, strict=True)
        }

    def _untrained(self, method: str) -> Model:
        if self.encoder is None:
            with tempfile.TemporaryDirectory() as folder:
                model = untrained(self.teacher, method, Path(folder))
            model[0].max_seq_length = self._longest()
        elif method == MAX_SIM:
            model = MultiVectorEncoder(self.encoder, device="cpu")
        else:
            model = SentenceTransformer(self.encoder, device="cpu")
            if method == "MarginMSE":  # margins of log-odds are wider than those of cosines
                kept = [module for module in model if not isinstance(module, Normalize)]
                model = SentenceTransformer(modules=kept, device="cpu")
        if not isinstance(model, MultiVectorEncoder):
            model.similarity_fn_name = "cosine" if method.startswith("InfoNCE") else "dot"
        return model

    def _longest(self) -> int:
        processor = self.teacher.processor
        return max(processor.max_prefix_length, processor.max_suffix_length)

    def _loss(self, model: Model, method: str) -> torch.nn.Module:
        if method.startswith("InfoNCE"):
            return MultipleNegativesRankingLoss(model)
        if method == "MarginMSE":
            return MarginMSELoss(model)
        if method == MAX_SIM:
            return MultiVectorDistillKLDivLoss(model)
        unit = any(isinstance(module, Normalize) for module in model)
        return DistillKLDivLoss(
            model,
            pairwise_dot_score,
            student_temperature=self.setting.temperature / (UNIT_SCALE if unit else 1),
            teacher_temperature=self.setting.temperature,
        )


def kept_part(tokenizer: PreTrainedTokenizerBase, texts: list[str], length: int, side: str) -> list[str]:
    """Each text without the tokens beyond `length`; `side` is the end that loses them, `"left"` or `"right"`."""
    backend = copy.deepcopy(tokenizer.backend_tokenizer)
    backend.no_truncation()
    backend.no_padding()
    kept = []
    for text, encoding in zip(texts, backend.encode_batch(texts, add_special_tokens=False), strict=True):
        offsets = encoding.offsets
        if len(offsets) > length:
            text = text[: offsets[length - 1][1]] if side == "right" else text[offsets[-length][0] :]
        kept.append(text)
    return kept


def prompts(processor: RabtrieverProcessor) -> tuple[str, str]:
    """The prompts of query and document as format strings with one placeholder each."""

    def escaped(text: str) -> str:
        return text.replace("{", "{{").replace("}", "}}")

    before, after = processor.query_template.replace("{instruction}", processor.instruction).split("{query}")
    start, end = processor.document_template.split("{document}")
    return f"{escaped(before)}{{}}{escaped(after)}", f"{escaped(start)}{{}}{escaped(end)}"


def plain_tokenizer(processor: RabtrieverProcessor) -> PreTrainedTokenizerBase:
    """A copy of the processor's tokenizer that does not mention the processor when saved.

    A tokenizer that was saved with a reranker, or loaded from its folder, names our processor's class; a folder without
    the processor's own file could not be loaded then.
    """
    tokenizer = copy.deepcopy(processor.tokenizer)
    tokenizer._set_processor_class(None)
    for name in ("processor_class", "auto_map"):
        tokenizer.init_kwargs.pop(name, None)
    tokenizer._auto_map = None
    return tokenizer


def untrained(reranker: GenerativeRerankerModel, method: str, folder: Path) -> SentenceTransformer | MultiVectorEncoder:
    """The model before training, on the teacher's backbone in fp32."""
    processor = reranker.processor
    reranker.backbone.base_model.save_pretrained(folder)
    plain_tokenizer(processor).save_pretrained(folder)
    transformer = Transformer(
        str(folder),
        model_kwargs={"dtype": torch.float32},
        processor_kwargs={"truncation_side": processor.query_truncation_side},
    )
    transformer.max_seq_length = max(processor.max_query_length, processor.max_document_length)
    if method == MAX_SIM:
        model = MultiVectorEncoder(str(folder), device="cpu")
        model[0] = transformer
        return model
    pooling = Pooling(reranker.config.text_config.hidden_size, pooling_mode="lasttoken")
    return SentenceTransformer(modules=[transformer, pooling], device="cpu")
