"""Stored trajectories of many runs as training data of one forecaster."""

import hashlib
import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from typing_extensions import override

from ...forecast import Case
from ...models import FittableForecaster, FittingError
from ...models.fitting import Examples
from ...models.trainable import TrainableForecaster, TrainingItems
from ..errors import OptionError
from ..run_cases import CaseRequest, RunCases, read_cases
from .split import Split


class ItemBatches:
    """The batches that `TrainableForecaster.fit_to` would draw, one after the other.

    Which items are in batch k depends on the state of the generator and on k only. It is a "stateful" loader to
    Lightning, which keeps its position in checkpoints, so that a resumed training goes on with the very next batch.

    Args:
        forecaster: says how many items a batch has, and draws them.
        items: to choose from.
        num_steps: batches altogether.
        generator_state: as of `torch.Generator.get_state`, before the first batch.
    """

    def __init__(
        self, forecaster: TrainableForecaster, items: TrainingItems, num_steps: int, generator_state: Tensor
    ) -> None:
        self._forecaster = forecaster
        self._items = items
        self._num_steps = num_steps
        self._generator = torch.Generator()
        self._generator.set_state(generator_state)
        self._next_step = 0

    def __len__(self) -> int:
        return self._num_steps

    def __iter__(self) -> Iterator[TrainingItems]:
        while self._next_step < self._num_steps:
            # Counted before it is handed out: a checkpoint written while the batch is worked on does not repeat it.
            self._next_step += 1
            yield self._forecaster.batch(self._items, self._generator)

    def state_dict(self) -> dict[str, Any]:
        """The position, for Lightning's checkpoints."""
        return {"next_step": self._next_step, "generator": self._generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a stored position; more steps than it was made for are no obstacle."""
        self._next_step = int(state["next_step"])
        self._generator.set_state(state["generator"])


class WholeBatch:
    """All items in one batch; a class of its own, as Lightning takes a list for several loaders.

    Args:
        items: the batch.
    """

    def __init__(self, items: TrainingItems) -> None:
        self._items = items

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[TrainingItems]:
        yield self._items


class Start(NamedTuple):
    """What the training of a network starts from, all drawn from one generator, in the order of `fit_forecaster`."""

    examples: Examples
    network: nn.Module
    training: TrainingItems
    validation: TrainingItems
    generator_state: Tensor


class RunsData(pl.LightningDataModule):
    """Cases of many recorded runs, those of some runs for training and those of the others for validation.

    Args:
        forecaster: what they are for.
        split: which runs.
        request: which cases of each.
        seed: of the network to start from, of the choice of coordinates where the forecaster makes one, of the batches.
        num_iterations: batches altogether.

    Attributes:
        training: cases by run, once `setup` was called.
        validation: the same for the runs kept apart.
    """

    def __init__(
        self, forecaster: FittableForecaster, split: Split, request: CaseRequest, seed: int, num_iterations: int
    ) -> None:
        super().__init__()
        self.training: list[RunCases] = []
        self.validation: list[RunCases] = []
        self._forecaster = forecaster
        self._split = split
        self._request = request
        self._seed = seed
        self._num_iterations = num_iterations
        self._start: Start | None = None

    @override
    def setup(self, stage: str) -> None:
        if not self.training:
            self.training = [read_cases(run, self._request) for run in self._split.training]
            self.validation = [read_cases(run, self._request) for run in self._split.validation]

    @property
    def training_cases(self) -> list[Case]:
        """Those of all training runs, run by run."""
        return [case for run in self.training for case in run.cases]

    @property
    def validation_cases(self) -> list[Case]:
        """Those of all validation runs, run by run."""
        return [case for run in self.validation for case in run.cases]

    @property
    def digest(self) -> str:
        """SHA-256, in hexadecimal, of everything that decides what is learned, but for the number of iterations."""
        forecaster = self._forecaster
        trained = (
            [forecaster.batch_size, forecaster.learning_rate, forecaster.check_every, forecaster.patience]
            if isinstance(forecaster, TrainableForecaster)
            else []
        )
        request = self._request
        parts = [
            [forecaster.name, forecaster.options, *trained, self._seed],
            [request.horizons, request.spacing, request.per_run],
            [[run.digest for run in part] for part in (self.training, self.validation)],
        ]
        if request.with_graph:
            graphs = {case.window.graph.digest for case in self.training_cases if case.window.graph is not None}
            parts.append(sorted(graphs))
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def explained(self, error: FittingError) -> str:
        """What an error says, with the run that the case in it is of."""
        text = str(error)
        named = re.search(r"Case (\d+)", text)
        folders = [run.run.folder for part in (self.training, self.validation) for run in part for _ in run.cases]
        if named is None or int(named[1]) >= len(folders):
            return text
        return f"{text} (Case {named[1]} is of {folders[int(named[1])]}.)"

    @property
    def start(self) -> Start:
        """What training starts from; made once, equal for equal seeds.

        Raises:
            OptionError: if the forecaster is not trained by gradients.
            FittingError: if the cases do not do.
        """
        if self._start is None:
            forecaster = self._forecaster
            if not isinstance(forecaster, TrainableForecaster):
                raise OptionError(f"{forecaster.name!r} is not trained in batches; use `fit_forecaster`.")
            generator = torch.Generator().manual_seed(self._seed)
            try:
                examples = Examples.of(self.training_cases, forecaster, self.validation_cases)
                network, training, validation = forecaster.start(examples, generator)
            except FittingError as error:
                raise FittingError(self.explained(error)) from error
            self._start = Start(examples, network, training, validation, generator.get_state())
        return self._start

    @override
    def train_dataloader(self) -> ItemBatches:
        forecaster = self._forecaster
        start = self.start
        assert isinstance(forecaster, TrainableForecaster)  # `start` refuses others
        return ItemBatches(forecaster, start.training, self._num_iterations, start.generator_state)

    @override
    def val_dataloader(self) -> WholeBatch:
        return WholeBatch(self.start.validation)
