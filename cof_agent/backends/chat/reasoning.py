"""How much a served model thinks before it answers: a word, or a number of tokens, as each provider takes it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from cof_agent.errors import InputError
from cof_agent.policy import NO_REASONING, REASONING


@dataclass(frozen=True, slots=True)
class Reasoning:
    """What asks for it. options: of a provider's client, or fields of a request. budget: tokens that a thought may have beside
    the answer. fixed: whether the provider chooses the temperature itself then."""

    options: dict[str, Any] = field(default_factory=dict)
    budget: int = 0
    fixed: bool = False


def of_provider(provider: str | None, value: str) -> Reasoning:
    """For a provider's client.

    Raises:
        InputError: if the provider has no such thing.
    """
    budget = 0 if value in REASONING else int(value)
    if provider == "openai" and not budget:
        return Reasoning({"reasoning_effort": value}, fixed=value != NO_REASONING)
    if provider == "anthropic":
        if value == NO_REASONING:
            return Reasoning({"thinking": {"type": "disabled"}})
        if budget:
            return Reasoning({"thinking": {"type": "enabled", "budget_tokens": budget}}, budget, fixed=True)
        return Reasoning({"reasoning_effort": value}, fixed=True)
    if provider == "google_genai":
        known = value not in REASONING or value == NO_REASONING
        return Reasoning({"thinking_budget": budget} if known else {"thinking_level": value}, budget)
    if provider == "openai":
        raise InputError(f"openai takes no number of tokens as --reasoning; name one of {', '.join(REASONING)}.")
    raise InputError(
        f"--reasoning is not known of {provider or 'an unnamed provider'}: it is for openai, anthropic, google_genai, and "
        "servers named by --base-url."
    )


def of_server(where: str, value: str, *, vllm: bool, dashscope: bool) -> Reasoning:
    """For a server of one's own that speaks OpenAI's chat completions. where: its address.

    Raises:
        InputError: if it takes no number of tokens.
    """
    if value == NO_REASONING:
        return Reasoning({"enable_thinking": False} if dashscope else {"reasoning_effort": value})
    if value in REASONING and dashscope:
        raise InputError(f"{where} takes a number of tokens as --reasoning, or none.")
    if value in REASONING:
        return Reasoning({"reasoning_effort": value})
    budget = int(value)
    if vllm:
        return Reasoning({"thinking_token_budget": budget}, budget)
    if dashscope:
        return Reasoning({"enable_thinking": True, "thinking_budget": budget}, budget)
    raise InputError(
        f"{where} does not say that it takes a number of tokens as --reasoning, as vLLM does; name one of {', '.join(REASONING)}."
    )
