"""What a server says about the next token of each prompt, in the two forms of log probabilities that servers have."""

import math
from typing import Any, NamedTuple

Token = int | str  # its id if the server says it, otherwise its text
_BY_ID = "token_id:"
_NONE = "no log probabilities"
_ACCEPTED = "a server whose completions have log probabilities, such as vLLM or llama.cpp"


class NextToken(NamedTuple):
    """The token that a server chose after a prompt, and the log probabilities of some tokens, that one among them."""

    chosen: Token
    logprobs: dict[Token, float]


def next_tokens(answer: dict[str, Any], count: int) -> list[NextToken]:
    """The answer to a request of `count` prompts, in the order of the prompts.

    Raises:
        ValueError: there is another number of choices, or one has no log probabilities, or none that are numbers.
    """
    given = answer.get("choices")
    choices = [choice for choice in given if isinstance(choice, dict)] if isinstance(given, list) else []
    rows = [choice.get("index") for choice in choices]
    if sorted(map(str, rows)) != sorted(map(str, range(count))):
        raise ValueError(f"the server answered {count} prompts with the choices {rows}; accepted: one for each prompt")
    ordered = {choice["index"]: choice for choice in choices}
    return [_next_token(ordered[row].get("logprobs")) for row in range(count)]


def _next_token(found: Any) -> NextToken:
    try:
        if found.get("content"):  # as in chats, and of llama.cpp
            first = found["content"][0]
            entries = [first, *first["top_logprobs"]]
            tokens = [(_named(entry.get("id", entry["token"])), entry["logprob"]) for entry in entries]
        else:
            chosen = (_named(found["tokens"][0]), found["token_logprobs"][0])
            tokens = [chosen, *((_named(name), value) for name, value in found["top_logprobs"][0].items())]
    except (AttributeError, LookupError, TypeError):
        raise ValueError(f"the server gave {_NONE} for a prompt ({str(found)[:100]}); accepted: {_ACCEPTED}") from None
    for token, value in tokens:
        # llama.cpp writes the lowest number of its type for the logarithm of 0.
        if isinstance(value, bool) or not isinstance(value, int | float) or not -1e6 < value < 1e-3:
            shown = "NaN" if isinstance(value, float) and math.isnan(value) else value
            raise ValueError(
                f"the server gave {shown!r} as the log probability of token {token!r}; accepted: finite numbers of at "
                "most 0"
            )
    return NextToken(tokens[0][0], {token: float(value) for token, value in reversed(tokens)})


def _named(token: Any) -> Token:
    if isinstance(token, int):
        return token
    text = str(token)
    number = text.removeprefix(_BY_ID)
    return int(number) if number != text and number.isdecimal() else text
