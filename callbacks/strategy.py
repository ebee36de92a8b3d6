"""DDP for Lightning with communication hooks on every device, and the codec in one line."""

from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.overrides.distributed import _register_ddp_comm_hook
from lightning.pytorch.strategies import DDPStrategy
from torch.nn.parallel import DistributedDataParallel
from typing_extensions import override

from ..codec import CodecConfig
from ..codec.distributed import ExchangeConfig
from .compression import GradientCompression
from .support import find_callback


class HookedDDP(DDPStrategy):
    """Lightning's DDPStrategy, which registers `ddp_comm_hook` on the CPU, too, where Lightning silently leaves it out.

    Takes the arguments of `DDPStrategy`.
    """

    @override
    def _register_ddp_hooks(self) -> None:
        if self._ddp_comm_hook is None:
            return
        assert isinstance(self.model, DistributedDataParallel)
        _register_ddp_comm_hook(
            model=self.model,
            ddp_comm_state=self._ddp_comm_state,
            ddp_comm_hook=self._ddp_comm_hook,
            ddp_comm_wrapper=self._ddp_comm_wrapper,
        )


class CompressedDDP(HookedDDP):
    """DDP whose gradients go through the codec: adds a `GradientCompression` to the Trainer, unless it has one.

    Args:
        codec: the codec's settings, or those that differ from its defaults by name, as in YAML.
        exchange: how ranks exchange.
        kwargs: of `DDPStrategy`, such as `find_unused_parameters`.

    Example:
        >>> strategy = CompressedDDP(CodecConfig(nmse=0.5, feedback="classic"))
        >>> trainer = pl.Trainer(accelerator="cpu", devices=2, strategy=strategy, logger=False)
    """

    def __init__(
        self, codec: CodecConfig | dict[str, Any] | None = None, exchange: ExchangeConfig | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self._compression = GradientCompression(codec, exchange)

    @override
    def setup_environment(self) -> None:
        module = self.lightning_module
        if module is not None:
            add_callback(module.trainer, self._compression)
        super().setup_environment()


def add_callback(trainer: pl.Trainer, callback: GradientCompression) -> None:
    """Append a callback, before training begins, unless there is one of its kind."""
    if find_callback(trainer, GradientCompression) is None:
        trainer.callbacks.append(callback)  # pyright: ignore[reportAttributeAccessIssue]
