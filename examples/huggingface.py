"""A language model of Hugging Face's transformers under Lightning: recorded, and trained through the codec.

    pip install transformers
    python examples/huggingface.py --steps 200 --out runs/gpt2

The model is a small GPT-2 with random weights that learns the characters of a module of Python's own library, so that
nothing is downloaded. For yours, replace `make_model` by `AutoModelForCausalLM.from_pretrained(...)`.
"""

import argparse
import inspect
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset
from transformers import GPT2Config, GPT2LMHeadModel  # pyright: ignore[reportMissingImports]  # not a requirement
from typing_extensions import override

from deadreckon.callbacks import GradientCompression, SkipAhead, TrajectoryRecorder
from deadreckon.codec import CodecConfig
from deadreckon.forecast import Trajectory, cases, score
from deadreckon.models import make_forecaster

LENGTH = 32  # characters that the model sees at once
NUM_SYMBOLS = 128


def make_model() -> nn.Module:
    """A GPT-2 of about 30,000 parameters; its embedding and its last layer are one tensor, which is recorded once."""
    size = {"n_layer": 2, "n_head": 2, "n_embd": 32, "n_positions": LENGTH, "vocab_size": NUM_SYMBOLS}
    return GPT2LMHeadModel(GPT2Config(**size, bos_token_id=0, eos_token_id=0, resid_pdrop=0.0, attn_pdrop=0.0))


def some_text() -> Tensor:
    """Characters of a module's source as numbers, `[sample, character]`."""
    codes = [ord(sign) % NUM_SYMBOLS for sign in inspect.getsource(argparse)]
    return torch.tensor(codes[: len(codes) // LENGTH * LENGTH]).view(-1, LENGTH)


class Language(pl.LightningModule):
    """Any model of transformers that gives logits."""

    def __init__(self) -> None:
        super().__init__()
        self.model = make_model()

    def losses(self, tokens: Tensor) -> Tensor:
        """The loss of each sample, `[sample]`."""
        logits = self.model(input_ids=tokens).logits[:, :-1]
        errors = functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten(), reduction="none")
        return errors.view(len(tokens), -1).mean(dim=1)

    @override
    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        return self.losses(batch[0]).mean()

    @override
    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=0.003)


def probe(module: Any, batch: Tensor) -> Tensor:
    """The loss of each held-out sample, by which a jump is judged."""
    return module.losses(batch)


def main() -> None:
    """Train once, and print what the callbacks did and how well the recorded weights can be forecast."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--out", default="runs/gpt2")
    given = parser.parse_args()

    pl.seed_everything(0, verbose=False)
    text = some_text()
    held_out, training = text[:64], text[64:]
    recorder = TrajectoryRecorder(f"{given.out}/trajectory", every=5)
    codec = GradientCompression(CodecConfig("none", nmse=0.1))
    jumps = SkipAhead("linear", every=50, horizons=(5, 10), probe=probe, batches=[held_out])
    trainer = pl.Trainer(
        max_steps=given.steps,
        accelerator="cpu",
        logger=False,
        callbacks=[recorder, codec, jumps],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    module = Language()
    trainer.fit(module, DataLoader(TensorDataset(training), batch_size=32, shuffle=True))

    module.eval()
    with torch.no_grad():
        print(f"loss on held-out text: {probe(module, held_out).mean():.3f} nats a character")
    print(f"gradients took {codec.bits_per_coordinate:.2f} bits a coordinate instead of 32")
    for jump in jumps.jumps:
        print(f"step {jump.step}: {jump.outcome.value}")
    with Trajectory.open(f"{given.out}/trajectory") as trajectory:
        print(f"{trajectory.layout.size} parameters, {len(trajectory.stream('weights'))} rows of them recorded")
        forecaster = make_forecaster("outer_momentum")
        for result in score(forecaster, cases(trajectory, "weights", forecaster.history, horizons=[5, 10])):
            print(f"{forecaster.name}, {result.horizon} steps ahead: skill {result.skill:+.2f}")


if __name__ == "__main__":
    main()
