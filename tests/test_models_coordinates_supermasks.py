"""Supermasks: one fixed network, a mask a task, and finding the task."""

import copy
import hashlib
import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn import functional

from deadreckon.forecast import Layout, TensorSpec
from deadreckon.models import ModelError, ModelFileError
from deadreckon.models.coordinates import (
    Hopfield,
    Supermasks,
    choose_layout,
    entropy_gradient,
    infer_task,
    load_supermasks,
    recall_by_entropy,
    save_supermasks,
    surest_task,
)
from deadreckon.models.coordinates.task_inference import entropy

NUM_TASKS = 4


def _module() -> nn.Sequential:
    return nn.Sequential(nn.Linear(16, 96, bias=False), nn.ReLU(), nn.Linear(96, 4, bias=False))


def _network(kept: float = 0.5) -> Supermasks:
    return Supermasks(_module(), choose_layout(_module()), kept, seed=1)


def _task(number: int, num_samples: int = 256, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Four blobs, at places of their own in each task."""
    places = 2.5 * torch.randn(NUM_TASKS, 4, 16, generator=torch.Generator().manual_seed(9))[number]
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(4, (num_samples,), generator=generator)
    return places[labels] + torch.randn(num_samples, 16, generator=generator), labels


@pytest.fixture(scope="module")
def learned() -> Supermasks:
    """A network that learned four tasks, one after the other."""
    network = _network()
    for number in range(NUM_TASKS):
        network.begin_task(number)
        optimizer = torch.optim.Adam([network.scores], 0.003)
        inputs, labels = _task(number)
        for _ in range(60):
            optimizer.zero_grad()
            functional.cross_entropy(network(inputs), labels).backward()
            optimizer.step()
        assert network.remember() == number
    return network


def _accuracy(network: Supermasks, number: int, task: int | None) -> float:
    inputs, labels = _task(number, seed=5)
    with torch.no_grad():
        return float((network(inputs, task=task).argmax(1) == labels).float().mean())


def test_fixed_weights_are_signed_constants_of_the_seed() -> None:
    """Fixed weights have one size a tensor, so that what is left has He's spread; another seed has other signs."""
    network, other = _network(0.25), Supermasks(_module(), choose_layout(_module()), 0.25, seed=2)
    first = network.weights[network.layout["0.weight"].span]
    torch.testing.assert_close(first.abs(), torch.full_like(first, math.sqrt(2 / (16 * 0.25))))
    assert 0.4 < float((first > 0).float().mean()) < 0.6
    assert not torch.equal(network.weights, other.weights)
    assert network.digest != other.digest
    assert [name for name, value in network.named_parameters() if value.requires_grad] == [
        f"scores_{network.digest[:12]}"
    ]


def test_a_mask_keeps_the_highest_scores_and_passes_the_gradient() -> None:
    """Each tensor keeps its share of the highest scores, and every score gets its masked weight's gradient."""
    network = _network(0.25)
    mask = network.mask()
    for spec in network.layout:
        part, scores = mask[spec.span], network.scores[spec.span]
        assert int(part.detach().sum()) == spec.numel // 4
        assert bool(scores[part == 1].min() > scores[part == 0].max())
    inputs = torch.sin(torch.arange(32.0)).reshape(2, 16)
    network(inputs).square().sum().backward()
    real = network.mask().detach().requires_grad_()
    network.call(real, inputs).square().sum().backward()
    torch.testing.assert_close(network.scores.grad, real.grad)
    assert int((_network(1.0).mask() == 1).sum()) == network.layout.size


def test_tasks_are_learned_and_not_forgotten(learned: Supermasks) -> None:
    """Every task is solved under its own mask after all were learned, and not under another's."""
    for number in range(NUM_TASKS):
        assert _accuracy(learned, number, number) > 0.9
        assert _accuracy(learned, number, (number + 1) % NUM_TASKS) < 0.7
    assert _accuracy(learned, NUM_TASKS - 1, None) == _accuracy(learned, NUM_TASKS - 1, NUM_TASKS - 1)


@pytest.mark.parametrize("dropped", [0.0, 0.5, 1.0])
def test_tasks_are_inferred_from_data(learned: Supermasks, dropped: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """The task of unlabelled data is found, one by one, by halves and at once, in as many gradients as that takes."""
    calls: list[int] = []

    def counted(network: Supermasks, inputs: Tensor, shares: Tensor) -> Tensor:
        calls.append(int((shares > 0).sum()))
        return entropy_gradient(network, inputs, shares)

    monkeypatch.setattr("deadreckon.models.coordinates.task_inference.entropy_gradient", counted)
    found = [infer_task(learned, _task(number, seed=6)[0], dropped) for number in range(NUM_TASKS)]
    assert found == list(range(NUM_TASKS))
    assert calls == {0.0: [4, 3, 2], 0.5: [4, 2], 1.0: [4]}[dropped] * NUM_TASKS
    assert [surest_task(learned, _task(number, seed=6)[0]) for number in range(NUM_TASKS)] == found
    assert learned.scores.grad is None or bool(torch.isfinite(learned.scores.grad).all())


def test_the_entropy_gradient_is_that_of_differences(learned: Supermasks) -> None:
    """The gradient by the shares of the masks equals difference quotients of the entropy."""
    inputs, _ = _task(0, 64)
    shares = torch.full((NUM_TASKS,), 1 / NUM_TASKS)
    gradient = entropy_gradient(learned, inputs, shares)
    masks = learned.masks().float()
    for index in range(NUM_TASKS):
        step = 1e-3 * torch.eye(NUM_TASKS)[index]
        with torch.no_grad():
            high, low = (entropy(learned.call((shares + sign * step) @ masks, inputs)) for sign in (1, -1))
        assert float(gradient[index]) == pytest.approx(float(high - low) / 2e-3, rel=0.05, abs=1e-3)
    assert float(entropy(torch.zeros(3, 4))) == pytest.approx(math.log(4))
    with pytest.raises(ModelError, match="There is no task to infer"):
        infer_task(_network(), inputs)
    with pytest.raises(ModelError, match="There is no task to infer"):
        surest_task(_network(), inputs)
    with pytest.raises(ModelError, match="`dropped` must be a number from 0 to 1"):
        infer_task(learned, inputs, 2.0)


def test_a_memory_recalls_what_it_learned(learned: Supermasks) -> None:
    """Stored masks are attractors: they come back from a fifth of their bits flipped, energy falling on the way."""
    memory = Hopfield(learned.layout.size)
    for mask in learned.masks():
        memory.store(mask)
    torch.testing.assert_close(memory.weights, memory.weights.T)
    generator = torch.Generator().manual_seed(0)
    for mask in learned.masks():
        assert torch.equal(memory.recall(mask), mask)
        damaged = mask ^ (torch.rand(mask.shape, generator=generator) < 0.2)
        assert torch.equal(memory.recall(damaged), mask)
        states = [2.0 * state.float() - 1 for state in (damaged, mask)]
        assert float(memory.energy(states[0])) > float(memory.energy(states[1]))


def test_a_memory_learns_as_storkey_says() -> None:
    """Weights after three patterns equal those of Storkey's sums, term by term."""
    memory, size = Hopfield(7), 7
    expected = torch.zeros(size, size, dtype=torch.float64)
    generator = torch.Generator().manual_seed(3)
    for _ in range(3):
        pattern = torch.rand(size, generator=generator) < 0.5
        memory.store(pattern)
        z = 2.0 * pattern.double() - 1
        before = expected.clone()
        for i in range(size):
            for j in range(size):
                h_ij = sum(float(before[i, k] * z[k]) for k in range(size) if k not in (i, j))
                h_ji = sum(float(before[j, k] * z[k]) for k in range(size) if k not in (i, j))
                expected[i, j] += (float(z[i] * z[j]) - float(z[i]) * h_ji - h_ij * float(z[j])) / size
    torch.testing.assert_close(memory.weights.double(), expected, rtol=0, atol=1e-6)
    assert memory.num_patterns == 3
    with pytest.raises(ModelError, match="A pattern must be 7 booleans"):
        memory.recall(torch.zeros(7))
    with pytest.raises(ModelError, match="`size` must be a whole number of at least 2"):
        Hopfield(1)


def test_a_mask_is_recalled_by_data_alone(learned: Supermasks) -> None:
    """From the memory and unlabelled data, without the masks, the mask of the data's task is found."""
    memory, network = Hopfield(learned.layout.size), _network()
    with pytest.raises(ModelError, match="There is nothing to recall"):
        recall_by_entropy(network, memory, torch.zeros(2, 16))
    for mask in learned.masks():
        memory.store(mask)
    found = [recall_by_entropy(network, memory, _task(number, seed=6)[0]) for number in range(NUM_TASKS)]
    assert all(torch.equal(mask, kept) for mask, kept in zip(found, learned.masks(), strict=True))
    with pytest.raises(ModelError, match="The memory must have 1920 neurons"):
        recall_by_entropy(network, Hopfield(5), torch.zeros(2, 16))


def test_a_file_takes_a_bit_a_weight(learned: Supermasks, tmp_path: Path) -> None:
    """Masks come back from a file of one bit a weight and task, and a header; outputs are equal bit for bit."""
    save_supermasks(learned, tmp_path / "masks")
    assert (tmp_path / "masks").stat().st_size < NUM_TASKS * learned.layout.size / 8 + 700
    back = load_supermasks(tmp_path / "masks", _module())
    assert torch.equal(back.masks(), learned.masks())
    inputs, _ = _task(2)
    torch.testing.assert_close(back(inputs, task=2), learned(inputs, task=2), rtol=0, atol=0)


def _digest(network: Supermasks) -> str:
    """Of the bits of each task's weights."""
    return hashlib.sha256((network.weights * network.masks()).numpy().tobytes()).hexdigest()


FRESH = """
import sys
sys.path.insert(0, sys.argv[1])
from test_models_coordinates_supermasks import _digest, _module
from deadreckon.models.coordinates import load_supermasks
print(_digest(load_supermasks(sys.argv[2], _module())))
"""


@pytest.mark.slow
def test_a_fresh_process_reads_the_same_networks(learned: Supermasks, tmp_path: Path) -> None:
    """Another process makes every task's weights from the file, bit for bit."""
    save_supermasks(learned, tmp_path / "masks")
    ran = subprocess.run(
        [sys.executable, "-c", FRESH, str(Path(__file__).parent), str(tmp_path / "masks")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout.strip() == _digest(learned)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda about, tensors: about.update(format="other"), "not of format deadreckon.supermasks"),
        (lambda about, tensors: about.update(kept=2), "`kept` must be a number from 0 to 1"),
        (lambda about, tensors: about.pop("seed"), "'seed'"),
        (lambda about, tensors: tensors.update(masks=torch.zeros(4, 3, dtype=torch.uint8)), r"shape \(4, 3\)"),
        (lambda about, tensors: tensors.update({"other.bias": torch.zeros(2)}), "bias"),
    ],
)
def test_files_that_do_not_fit_are_refused(
    learned: Supermasks,
    tmp_path: Path,
    change: Callable[[dict[str, object], dict[str, Tensor]], None],
    message: str,
) -> None:
    """A file with a part missing, changed or unknown is refused with what is wrong."""
    path = tmp_path / "masks"
    save_supermasks(learned, path)
    with safetensors.safe_open(path, framework="pt") as file:
        about = json.loads(file.metadata()["deadreckon"])
        tensors = {key: file.get_tensor(key) for key in file.keys()}
    change(about, tensors)
    path.write_bytes(safetensors.torch.save(tensors, {"deadreckon": json.dumps(about)}))
    with pytest.raises(ModelFileError, match=message):
        load_supermasks(path, _module())
    with pytest.raises(ModelFileError, match="There are no supermasks"):
        load_supermasks(tmp_path / "none", _module())
    (tmp_path / "text").write_text("hello")
    with pytest.raises(ModelFileError, match="is not a file of supermasks"):
        load_supermasks(tmp_path / "text", _module())


def test_copies_are_apart(learned: Supermasks) -> None:
    """A deep copy does what the original does, and what it learns leaves the original alone."""
    twin = copy.deepcopy(learned)
    inputs, _ = _task(1)
    torch.testing.assert_close(twin(inputs, task=1), learned(inputs, task=1), rtol=0, atol=0)
    scores = learned.scores.detach().clone()
    twin.begin_task(77)
    twin.remember()
    assert learned.num_tasks == NUM_TASKS == twin.num_tasks - 1
    torch.testing.assert_close(learned.scores.detach(), scores, rtol=0, atol=0)


def test_what_cannot_be_masked_is_refused(learned: Supermasks) -> None:
    """Shares out of range, vectors, masks of another form and unknown tasks are refused by name."""
    with pytest.raises(ModelError, match="`kept` must be a number from 0 to 1, got 1.5"):
        _network(1.5)
    with pytest.raises(ModelError, match="`kept` must leave a weight in each tensor, got 0"):
        _network(0.0)
    with pytest.raises(ModelError, match="two axes or more, got 'bias'"):
        Supermasks(nn.Linear(2, 2), Layout((TensorSpec("bias", (2,), "float32", 0, "bias"),)))
    with pytest.raises(ModelError, match="A mask must be 1920 booleans"):
        learned.add_mask(torch.zeros(1920))
    with pytest.raises(ModelError, match="there is no task 4"):
        learned(torch.zeros(1, 16), task=4)
