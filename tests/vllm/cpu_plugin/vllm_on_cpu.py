"""What TRL's weight transfer needs of vLLM's build for CPUs; vLLM loads the plugin in each of its processes.

On a GPU vLLM keeps a layer's weight as the checkpoint has it, and TRL sends new ones over NCCL. The build for CPUs packs the
weight away where nothing can be loaded over it, and knows no NCCL. Here the weights stay, and travel over the TCP store
at which the NCCL group would have met. All else is vLLM's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from vllm.distributed.utils import StatelessProcessGroup

TRAINER = 0
"""The rank of the process that sends the weights; the workers follow it."""


def plugin() -> None:
    """Entry point of vLLM's plugins."""
    import vllm._custom_ops as operators
    from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory
    from vllm.model_executor.layers import utils

    operators._supports_onednn = False
    utils.check_cpu_sgl_kernel = lambda *_: False
    WeightTransferEngineFactory._registry["nccl"] = receiver


def receiver() -> type[Any]:
    """vLLM's engine for NCCL, with another way for the bytes."""
    from vllm.distributed.weight_transfer.nccl_engine import NCCLWeightTransferEngine

    class StoreReceiver(NCCLWeightTransferEngine):
        def init_transfer_engine(self, init_info: Any) -> None:
            parallel = self.parallel_config
            rank = init_info.rank_offset + parallel.data_parallel_index * parallel.world_size + parallel.rank
            self.model_update_group = StatelessProcessGroup.create(
                init_info.master_address, init_info.master_port, rank, init_info.world_size
            )

        def receive_weights(self, update_info: Any) -> None:
            for name in update_info.names:
                self.model.load_weights([(name, self.model_update_group.broadcast_obj(None, TRAINER))])

    return StoreReceiver


def send_over_the_store() -> None:
    """The trainer's side: TRL's client meets the server's workers at the store, and sends there."""
    from trl.generation import vllm_client

    vllm_client.VLLMClient.init_communicator = _meet
    vllm_client.packed_nccl_broadcast_producer = _send


def _meet(client: Any, device: Any = None) -> None:
    size = client.get_world_size() + 1
    where = {"master_address": "127.0.0.1", "master_port": client.group_port}
    told = {"init_info": {**where, "rank_offset": TRAINER + 1, "world_size": size}}
    with ThreadPoolExecutor(1) as pool:  # the server answers once all have met
        answer = pool.submit(client._post, f"{client.base_url}/init_weight_transfer_engine", json=told)
        client.communicator = Sender(StatelessProcessGroup.create(*where.values(), TRAINER, size))
        answer.result()


class Sender:
    """The store in the place of vLLM's `PyNcclCommunicator`."""

    def __init__(self, group: StatelessProcessGroup) -> None:
        self.group = group

    def broadcast(self, tensor: Any, src: int) -> None:
        self.group.broadcast_obj(tensor, src)


def _send(iterator: Iterable[Any], group: Any, src: int, post_iter_func: Callable[[Any], Any], **_: Any) -> None:
    for item in iterator:
        group.broadcast(post_iter_func(item).detach().clone(), src=src)
