"""TRL's own tool loop with the zoom as an environment's tool: what `rl/trainer.py` is compared with, in a test and in a bench."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from trl.chat_template_utils import qwen3_template

from cof_agent import protocol
from cof_agent.environment import ZoomEnvironment
from cof_agent.trajectory import Sample, Zoom

TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ 'user' if message['role'] == 'tool' else message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}{% for call in message['tool_calls'] or [] %}<tool_call>\n"
    '{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}\n</tool_call>{% endfor %}'
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""nano's frame, with what the model is shown in the role that TRL's loop gives it."""


def with_tool_roles(processor: Any) -> Any:
    """nano's processor as TRL's loop needs it: it renders what a tool says, and knows a tool call when it reads one."""
    processor.chat_template = processor.tokenizer.chat_template = TEMPLATE
    processor.tokenizer.response_template = qwen3_template
    return processor


def rows(samples: Sequence[Sample], ours: ZoomEnvironment) -> list[dict[str, Any]]:
    """TRL's data set for `environment`; the image and the question come from there."""
    prompt = [
        {"role": "system", "content": protocol.system_prompt(ours.settings.system)},
        {"role": "user", "content": ""},
    ]
    return [{"prompt": prompt, "number": number} for number in range(len(samples))]


def environment(samples: Sequence[Sample], ours: ZoomEnvironment) -> type[Any]:
    """TRL's `environment_factory`. What the zoom raises, as for arguments that are of no use, TRL tells the model."""

    class Environment:
        def reset(self, number: int, **_: Any) -> list[dict[str, Any]]:
            self.sample = samples[number]
            self.views = [ours.reset(self.sample)]
            _, question = protocol.opening(self.sample, self.views[0], system=ours.settings.system)
            return self._with_pixels(question)

        def image_zoom_in_tool(self, bbox_2d: list[int], image: int = 0) -> list[dict[str, Any]]:
            """Zoom.

            Args:
                bbox_2d: A box.
                image: Of which image.
            """
            (found,) = ours.step((Zoom(tuple(bbox_2d), image),), self.views)
            (message,) = protocol.observation_messages([found], len(self.views), system=ours.settings.system)
            if found.view is not None:
                self.views.append(found.view)
            return self._with_pixels(message)

        def _with_pixels(self, message: protocol.Message) -> list[dict[str, Any]]:
            return [
                {"type": "image", "image": ours.image(self.sample, self.views[part["view"]])}
                if part["type"] == "image"
                else part
                for part in message["content"]
            ]

    return Environment
