"""What looks at images and writes text: the `Policy` protocol, how a policy is asked, and the policy that plays a script.

A policy turns a conversation into the next assistant message. It knows nothing of zooming.
"""

from cof_agent.policy.base import (
    CONTEXT,
    GREEDY,
    Completion,
    NoRoom,
    Policy,
    PolicyError,
    PolicyRefusal,
    Sampling,
    begun,
    not_taken,
    reply,
)
from cof_agent.policy.reasoning import NO_REASONING, REASONING, is_reasoning
from cof_agent.policy.retries import RETRY_SECONDS, Retries
from cof_agent.policy.scripted import Line, ScriptedPolicy

__all__ = [
    "CONTEXT",
    "GREEDY",
    "NO_REASONING",
    "REASONING",
    "RETRY_SECONDS",
    "Completion",
    "Line",
    "NoRoom",
    "Policy",
    "PolicyError",
    "PolicyRefusal",
    "Retries",
    "Sampling",
    "ScriptedPolicy",
    "begun",
    "is_reasoning",
    "not_taken",
    "reply",
]
