"""What vLLM is to TRL, with nano behind it: the server's endpoints over HTTP, and an `LLM`.

Requests and responses have the form of vLLM 0.30's `/v1/chat/completions/render` and `/inference/v1/generate` as TRL 1.16's
`VLLMClient` writes and reads them; the client is TRL's own. Weights are not sent over NCCL but copied.

As a program, one process of two: `torchrun ... nano_vllm.py server URL SCENES OUTPUT`, or `colocate`.
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import groupby
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from PIL import Image
from trl.generation import vllm_client
from trl.generation.vllm_generation import VLLMGeneration

from cof_agent.backends.checkpoint import load
from cof_agent.backends.local.decode import Generated, Prompt
from cof_agent.backends.local.policy import LocalPolicy
from cof_agent.backends.vllm.policy import VLLMPolicy
from cof_agent.config import AgentConfig
from cof_agent.data.samples import read_samples
from cof_agent.environment import ZoomEnvironment
from cof_agent.episodes import episodes
from cof_agent.nano import NANO
from cof_agent.policy import Sampling
from cof_agent.trajectory import Sample
from rl.rollout import Rollout, roll_out
from rl.vllm import Engine, engine_of, rounds_of


class NanoEngine:
    """Tokens and their log-probabilities, from what a request says."""

    def __init__(self, policy: LocalPolicy) -> None:
        self.policy = policy
        self.model = policy._decoder._model
        self._one = threading.Lock()

    def write(
        self, ids: list[int], images: Sequence[Image.Image], asked: dict[str, Any]
    ) -> tuple[list[int], list[float]]:
        assert asked["n"] == 1
        assert asked["logprobs"] == 0
        assert set(asked["stop_token_ids"]) == self.policy.stop_ids
        assert {int(token): bias for token, bias in asked["logit_bias"].items()} == dict.fromkeys(
            self.policy.unspeakable, -100.0
        )
        _, pictures = self.policy.read(self.policy._processor.image_token * len(images), images)
        sampling = Sampling(asked["max_tokens"], asked["temperature"], asked["top_p"], asked["seed"])
        reply: Generated = asyncio.run(self.policy.complete(Prompt(ids, pictures, sampling)))
        with self._one:
            return reply.ids, self._logprobs(ids, reply.ids, pictures, sampling.temperature or 1.0)

    @torch.inference_mode()
    def _logprobs(self, ids: list[int], written: list[int], pictures: list[Any], temperature: float) -> list[float]:
        whole = torch.tensor([ids + written])
        logits = self.model(
            input_ids=whole,
            pixel_values=torch.cat([picture.patches for picture in pictures]),
            image_grid_thw=torch.tensor([picture.grid for picture in pictures]),
            mm_token_type_ids=(whole == self.policy._image_token_id).int(),
        ).logits[0, len(ids) - 1 : -1]
        chances = (logits / temperature).log_softmax(-1)
        return [float(row[token]) for row, token in zip(chances, written, strict=True)]


class NanoServer:
    """`asked`: the bodies of what came to `/inference/v1/generate`. `resizes`, `refuses`: what may be wrong with a server."""

    def __init__(self, policy: LocalPolicy, *, longest: int = 32768) -> None:
        self.engine, self.longest = NanoEngine(policy), longest
        self.asked: list[dict[str, Any]] = []
        self.rendered = 0
        self.resizes = self.refuses = False
        self.precision = "torch.float32"

    def get(self, path: str) -> Any:
        if path == "/v1/models":
            return {"data": [{"id": "nano"}]}
        if path.startswith("/server_info"):
            told = {"max_model_len": self.longest, "dtype": self.precision, "logprobs_mode": "processed_logprobs"}
            return {"vllm_config": {"model_config": told}}
        return {}

    def post(self, path: str, body: dict[str, Any]) -> Any:
        ways = {"/v1/chat/completions/render": self._render, "/inference/v1/generate": self._generate}
        return ways[path](body) if path in ways else {}

    def _render(self, body: dict[str, Any]) -> Any:
        (message,) = body["messages"]
        data = [part["image_url"]["url"].partition("base64,")[2] for part in message["content"]]
        self.rendered += len(data)
        sizes = [_opened(one).size for one in data]
        lengths = [(width // 28) * (height // 28) - self.resizes for width, height in sizes]
        places = [{"offset": 3, "length": length} for length in lengths]
        features = {"mm_hashes": {"image": data}, "mm_placeholders": {"image": places}, "kwargs_data": {"image": data}}
        return {"features": features}

    def _generate(self, body: dict[str, Any]) -> Any:
        self.asked.append(body)
        features, ids = body["features"], body["token_ids"]
        places = features["mm_placeholders"]["image"]
        pad = self.engine.policy._image_token_id
        assert [(one["offset"], one["length"]) for one in places] == list(_runs(ids, pad))
        images = [_opened(one) for one in features["kwargs_data"]["image"]]
        written, logprobs = self.engine.write(ids, images, body["sampling_params"])
        content = [
            {"token": f"token_id:{token}", "logprob": value, "top_logprobs": []}
            for token, value in zip(written, logprobs, strict=True)
        ]
        return {"choices": [{"index": 0, "token_ids": written, "logprobs": {"content": content}}]}

    @contextmanager
    def up(self) -> Iterator[str]:
        """On loopback; gives its address."""
        nano = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self._send(200, nano.get(self.path))

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])) or "{}")
                if nano.refuses:
                    self._send(400, {"error": "no room on the device"})
                else:
                    self._send(200, nano.post(self.path, body))

            def _send(self, code: int, value: Any) -> None:
                data = json.dumps(value).encode()
                self.send_response(code)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: Any) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            server.server_close()


def _opened(data: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")


def _runs(ids: list[int], pad: int) -> Iterator[tuple[int, int]]:
    """Offset and length of each run of image tokens."""
    offset = 0
    for token, run in groupby(ids):
        length = len(list(run))
        if token == pad:
            yield offset, length
        offset += length


class NanoLLM:
    """vLLM's `LLM`: it makes as many image tokens of each one as the image has merged patches. `calls`: requests in each."""

    def __init__(self, policy: LocalPolicy, *, longest: int = 32768) -> None:
        self._engine = NanoEngine(policy)
        config = SimpleNamespace(max_model_len=longest, dtype=torch.float32)
        self.calls: list[int] = []
        self.events: list[str] = []
        self.llm_engine = SimpleNamespace(
            model_config=config, reset_encoder_cache=lambda: self.events.append("no features")
        )

    def generate(self, prompts: list[Any], *, sampling_params: list[SimpleNamespace], use_tqdm: bool) -> list[Any]:
        assert not use_tqdm
        self.calls.append(len(prompts))
        return [self._one(*pair) for pair in zip(prompts, sampling_params, strict=True)]

    def _one(self, prompt: dict[str, Any], asked: SimpleNamespace) -> Any:
        pad, images = self._engine.policy._image_token_id, prompt["multi_modal_data"]["image"]
        cells = iter((image.width // 28) * (image.height // 28) for image in images)
        ids = [one for token in prompt["prompt_token_ids"] for one in [token] * (next(cells) if token == pad else 1)]
        assert next(cells, None) is None
        written, logprobs = self._engine.write(ids, images, vars(asked))
        told = [{token: SimpleNamespace(rank=1, logprob=value)} for token, value in zip(written, logprobs, strict=True)]
        return SimpleNamespace(prompt_token_ids=ids, outputs=[SimpleNamespace(token_ids=written, logprobs=told)])

    def wake_up(self, tags: list[str]) -> None:
        self.events += tags

    def sleep(self, level: int) -> None:
        self.events.append(f"sleep {level}")

    def reset_prefix_cache(self) -> None:
        self.events.append("reset")


class Generation(VLLMGeneration):
    """TRL's, for a machine without vLLM and CUDA: in server mode it sends weights nowhere, in colocate mode to `llm`."""

    llm: NanoLLM

    def _init_vllm(self) -> None:
        if self.mode == "server" and self.accelerator.is_main_process:
            vllm_client.is_vllm_available = lambda *_, **__: True
            self.vllm_client = vllm_client.VLLMClient(base_url=self.server_base_url)
        self._llm_weights_sleeping = self.enable_sleep_mode
        self.synced = 0

    def sync_weights(self) -> None:
        self.synced += 1
        self._llm_weights_sleeping = False


def play(
    engine: Engine, local: LocalPolicy, samples: list[Sample], temperature: float = 0.0, seed: int = 0
) -> list[Rollout]:
    """Rollouts of `samples`, written by the engine; their seeds count from `seed`."""
    rounds = rounds_of(len(samples))
    model = local._decoder._model
    policy = VLLMPolicy(model, local._processor, name="nano", longest=engine.longest, ask=rounds.ask)
    return rounds.play(
        lambda: roll_out(
            episodes(samples),
            policy,
            AgentConfig(max_tokens=96, temperature=temperature),
            ZoomEnvironment(),
            budget=2048,
            seeds=[seed + index for index in range(len(samples))],
            on_end=rounds.leave,
        ),
        engine.answer,
    )


def main() -> None:
    """One process of two, with other numbers of conversations: the first has one, the second three."""
    from accelerate import Accelerator

    mode, url, scenes, output = sys.argv[1:]
    torch.set_num_threads(1)
    accelerator = Accelerator(cpu=True)
    rank = accelerator.process_index
    local = load(NANO)
    options = {"server_base_url": url} if mode == "server" else {"tensor_parallel_size": 2}
    generation = Generation(local._decoder._model, accelerator, local._processor, mode=mode, **options)
    if mode == "colocate":
        generation.llm = NanoLLM(local)
        generation.tp_group = torch.distributed.new_group([0, 1])
        sys.modules["vllm"] = SimpleNamespace(SamplingParams=SimpleNamespace)  # type: ignore[assignment]
    samples = read_samples(scenes)
    mine, seed = (samples[:1], 0) if rank == 0 else (samples[1:4], 1)
    found = play(engine_of(generation, accelerator, local._image_token_id, "float32"), local, mine, 1.0, seed)
    told = {
        "completions": [one.completion for one in found],
        "turns": [len(one.trajectory.turns) for one in found],
        "calls": generation.llm.calls if mode == "colocate" else [],
    }
    (Path(output) / f"{rank}.json").write_text(json.dumps(told))
    accelerator.wait_for_everyone()
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
