"""THE wire format: what is said to a model, and what its text means.

    protocol.opening(sample, overview, system=...)      # the messages a conversation begins with
    protocol.parse(text)                                # the actions of one assistant turn

Tags, prompts and tool schemas stand in this folder and nowhere else; no other file reads model text. The format is the one
published Chain-of-Focus and DeepEyes checkpoints write (arXiv 2505.15436): literal `<think>`, `<tool_call>` with JSON,
`<answer>`; observations come back in a user message as image, then text.
"""

from cof_agent.protocol.apart import FOLLOWS, NOT_DONE, in_parts, put_together, repeats
from cof_agent.protocol.calls import Call
from cof_agent.protocol.messages import (
    Message,
    asked,
    assistant,
    is_result,
    observation_messages,
    opening,
    question_of,
    render,
    render_turns,
)
from cof_agent.protocol.parse import (
    after_thought,
    begins_anew,
    bounded,
    box_after,
    box_in,
    image_named,
    is_whole,
    json_in,
    parse,
    parse_cut,
    read,
    says_nothing,
    taken_apart,
    thought,
    well_formed,
    with_opening,
    without_tags,
)
from cof_agent.protocol.prompt import (
    PROTOCOL_VERSION,
    lettered,
    question_text,
    system_prompt,
    tool_schema,
)
from cof_agent.protocol.values import box_of
from cof_agent.protocol.write import (
    ANSWER,
    CALL,
    THOUGHT,
    begin_answer,
    begin_zoom,
    rewrite,
    stopped,
    write_answer,
    write_zoom,
    write_zooms,
)

__all__ = [
    "ANSWER",
    "CALL",
    "FOLLOWS",
    "NOT_DONE",
    "PROTOCOL_VERSION",
    "THOUGHT",
    "Call",
    "Message",
    "after_thought",
    "asked",
    "assistant",
    "begin_answer",
    "begin_zoom",
    "begins_anew",
    "bounded",
    "box_after",
    "box_in",
    "box_of",
    "image_named",
    "in_parts",
    "is_result",
    "is_whole",
    "json_in",
    "lettered",
    "observation_messages",
    "opening",
    "parse",
    "parse_cut",
    "put_together",
    "question_of",
    "question_text",
    "read",
    "render",
    "render_turns",
    "repeats",
    "rewrite",
    "says_nothing",
    "stopped",
    "system_prompt",
    "taken_apart",
    "thought",
    "tool_schema",
    "well_formed",
    "with_opening",
    "without_tags",
    "write_answer",
    "write_zoom",
    "write_zooms",
]
