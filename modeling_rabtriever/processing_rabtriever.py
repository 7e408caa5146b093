"""The prompt: text in, token ids out. Everything that decides what the model reads lives here and is saved with it."""

import copy
import re
from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any, NamedTuple, TypeAlias

import torch
from transformers import ProcessorMixin
from transformers.feature_extraction_utils import BatchFeature

Texts: TypeAlias = str | Sequence[str]
TokenIds: TypeAlias = list[int]

# arXiv 2604.23336, App. A.1.
PAPER_INSTRUCTION = (
    "Can Query be appropriately responded with Document? If the answer is true, choose <T>; otherwise, choose <F>."
)
PAPER_ANSWERS = ("<T>", "<F>")
ANSWERS = ("true_answer", "false_answer")
TRUNCATION_SIDES = ("left", "right")
# Unicode's white space: what tokenizers strip too, where Python's own strip takes four control characters more.
BLANKS = (
    "\t\n\x0b\x0c\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000"
)

# What a text may begin or end with, to see which of the template's tokens stay the same beside it.
_NEIGHBOURS = "".join(map(chr, range(0x21, 0x7F))) + "éя水。…”"
_SURROGATES = re.compile("[\ud800-\udfff]")  # halves of a character, which no tokenizer reads
_FIXED = (
    "tokenizer", "true_answer", "false_answer", "instruction", "document_template", "query_template",
    "max_document_length", "max_query_length", "query_truncation_side",
)  # fmt: skip


def paper_instruction(true_answer: str, false_answer: str) -> str:
    """The paper's question, asking for these answers."""
    answers = dict(zip(PAPER_ANSWERS, (true_answer, false_answer), strict=True))
    return re.sub("|".join(PAPER_ANSWERS), lambda found: str(answers[found[0]]).strip(), PAPER_INSTRUCTION)


class MissingProcessorError(ValueError):
    """A folder or repository holds no settings of a `RabtrieverProcessor`."""


