"""TRL's client, for several servers: weights go to all that answer; one that was restarted is met again before it gets any.

Private to TRL 1.16, and used here: `VLLMClient`'s `_post`, through which all its requests for weights go, `communicator`,
`base_url`, `_updating_weights`, `init_communicator` and `close_communicator`. Each server has a port for weights of its own,
counted from `vllm_group_port`. This can go once TRL's client takes several servers.
"""

from __future__ import annotations

import json
import logging
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from trl.generation.vllm_client import VLLMClient

from cof_agent.errors import InputError, said
from rl.engines.servers import LOOK, VERSION

_log = logging.getLogger(__name__)

AGAIN = 2.0  # seconds between two looks at servers none of which answers
ALIKE = ("dtype", "max_model_len")
"""What all servers of a run must have alike: another type samples from other probabilities, a shorter one refuses turns."""
UPDATE = 900.0  # seconds in which a server takes an update of the weights


class Fleet(VLLMClient):
    """The servers of a run, in the process that sends the weights.

    first: TRL's own client of one of the `urls`. device: from which weights are sent. timeout: seconds to wait while no server
    answers.
    """

    def __init__(self, first: VLLMClient, urls: Sequence[str], device: Any, timeout: float) -> None:
        self.base_url, self.communicator, self._updating_weights = "", _Everyone(self), False
        self._timeout = timeout
        others = [url for url in urls if url != first.base_url]
        self.members = [
            _Member(url, first.group_port + number, device) for number, url in enumerate([first.base_url, *others])
        ]
        self.config: dict[str, Any] = first.get_server_info()["model_config"]
        for member in self.members:
            member.alike = {name: self.config[name] for name in ALIKE}
        self.members[0].adopt(first)

    @property
    def here(self) -> list[_Member]:
        """Those that can be sent weights."""
        return [member for member in self.members if member.client is not None]

    def meet(self) -> None:
        """Finds out which servers answer; waits for the first if none does.

        Raises:
            InputError: if none comes.
        """
        deadline = time.monotonic() + self._timeout
        while True:
            for member in self.members:
                member.meet()
            if self.here:
                return
            if time.monotonic() > deadline:
                told = "; ".join(f"{member.url}: {member.reason}" for member in self.members)
                raise InputError(f"no vLLM server could be reached in {self._timeout:.0f} seconds ({told}).")
            time.sleep(AGAIN)

    def finish(self) -> tuple[list[str], str]:
        """Drops features of images that older weights made, gives the weights that were sent a name, and lets servers answer.

        Returns the servers that have them, and the name.
        """
        self._post("/reset_encoder_cache")
        version = uuid.uuid4().hex
        for member in self.here:
            member.call(member.name_weights, version)
        self._post("/resume")
        return [member.url for member in self.here], version

    def give_up(self) -> None:
        """Raises:
        InputError: with what each server last said.
        """
        told = "; ".join(f"{member.url}: {member.reason}" for member in self.members)
        raise InputError(f"no vLLM server takes the weights ({told}).")

    def _start_weight_update(self) -> None:
        for member in self.here:
            member.call(member.start)

    def _post(self, url: str, **given: Any) -> dict[str, Any]:
        """To all servers at the same time; one that fails is left out from then on."""
        with ThreadPoolExecutor(max(1, len(self.here))) as pool:
            list(pool.map(lambda member: member.call(member.post, url, given.get("json")), self.here))
        return {}


def first_there(urls: Sequence[str], timeout: float) -> str:
    """The first of the servers that answers; waits for one. The first of all if none comes: TRL says so.

    timeout: in seconds.
    """
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        for url in urls:
            if _is_up(url):
                return url
        time.sleep(AGAIN)
    return urls[0]


def _is_up(url: str) -> bool:
    try:
        _ask(f"{url}/health", LOOK)
    except Exception:  # of sockets and of HTTP: there is no server yet, and TRL says so in the end
        return False
    return True


def _ask(url: str, timeout: float, body: bytes | None = None) -> Any:
    """What a server answers to a GET, or a POST of JSON; it must be able to do what it is asked."""
    try:
        with urlopen(Request(url, body, {"content-type": "application/json"}), timeout=timeout) as answer:
            return json.loads(answer.read() or "null")
    except HTTPError as error:
        raise RuntimeError(f"{url} failed with status {error.code}: {error.read(300).decode()}") from error


class _Everyone:
    """What sends a tensor to the workers of all servers, as one `PyNcclCommunicator` does to those of one."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    def broadcast(self, tensor: Any, src: int) -> None:
        for member in self._fleet.here:
            member.call(member.broadcast, tensor, src)


class _Member:
    """A server. client: TRL's, None while the server is not there. reason: why it is not."""

    def __init__(self, url: str, port: int, device: Any) -> None:
        self.url, self._port, self._device = url, port, device
        self.client: VLLMClient | None = None
        self.reason = "it was never asked"
        self.alike: dict[str, Any] = {}  # what its configuration must have, as that of the others
        self._version = ""

    def adopt(self, client: VLLMClient) -> None:
        """Takes a client that has met its server."""
        self.client = client
        self.call(self.name_weights, uuid.uuid4().hex)

    def meet(self) -> None:
        """Looks whether the server is the one that was met, and meets it if it is not."""
        if self.client is not None:
            self.call(self._check)
        if self.client is None:
            self._join()

    def call(self, send: Callable[..., None], *arguments: Any, **given: Any) -> None:
        """Without the server from then on, should it fail."""
        try:
            send(*arguments, **given)
        except Exception as error:  # of HTTP, of NCCL, and TRL's plain `Exception`
            self._leave(said(error))

    def post(self, path: str, body: Any = None) -> None:
        answer = _ask(f"{self.url}{path}", UPDATE, json.dumps(body).encode())
        if isinstance(answer, dict) and answer.get("success") is False:
            raise RuntimeError(f"{self.url}{path} did nothing")

    def start(self) -> None:
        """Readies the server for weights; it may still be waiting for those of a trainer that was killed.

        Whatever it is answering is broken off: without whole weights vLLM's engine would die of it, and its keys and values
        would outlive them.
        """
        self.post("/pause?mode=abort&clear_cache=false")
        try:
            self.post("/start_weight_update", {})
        except RuntimeError:
            self.post("/finish_weight_update", {})
            self.post("/start_weight_update", {})

    def broadcast(self, tensor: Any, src: int) -> None:
        if self.client is not None:
            self.client.communicator.broadcast(tensor, src=src)

    def name_weights(self, version: str) -> None:
        self.post("/update_weight_version", {"new_version": version})
        self._version = version

    def _check(self) -> None:
        """A server that was restarted does not know how the weights were called."""
        if _ask(f"{self.url}{VERSION}", LOOK).get("weight_version") != self._version:
            raise RuntimeError("it was restarted")

    def _join(self) -> None:
        try:
            _ask(f"{self.url}/health", LOOK)
            client = VLLMClient(base_url=self.url, group_port=self._port)
            found = client.get_server_info()["model_config"]
            for name, value in self.alike.items():
                if found[name] != value:
                    raise RuntimeError(f"its {name} is {found[name]}, and that of the first server {value}")
            client.init_communicator(device=self._device)
        except Exception as error:  # as in `call`
            self.reason = said(error)
            return
        self.adopt(client)
        _log.warning("The vLLM server %s is there.", self.url)

    def _leave(self, reason: str) -> None:
        self.reason = reason
        if self.client is None:
            return
        _log.warning("The vLLM server %s is left out: %s.", self.url, reason)
        client, self.client = self.client, None
        client.close_communicator()
