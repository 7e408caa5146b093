"""A generative reranker behind a server: the same prompts as a local one, of which the server tells the log-odds."""

import math
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ..modeling_prompted import RankedDocument, ranking
from ..processing_rabtriever import RabtrieverProcessor, TokenIds, checked_texts
from .answers import NextToken, next_tokens
from .client import Client
from .in_flight import in_flight

PAIRS_PER_REQUEST = 16
TOP = 20  # log probabilities asked for; vLLM gives no more unless it is told to
BIAS = 100  # the largest that servers take: makes a token the chosen one
SAME = 1.0  # nats by which two answers to one prompt may differ, since servers batch and round
# Of a model's description, what tells apart two models of one name.
_ABOUT = ("id", "root", "parent")
_SIZES = ("vocab_type", "n_vocab", "n_ctx_train", "n_embd", "n_params", "size")


class ServedTeacher:
    """A reranker behind an OpenAI-compatible server, such as vLLM's or llama.cpp's. It has log-odds and no states.

    A prompt is sent as token ids, document first, so the server's prefix cache holds a document while its queries
    follow. The score is the difference of the log probabilities of the two answers as the next token. If one of them
    is not among the `TOP` most probable tokens, it is asked for by itself; nothing is guessed.

    Args:
        url: the server's address up to its version, such as `http://localhost:8000/v1`. If it wants a key, the
            environment variable `RABTRIEVER_API_KEY` has it.
        processor: makes the prompts, with the tokenizer of the served model.
        model: name of the model at the server; `None` takes the only one.
        requests: in flight at once, each with up to `PAIRS_PER_REQUEST` pairs.

    Raises:
        ValueError: the address is none, or `requests` is below 1.

    Examples:
        >>> from modeling_rabtriever import RabtrieverProcessor, example
        >>> from modeling_rabtriever.served import ServedTeacher
        >>> processor = RabtrieverProcessor.from_pretrained(example("household", "teacher"))
        >>> teacher = ServedTeacher("http://localhost:8000/v1", processor)
        >>> teacher.url
        'http://localhost:8000/v1'
    """

    def __init__(self, url: str, processor: RabtrieverProcessor, model: str | None = None, requests: int = 8) -> None:
        if requests < 1:
            raise ValueError(f"requests is {requests}; accepted: 1 or more")
        self.processor, self.requests, self._wanted = processor, requests, model
        self._client = Client(url, requests)
        self._description: dict[str, Any] | None = None

    @property
    def url(self) -> str:
        """The server's address."""
        return self._client.url

    def connect(self) -> dict[str, Any]:
        """Checks once, with a short prompt, that the server reads and answers as the processor expects.

        Returns:
            The served model as the server lists it: `id`, and what else tells it apart from others of that name.

        Raises:
            ValueError: the server has no such model, another tokenizer, or gives no usable log probabilities.
            ConnectionError: the server does not answer.
        """
        if self._description is None:
            sizes = self._listed.get("meta")
            about = {name: self._listed.get(name) for name in _ABOUT}
            about |= {name: sizes.get(name) for name in _SIZES} if isinstance(sizes, dict) else {}
            self._check_reading()
            self._description = {name: value for name, value in about.items() if value is not None}
        return self._description

    @cached_property
    def _listed(self) -> dict[str, Any]:
        listed = self._client.ask("models").get("data")
        entries = [entry for entry in listed if isinstance(entry, dict)] if isinstance(listed, list) else []
        models = [entry for entry in entries if isinstance(entry.get("id"), str)]
        found = [entry for entry in models if self._wanted in (None, entry["id"])]
        if len(found) != 1:
            names = ", ".join(repr(entry["id"]) for entry in models) or "no model"
            raise ValueError(
                f"served_model is {self._wanted!r}, {self.url} has {names}; accepted: one of its names, or none if it "
                "has one model"
            )
        return found[0]

    def log_odds(self, prompts: Sequence[TokenIds]) -> Tensor:
        """`log P(<T>) - log P(<F>)` of the token after each prompt, by one request or a few: `(len(prompts),)` fp32.

        Raises:
            ValueError: the server's answer is not usable; the message says why.
            ConnectionError: the server does not answer.
        """
        usual = self._complete(prompts)
        true, false = (self._logprobs_of(token, prompts, usual) for token in self._answers)
        return torch.tensor(true) - torch.tensor(false)

    def score_pairs(self, queries: Sequence[str], documents: Sequence[str], pairs: Sequence[tuple[int, int]]) -> Tensor:
        """Log-odds of some queries against some documents, as `GenerativeRerankerModel.score_pairs` gives them.

        Args:
            queries: texts.
            documents: texts.
            pairs: rows of both, query first.

        Returns:
            `(len(pairs),)` fp32, in the order given.

        Raises:
            ValueError: a blank text, or an answer that is not usable.
            ConnectionError: the server does not answer.
        """
        self.connect()
        prefixes, suffixes = self.processor.document_ids(documents), self.processor.query_ids(queries)
        order = sorted(range(len(pairs)), key=lambda place: pairs[place][1])
        blocks = [order[start : start + PAIRS_PER_REQUEST] for start in range(0, len(order), PAIRS_PER_REQUEST)]

        def ask(block: list[int]) -> Tensor:
            return self.log_odds([prefixes[pairs[place][1]] + suffixes[pairs[place][0]] for place in block])

        scores = torch.empty(len(pairs))
        for block, found in in_flight(ask, blocks, self.requests):
            scores[block] = found
        return scores

    def rank(self, query: str, documents: Sequence[str], top_k: int | None = None) -> list[RankedDocument]:
        """Documents in order of their log-odds for a query, as `GenerativeRerankerModel.rank` gives them.

        Raises:
            ValueError: a blank text, `top_k` out of range, or an answer that is not usable.
            ConnectionError: the server does not answer.
        """
        documents = checked_texts("documents", documents)
        places = {text: place for place, text in enumerate(dict.fromkeys(documents))}
        scores = self.score_pairs([query], list(places), [(0, place) for place in places.values()])
        return ranking(scores[[places[text] for text in documents]], documents, top_k)

    @property
    def _answers(self) -> tuple[int, int]:
        true, false = self.processor.true_token_id, self.processor.false_token_id
        if true is None or false is None:
            raise ValueError("the processor has no answers; accepted: one with true_answer and false_answer")
        return true, false

    def _complete(self, prompts: Sequence[TokenIds], **settings: Any) -> list[NextToken]:
        return next_tokens(self._asked(prompts, return_tokens_as_token_ids=True, **settings), len(prompts))

    def _asked(self, prompts: Sequence[TokenIds], **settings: Any) -> dict[str, Any]:
        body = {
            "model": self._listed["id"],
            "prompt": list(prompts),
            "max_tokens": 1,
            "temperature": 0,
            "logprobs": TOP,
        }
        return self._client.ask("completions", {**body, **settings})

    def _logprobs_of(self, token: int, prompts: Sequence[TokenIds], usual: Sequence[NextToken]) -> list[float]:
        found = [self._of(token, answer) for answer in usual]
        missing = [row for row, value in enumerate(found) if value is None]
        if missing:
            forced = self._complete([prompts[row] for row in missing], logit_bias={str(token): BIAS})
            for row, answer in zip(missing, forced, strict=True):
                found[row] = self._forced(token, answer, usual[row])
        return [value for value in found if value is not None]

    def _forced(self, token: int, answer: NextToken, usual: NextToken) -> float:
        value = self._of(token, answer)
        if value is None or answer.chosen not in (token, self._text(token)):
            raise ValueError(
                f"token {token} ({self._text(token)!r}) is not among the {len(usual.logprobs)} most probable ones, and "
                f"with logit_bias {BIAS} the server chose {answer.chosen!r}; accepted: a server that heeds logit_bias"
            )
        others = (usual.logprobs.keys() & answer.logprobs.keys()) - {answer.chosen}
        changes = [abs(usual.logprobs[other] - answer.logprobs[other]) for other in others]
        if not min(changes, default=math.inf) <= SAME:  # a bias moves all others alike
            raise ValueError(
                f"token {token} ({self._text(token)!r}) is not among the {len(usual.logprobs)} most probable ones, and "
                "the server's log probabilities change with logit_bias, so its own is unknown; "
                "accepted: log probabilities before logit_bias (vLLM: --logprobs-mode raw_logprobs)"
            )
        return value

    def _of(self, token: int, answer: NextToken) -> float | None:
        """The log probability of a token, which the server calls by its id, or else by its text."""
        if token in answer.logprobs:
            return answer.logprobs[token]
        text = self._text(token)
        if text in answer.logprobs and not self._texts_differ:
            raise ValueError(
                f"the server names tokens by their text, and several of this vocabulary read {text!r}; accepted: a "
                "server that names ids, such as vLLM or llama.cpp, or another answer"
            )
        return answer.logprobs.get(text)

    @cached_property
    def _texts_differ(self) -> bool:
        """Whether no other token of the vocabulary reads like one of the answers."""
        texts = self.processor.tokenizer.batch_decode([[token] for token in range(len(self.processor.tokenizer))])
        return all(texts.count(self._text(token)) == 1 for token in self._answers)

    def _text(self, token: int) -> str:
        return str(self.processor.tokenizer.decode([token]))

    def _check_reading(self) -> None:
        """Compares the length of one short prompt, and each answer's text after it has been made the next token."""
        prompt = self.processor.document_ids(["a"])[0] + self.processor.query_ids(["a"])[0]
        self.log_odds([prompt])
        for token in self._answers:
            answer = self._asked([prompt], logit_bias={str(token): BIAS})
            next_tokens(answer, 1)
            text, wanted = str(answer["choices"][0].get("text")).strip(), self._text(token).strip()
            special = token in self.processor.tokenizer.added_tokens_decoder and not text  # servers may leave it out
            if text != wanted and not special:
                raise ValueError(
                    f"token {token} is {text!r} at {self.url} and {wanted!r} in the tokenizer; accepted: the served "
                    "model's own tokenizer, as model_name_or_path"
                )
            usage = answer.get("usage")
            read = usage.get("prompt_tokens") if isinstance(usage, dict) else None
            if read not in (None, len(prompt)):
                raise ValueError(
                    f"{self.url} read {read} tokens of a prompt of {len(prompt)}; accepted: a server that takes token "
                    "ids as they are, such as vLLM or llama.cpp"
                )