class RabtrieverProcessor(ProcessorMixin):
    """Turns documents into prompt prefixes and queries into prompt suffixes.

    The document comes first, so under causal attention its states do not depend on the query. That holds only if prefix
    and suffix are tokenised apart and joined as ids. Within each, text and template are tokenised as the running text
    they form, as engines do that render the prompt as one string. An over-long text is cut; template, instruction and
    answer position are not, except for a sign beside the text that this tokenizer may merge with it. Special tokens
    inside a document or a query are read as plain text, blanks at its edges are dropped.

    A processor never changes once it is built, so threads can share it; `replace` builds another one.

    Args:
        tokenizer: the backbone's, a fast one (offsets are needed to cut texts).
        true_answer: the answer "relevant", one token; `None`, with `false_answer`, for an encoder that never answers.
        false_answer: the answer "not relevant", another token.
        instruction: stands where `query_template` says `{instruction}`; default: the paper's, with these answers in it.
        document_template: text of the prefix, with `{document}` once.
        query_template: text of the suffix, with `{query}` once; its last token is the answer position.
        max_document_length: tokens kept of a document (from its start), those of the template not counted.
        max_query_length: tokens kept of a query, likewise.
        query_truncation_side: the end that an over-long query loses: `"right"`, or `"left"` for chats.
        chat_template: accepted because `ProcessorMixin` passes it on; not used.

    Raises:
        ValueError: an answer is not exactly one token, both answers are the same token, a template lacks its
            placeholder, a limit is not a whole number of at least 1, or the tokenizer is not fast or has no vocabulary.

    Examples:
        >>> from modeling_rabtriever import RabtrieverModel, example
        >>> processor = RabtrieverModel.from_pretrained(example("household")).processor
        >>> processor.tokenizer.decode(processor.query_ids("It is dark")[0])
        'Query: It is dark\\nRelevant:'
    """

    def __init__(
        self,
        tokenizer: Any = None,
        true_answer: str | None = "<T>",
        false_answer: str | None = "<F>",
        instruction: str | None = None,
        document_template: str = "Document: {document}\n",
        query_template: str = "Query: {query}\n{instruction}",
        max_document_length: int = 128,
        max_query_length: int = 128,
        query_truncation_side: str = "right",
        chat_template: Any = None,
    ) -> None:
        super().__init__(tokenizer, chat_template=chat_template)
        answers = self.true_answer, self.false_answer = true_answer, false_answer
        if (true_answer is None) != (false_answer is None):
            raise ValueError(f"true_answer, false_answer are {answers}; accepted: two texts, or None for both")
        if instruction is None:
            instruction = "" if true_answer is None else paper_instruction(*answers)  # type: ignore[arg-type]
        if not isinstance(instruction, str):
            raise ValueError(f"instruction is {instruction!r}; accepted: a text")
        self.instruction, self.document_template, self.query_template = instruction, document_template, query_template
        self.max_document_length = at_least_one("max_document_length", max_document_length)
        self.max_query_length = at_least_one("max_query_length", max_query_length)
        if query_truncation_side not in TRUNCATION_SIDES:
            raise ValueError(f"query_truncation_side is {query_truncation_side!r}; accepted: left, right")
        self.query_truncation_side = query_truncation_side
        if not getattr(tokenizer, "is_fast", False):
            raise ValueError(f"tokenizer is {type(tokenizer).__name__}; accepted: a fast tokenizer (tokenizer.json)")
        if len(tokenizer) == len(tokenizer.get_added_vocab()):  # what transformers makes of a folder without its file
            raise ValueError("tokenizer has no vocabulary; accepted: one that was loaded with its tokenizer.json")
        words = _Words(tokenizer)
        frame = _frame(words, "document_template", document_template, "{document}", instruction)
        self._document_frame = frame._replace(start=_beginning_of_text(tokenizer) + frame.start)
        self._query_frame = _frame(words, "query_template", query_template, "{query}", instruction)
        self._answer_ids = tuple(_answer_id(words, name, answer) for name, answer in zip(ANSWERS, answers, strict=True))
        if self.true_token_id == self.false_token_id and self.true_token_id is not None:
            raise ValueError(f"both answers are token {self.true_token_id}; accepted: two that differ")
        self._texts = _PlainTexts(words.backend)  # last: from here on nothing changes

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _FIXED and "_texts" in vars(self):
            raise ValueError(f"{name} of a processor cannot be set: its prompt is fixed; accepted: replace({name}=...)")
        super().__setattr__(name, value)

    def replace(self, **settings: Any) -> "RabtrieverProcessor":
        """Another processor: `settings` are arguments of this class, all others stay.

        Raises:
            ValueError: a setting is unknown or not usable.
        """
        if unknown := settings.keys() - {*_FIXED}:
            raise ValueError(f"{min(unknown)} is no setting of a processor; accepted: {', '.join(_FIXED)}")
        return type(self)(**{**{name: getattr(self, name) for name in _FIXED}, **settings})

    @classmethod
    def get_processor_dict(
        cls, pretrained_model_name_or_path: Any, **kwargs: Any
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """As in `ProcessorMixin`, but a folder without our settings is an error, never a silent default prompt.

        Raises:
            MissingProcessorError: the folder or repository has no `processor_config.json` written by this class.
        """
        settings, unused = super().get_processor_dict(pretrained_model_name_or_path, **kwargs)
        if settings.get("processor_class") != "RabtrieverProcessor":
            raise MissingProcessorError(
                f"{pretrained_model_name_or_path} has no processor_config.json of a RabtrieverProcessor; accepted: a "
                "folder or repository that RabtrieverProcessor.save_pretrained wrote"
            )
        return settings, unused

    @property
    def true_token_id(self) -> int | None:
        """Vocabulary id of `true_answer`; `None` without answers."""
        return self._answer_ids[0]

    @property
    def false_token_id(self) -> int | None:
        """Vocabulary id of `false_answer`; `None` without answers."""
        return self._answer_ids[1]

    @property
    def max_pair_length(self) -> int:
        """Tokens of the longest prompt this processor can produce: both limits plus the templates."""
        return self.max_prefix_length + self.max_suffix_length

    @property
    def max_prefix_length(self) -> int:
        """Tokens of the longest prefix: a document and its template."""
        return self._document_frame.size + self.max_document_length

    @property
    def max_suffix_length(self) -> int:
        """Tokens of the longest suffix: a query and its template."""
        return self._query_frame.size + self.max_query_length

    def document_ids(self, documents: Texts) -> list[TokenIds]:
        """Token ids of the prompt prefix of each document; a ValueError if `checked_texts` refuses one."""
        texts = checked_texts("documents", documents)
        return self._fill(self._document_frame, texts, self.max_document_length, "right")

    def query_ids(self, queries: Texts) -> list[TokenIds]:
        """Token ids of the prompt suffix of each query, the last one the answer position; errors as `document_ids`."""
        texts = checked_texts("queries", queries)
        return self._fill(self._query_frame, texts, self.max_query_length, self.query_truncation_side)

    def pad(self, sequences: Sequence[TokenIds]) -> BatchFeature:
        """`input_ids` and `attention_mask`, int64 `(batch, longest)`, left-padded: -1 is each text's last token."""
        longest = max(len(ids) for ids in sequences)
        filler = self.tokenizer.pad_token_id if self.tokenizer.pad_token_id is not None else 0
        input_ids = torch.full((len(sequences), longest), filler, dtype=torch.long)
        attention_mask = torch.zeros_like(input_ids)
        for row, ids in enumerate(sequences):
            input_ids[row, longest - len(ids) :] = torch.tensor(ids)
            attention_mask[row, longest - len(ids) :] = 1
        return BatchFeature({"input_ids": input_ids, "attention_mask": attention_mask})

    def __call__(self, *, query: Texts | None = None, document: Texts | None = None) -> BatchFeature:
        """A padded batch as of `pad`: full prompts of queries and documents one to one, or only one side's part.

        Raises:
            ValueError: nothing is given, the lists differ in length, or a text is not usable.
        """
        if query is None:
            if document is None:
                raise ValueError("neither query nor document is given; accepted: one of them or both")
            return self.pad(self.document_ids(document))
        if document is None:
            return self.pad(self.query_ids(query))
        suffixes, prefixes = self.query_ids(query), self.document_ids(document)
        if len(suffixes) != len(prefixes):
            raise ValueError(f"{len(suffixes)} queries and {len(prefixes)} documents; accepted: as many of each")
        return self.pad([prefix + suffix for prefix, suffix in zip(prefixes, suffixes, strict=True)])

    def _fill(self, frame: "_Frame", texts: list[str], limit: int, side: str) -> list[TokenIds]:
        texts = [text.strip(BLANKS) for text in texts]
        unique = list(dict.fromkeys(texts))  # in pairs a text stands many times
        ids = dict(zip(unique, self._texts.ids([frame.head + text + frame.tail for text in unique]), strict=True))
        longest = frame.size + limit - len(frame.start) - len(frame.end)
        return [frame.start + frame.cut(ids[text], longest, side) + frame.end for text in texts]


class _Frame(NamedTuple):
    """A template around its text: ids up to the last special token before it, plain words, ids from the next one on."""

    start: TokenIds
    head: str
    tail: str
    end: TokenIds
    head_ids: TokenIds  # of the plain words, what stays the same before every text and behind it; the rest, such as
    tail_ids: TokenIds  # the blank before it, may become part of the text's first or last token
    plain: int  # tokens of the plain words by themselves

    @property
    def size(self) -> int:
        """Tokens without the text."""
        return len(self.start) + self.plain + len(self.end)

    def cut(self, ids: TokenIds, longest: int, side: str) -> TokenIds:
        """The ids of head, text and tail, or `longest` of them: what may merge with the text is cut as the text is."""
        if len(ids) <= longest:
            return ids
        if side == "right":
            return ids[: longest - len(self.tail_ids)] + self.tail_ids
        return self.head_ids + ids[len(self.head_ids) - longest :]


class _Words:
    """Reads what the model's owner wrote, special tokens as such. A copy: the given tokenizer is left as it is."""

    def __init__(self, tokenizer: Any) -> None:
        self.special = sorted(tokenizer.get_added_vocab(), key=len, reverse=True)
        self.unknown = getattr(tokenizer, "unk_token_id", None)
        self.backend = copy.deepcopy(tokenizer.backend_tokenizer)
        self.backend.no_truncation()
        self.backend.no_padding()
        self.backend.encode_special_tokens = False

    def ids(self, text: str) -> TokenIds:
        return list(self.backend.encode(text, add_special_tokens=False).ids) if text else []


class _PlainTexts:
    """Reads what users wrote, special tokens as plain text, with a tokenizer that no other thread switches."""

    def __init__(self, backend: Any) -> None:
        self.__setstate__(backend)

    def ids(self, texts: list[str]) -> list[TokenIds]:
        return [list(encoding.ids) for encoding in self._backend.encode_batch(texts, add_special_tokens=False)]

    def __deepcopy__(self, memo: Any) -> "_PlainTexts":
        return self  # never changed, so never copied

    def __getstate__(self) -> Any:
        return self._backend

    def __setstate__(self, backend: Any) -> None:
        self._backend = backend
        self._backend.encode_special_tokens = True  # not part of a saved tokenizer


def _frame(words: _Words, name: str, template: Any, placeholder: str, instruction: str) -> _Frame:
    if not isinstance(template, str) or template.count(placeholder) != 1:
        raise ValueError(f"{name} is {template!r}; accepted: a text that holds {placeholder} exactly once")
    before, after = template.split(placeholder)
    after = after.replace("{instruction}", instruction)
    # Templates are the model owner's own words: special tokens in them are meant as such, and nothing merges across
    # them. Between the text and the nearest special token everything is plain.
    special = "|".join(map(re.escape, words.special))
    marks = list(re.finditer(special, before)) if special else []
    head = marks[-1].end() if marks else 0
    tail = mark.start() if special and (mark := re.search(special, after)) else len(after)
    return _plain_frame(words, words.ids(before[:head]), before[head:], after[:tail], words.ids(after[tail:]))


def _plain_frame(words: _Words, start: TokenIds, head: str, tail: str, end: TokenIds) -> _Frame:
    alone = words.ids(head.rstrip(" ")), words.ids(tail)
    before = [words.ids(head + character)[: len(alone[0])] for character in _NEIGHBOURS]
    behind = [words.ids(character + tail)[::-1][: len(alone[1])] for character in _NEIGHBOURS]
    same = _common_beginning(before), _common_beginning(behind)[::-1]
    return _Frame(start, head, tail, end, *same, sum(map(len, alone)))


def _common_beginning(sequences: list[TokenIds]) -> TokenIds:
    first, last = min(sequences), max(sequences)
    different = (place for place, ids in enumerate(zip(first, last, strict=False)) if ids[0] != ids[1])
    return first[: next(different, min(len(first), len(last)))]


def _beginning_of_text(tokenizer: Any) -> TokenIds:
    bos = tokenizer.bos_token_id
    return [bos] if bos is not None and list(tokenizer("")["input_ids"][:1]) == [bos] else []


def _answer_id(words: _Words, name: str, answer: Any) -> int | None:
    if answer is None:
        return None
    ids = words.ids(answer) if isinstance(answer, str) else []
    if len(ids) != 1 or ids[0] == words.unknown:
        raise ValueError(
            f"{name} {answer!r} is {len(ids)} tokens of this tokenizer {ids}; accepted: a text that is exactly one "
            "known token, such as another word or one that is added to the tokenizer and to the model's embeddings"
        )
    return ids[0]


def at_least_one(name: str, value: Any) -> int:
    """The value; a ValueError if it is no whole number of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} is {value!r}; accepted: a whole number of at least 1")
    return value


def checked_texts(name: str, texts: Any) -> list[str]:
    """A text or several as a list; a ValueError if there is none, or one is blank or no string."""
    # What a mapping or a table yields is its keys or columns; a set has no order that rows could follow.
    if not isinstance(texts, str | Iterable) or isinstance(texts, Mapping | Set) or getattr(texts, "ndim", 1) != 1:
        raise ValueError(f"{name} is {texts!r}; accepted: a text or a list of texts")
    listed: list[Any] = [texts] if isinstance(texts, str) else list(texts)
    if not listed:
        raise ValueError(f"{name} is empty; accepted: a text or a list of at least one text")
    for index, text in enumerate(listed):
        if not isinstance(text, str) or not text.strip():
            raise ValueError(f"{name}[{index}] is {text!r}; accepted: a string that is not blank")
        if _SURROGATES.search(text):
            raise ValueError(f"{name}[{index}] is {text!r}; accepted: a string without lone surrogates")
    return listed
