"""One of two processes that train together and jump: `python skip_ahead_peer.py RANK PORT FOLDER KIND`."""

import json
import os
import sys
import warnings
from pathlib import Path

import torch


def main(rank: int, port: str, folder: Path, kind: str) -> None:
    """Train, and leave weights and jumps in the folder."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "LOCAL_RANK": str(rank), "NODE_RANK": "0"}
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    import lightning.pytorch as pl
    from lightning.pytorch.strategies import DDPStrategy
    from small_runs import Digits, probe

    from deadreckon.callbacks import SkipAhead
    from deadreckon.experiments.tasks import Batches, load_task
    from deadreckon.experiments.training import quiet_lightning
    from deadreckon.forecast.jump import JumpPolicy
    from deadreckon.models import make_forecaster

    verify = load_task("digits").verify
    images, labels = verify.inputs[rank::2], verify.labels[rank::2]
    batches = list(zip(images.split(32), labels.split(32), strict=True))[: 3 if kind != "uneven" else 3 + rank]
    skip_ahead = SkipAhead(
        make_forecaster("linear", history=3),
        every=6,
        horizons=(2, 4),
        probe=probe,
        batches=batches,
        policy=JumpPolicy("worth_it" if kind == "clock" else "strict", num_standard_errors=0.0, max_relative_scale=1e9),
        cool_down=1,
        step_scales=(1.0, 0.5) if kind == "clock" else (1.0,),
        cost_share=0.5 if kind == "clock" else None,
        batch_size=32,
        spacing=2,
    )
    module = Digits(dropout=0.0)
    with quiet_lightning():
        trainer = pl.Trainer(
            accelerator="cpu",
            devices=2,
            strategy=DDPStrategy(process_group_backend="gloo"),
            max_steps=60,
            callbacks=[skip_ahead],
            logger=False,
            enable_checkpointing=False,
            enable_model_summary=False,
            enable_progress_bar=False,
            use_distributed_sampler=False,
        )
        trainer.fit(module, Batches(load_task("digits").train, 32, 60, seed=rank))
    jumps = [
        {**jump.to_dict(), "costs": {}, "wall_seconds": 0, "margin": repr(jump.margin), "credited": repr(jump.credited)}
        for jump in skip_ahead.jumps
    ]
    (folder / f"{rank}.json").write_text(json.dumps(jumps))
    torch.save(module.state_dict(), folder / f"{rank}.pt")


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), sys.argv[4])
