import gzip
import struct
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from conftest import data_folder
from torch import nn
from typing_extensions import override

from deadreckon.experiments.classifier import Classifier, evaluate, probe
from deadreckon.experiments.errors import DataError, OptionError
from deadreckon.experiments.optimizers import decay_factor, make_optimizer, make_schedule
from deadreckon.experiments.tasks import (
    Batches,
    Split,
    TaskData,
    cifar10,
    fitting_networks,
    load_task,
    make_network,
    network_names,
    sequential_batches,
    task_names,
    train_loader,
)
from deadreckon.experiments.tasks.fashion_mnist import FILES
from deadreckon.experiments.tasks.fetch import RemoteFile, cache_folder, find_files
from deadreckon.experiments.tasks.idx import MAX_ELEMENTS, read_idx
from deadreckon.experiments.tasks.shakespeare import CONTEXT, TEXT, load_shakespeare, split_text
from deadreckon.experiments.tasks.stdlib import load_stdlib
from deadreckon.forecast import layout_of

DIGEST = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"  # of hello
HELLO = RemoteFile("hello.txt", 5, DIGEST)
NOWHERE = "http://127.0.0.1:9/"


def text_task(text: bytes = b"the quick brown fox jumps over the lazy dog; " * 60) -> TaskData:
    """Next characters of a short text."""
    num_symbols = len(set(text))
    train, verify, tune, test = split_text(text)
    return TaskData("text", train, verify, tune, test, num_symbols, (CONTEXT,), "", num_symbols)


def num_parameters(network: nn.Module) -> int:
    return sum(value.numel() for value in network.parameters())


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without any data set, whose cache is empty."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("DEADRECKON_DATA", raising=False)
    monkeypatch.setattr("deadreckon.experiments.tasks.fetch.SYSTEM_FOLDER", tmp_path / "system")
    return tmp_path


def test_digits_sets_are_disjoint_whole_and_the_same_every_time() -> None:
    """The four sets of digits hold every image once, in a fixed split."""
    task, again = load_task("digits"), load_task("digits")
    sets = (task.train, task.verify, task.tune, task.test)
    assert [len(split.labels) for split in sets] == [997, 200, 200, 400]
    images = torch.cat([split.inputs for split in sets]).flatten(1)
    assert images.shape == (1797, 64)
    assert len(images.unique(dim=0)) == 1797  # no image occurs twice in this data set
    assert abs(float(images.mean())) < 0.01
    assert abs(float(images.std()) - 1) < 0.01
    assert task.train.inputs.dtype == torch.float32
    assert task.train.labels.dtype == torch.int64
    assert sorted(task.test.labels.unique().tolist()) == list(range(10))
    torch.testing.assert_close(task.test.inputs, again.test.inputs, rtol=0, atol=0)
    assert "10.24432/C50P49" in task.attribution


def test_every_named_task_and_network_exists() -> None:
    """Each name that the options allow is known to the registry; networks fit both images and texts, or say so."""
    assert task_names() == ("digits", "fashion_mnist", "teacher", "shakespeare", "stdlib", "cifar10")
    for task in (load_task("digits"), load_task("teacher"), text_task()):
        assert set(fitting_networks(task)) <= set(network_names())
        for name in fitting_networks(task):
            assert make_network(name, task, 0)(task.test.inputs[:2]).shape == (2, task.num_classes)
    assert fitting_networks(load_task("digits")) == (
        "mlp",
        "mlp_norm",
        "transformer",
        "conv",
        "conv_norm",
        "conv_batch_norm",
    )
    assert fitting_networks(load_task("teacher")) == ("mlp", "mlp_norm", "transformer")


def test_unknown_names_are_refused() -> None:
    """A wrong task, network, optimiser or schedule is named in the error."""
    network = nn.Linear(1, 1)
    with pytest.raises(
        OptionError,
        match="`task` must be one of digits, fashion_mnist, teacher, shakespeare, stdlib, cifar10, got 'mnist'",
    ):
        load_task("mnist")
    with pytest.raises(
        OptionError,
        match="`network` must be one of mlp, mlp_norm, transformer, conv, conv_norm, conv_batch_norm, got 'gpt'",
    ):
        make_network("gpt", load_task("digits"), 0)
    with pytest.raises(OptionError, match="`optimizer` must be one of adam, adamw, sgd, got 'lion'"):
        make_optimizer("lion", network.parameters(), 0.1)
    with pytest.raises(OptionError, match="`schedule` must be one of constant, linear, cosine, got 'step'"):
        decay_factor("step", 0, 10)
    with pytest.raises(OptionError, match="`num_steps` must be at least 1, got 0"):
        make_schedule("linear", make_optimizer("sgd", network.parameters(), 0.1), 0)


def test_teacher_sets_are_disjoint_and_the_same_every_time() -> None:
    """The made-up problem has four sets without a common sample, every class, and can be learned but not wholly."""
    task, again = load_task("teacher"), load_task("teacher")
    sets = (task.train, task.verify, task.tune, task.test)
    assert [len(split.labels) for split in sets] == [6_000, 500, 500, 1_000]
    inputs = torch.cat([split.inputs for split in sets]).flatten(1)
    assert inputs.shape == (8_000, 32)
    assert len(inputs.unique(dim=0)) == 8_000
    assert int(task.train.labels.bincount(minlength=10).min()) > 300
    for mine, other in zip(sets, (again.train, again.verify, again.tune, again.test), strict=True):
        assert torch.equal(mine.inputs, other.inputs)
        assert torch.equal(mine.labels, other.labels)


def test_texts_are_cut_into_stretches_without_a_common_character() -> None:
    """Contexts and next characters are those of the text, and the four sets lie one after another in it."""
    text = bytes(range(250)) * 8
    sets = split_text(text)
    position = [int(split.inputs.storage_offset()) for split in sets]
    length = [int(split.inputs.stride(0)) * (len(split.labels) - 1) + CONTEXT + 1 for split in sets]
    assert [split.inputs.stride(0) for split in sets] == [1, 8, 8, 8]
    assert length[0] == 1800
    ends = [begin + count for begin, count in zip(position, length, strict=True)]
    assert all(end <= begin for end, begin in zip(ends[:-1], position[1:], strict=True))
    for split, begin in zip(sets, position, strict=True):
        for sample in (0, len(split.labels) - 1):
            start = begin + sample * split.inputs.stride(0)
            assert bytes(split.inputs[sample].tolist()) == text[start : start + CONTEXT]
            assert int(split.labels[sample]) == text[start + CONTEXT]
            assert split.inputs.dtype == split.labels.dtype == torch.int64


def test_symbols_of_a_text_are_numbered_in_order() -> None:
    """A text's characters become the numbers from 0 on, whatever bytes they were."""
    train = split_text(b"zebra" * 200)[0]
    assert train.inputs[0, :5].tolist() == [4, 2, 1, 3, 0]
    assert int(train.inputs.max()) == 4


def test_cifar10_is_read_where_the_user_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Colours, places and labels are those of the binary version; a wrong label and a missing file are named."""
    monkeypatch.setattr(cifar10, "BATCH_SAMPLES", 4)
    monkeypatch.setattr(cifar10, "SIZES", (16, 2, 2))
    monkeypatch.delenv("DEADRECKON_DATA", raising=False)
    folder = tmp_path / "cifar-10"
    folder.mkdir()
    for number, name in enumerate((*cifar10.TRAIN, cifar10.TEST)):
        rows = torch.zeros(4, cifar10.SAMPLE_BYTES, dtype=torch.uint8)
        rows[:, 0] = torch.arange(4) + number
        rows[:, 1 + 2 * 1024 + 3 * 32 + 5] = 200  # blue, in row 3 and column 5
        (folder / name).write_bytes(rows.numpy().tobytes())
    task = load_task("cifar10", str(tmp_path))
    assert [len(split.labels) for split in (task.train, task.verify, task.tune, task.test)] == [16, 2, 2, 4]
    assert task.test.labels.tolist() == [5, 6, 7, 8]
    assert task.test.inputs.shape == (4, 3, 32, 32)
    assert (task.test.inputs[0] > 0).nonzero().tolist() == [[2, 3, 5]]
    assert float(task.test.inputs[0, 2, 3, 5]) == pytest.approx((200 - cifar10.MEAN) / cifar10.DEVIATION)
    assert make_network("conv", task, 0)(task.test.inputs).shape == (4, 10)
    (folder / cifar10.TEST).write_bytes(bytes([10]) + bytes(4 * cifar10.SAMPLE_BYTES - 1))
    with pytest.raises(DataError, match="test_batch.bin has a label 10.*Get it anew"):
        load_task("cifar10", str(tmp_path))
    (folder / cifar10.TEST).unlink()
    with pytest.raises(DataError, match="does not hold cifar-10"):
        load_task("cifar10", str(tmp_path))
    with pytest.raises(DataError, match="is not fetched. Get data_batch_1.bin.*test_batch.bin from https://www.cs"):
        load_task("cifar10")


def test_evaluation_uses_the_running_statistics_of_batch_normalisation() -> None:
    """In evaluation a sample's output depends on the buffers and not on the other samples of its batch."""
    task = load_task("digits")
    network = make_network("conv_batch_norm", task, 0)
    network(task.train.inputs[:64])
    network.eval()
    inputs = task.test.inputs[:8]
    outputs = network(inputs)
    torch.testing.assert_close(network(inputs[:3]), outputs[:3], rtol=1e-4, atol=1e-5)
    for buffer in network.buffers():
        buffer.mul_(2)
    assert not torch.allclose(network(inputs), outputs, rtol=1e-2)


def python_files(folder: Path, count: int) -> dict[str, bytes]:
    """Different files of Python, each of which names itself in every line."""
    texts = {f"part{index}.py": f"x{index:03d} = 1\n".encode() * (60 + index) for index in range(count)}
    for name, text in texts.items():
        (folder / name).write_bytes(text)
    return texts


def test_the_sets_of_python_text_share_no_file(tmp_path: Path) -> None:
    """Each file's bytes are in one set only, every set has some, and the attribution tells which text it was."""
    texts = python_files(tmp_path, 25)
    task = load_stdlib(str(tmp_path))
    owners: dict[bytes, set[str]] = {text[:4]: set() for text in texts.values()}
    for name in ("train", "verify", "tune", "test"):
        split: Split = getattr(task, name)
        text = bytes(split.inputs.flatten().tolist())
        assert len(split.labels) > 0
        for sign, found in owners.items():
            if sign + b" = 1" in text:
                found.add(name)
    assert all(len(found) == 1 for found in owners.values())
    assert [sum(name in found for found in owners.values()) for name in ("train", "test")] == [19, 2]
    assert task.num_symbols == 256
    again = load_stdlib(str(tmp_path))
    assert torch.equal(again.test.inputs, task.test.inputs)
    (tmp_path / "part3.py").write_bytes(b"y = 2\n" * 100)
    assert load_stdlib(str(tmp_path)).attribution != task.attribution


def test_python_text_is_that_of_this_interpreter(tmp_path: Path) -> None:
    """Without a folder the standard library is read; a folder with too few files is refused."""
    task = load_task("stdlib")
    assert len(task.train.labels) > 1_000_000
    assert bytes(task.test.inputs[0].tolist()) != bytes(task.test.inputs[1].tolist())
    assert "SHA-256" in task.attribution
    python_files(tmp_path, 7)
    with pytest.raises(DataError, match="must hold at least 8 different Python files, got 7"):
        load_stdlib(str(tmp_path))


@pytest.mark.data
def test_shakespeare_is_found_and_checked(tmp_path: Path) -> None:
    """The text is found in a data folder; one of the same length that is another text is refused."""
    folder = data_folder(TEXT.name)
    task = load_task("shakespeare", folder)
    assert [len(split.labels) for split in (task.train, task.verify, task.tune, task.test)] == [
        1_003_822,
        4_644,
        4_644,
        4_644,
    ]
    assert task.num_symbols == task.num_classes == 65
    assert num_parameters(make_network("transformer", task, 0)) == 30_721
    (tmp_path / TEXT.name).write_bytes(bytes(TEXT.num_bytes))
    with pytest.raises(DataError, match="is another text than"):
        load_shakespeare(str(tmp_path))


@pytest.mark.data
def test_fashion_mnist_is_found_by_option_and_by_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """The published files are found in a data folder, split into four sets of the published sizes."""
    folder = data_folder(f"fashion-mnist/{FILES[0].name}")
    task = load_task("fashion_mnist", folder)
    sizes = [len(split.labels) for split in (task.train, task.verify, task.tune, task.test)]
    assert sizes == [55_000, 2_500, 2_500, 10_000]
    assert task.train.labels.bincount().sum() == 55_000
    assert abs(float(task.train.inputs.mean())) < 0.01
    assert abs(float(task.train.inputs.std()) - 1) < 0.01
    monkeypatch.setenv("DEADRECKON_DATA", str(Path(folder) / "fashion-mnist"))
    torch.testing.assert_close(load_task("fashion_mnist").test.inputs, task.test.inputs, rtol=0, atol=0)
    assert num_parameters(make_network("conv", task, 0)) == 14_378


def test_files_are_found_in_the_announced_order(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The given folder, the variable, the system's folder and the cache are tried in that order."""
    for name in ("given/set", "variable", "system/set", "cache/deadreckon/set"):
        folder = elsewhere / name
        folder.mkdir(parents=True)
        (folder / "hello.txt").write_bytes(b"hello")
    monkeypatch.setenv("DEADRECKON_DATA", str(elsewhere / "variable"))
    assert find_files("set", [HELLO], str(elsewhere / "given"), NOWHERE) == elsewhere / "given" / "set"
    assert find_files("set", [HELLO], None, NOWHERE) == elsewhere / "variable"
    monkeypatch.delenv("DEADRECKON_DATA")
    assert find_files("set", [HELLO], None, NOWHERE) == elsewhere / "system" / "set"
    (elsewhere / "system" / "set" / "hello.txt").write_bytes(b"hell")
    assert find_files("set", [HELLO], None, NOWHERE) == cache_folder() / "set"


def test_a_given_folder_without_the_files_is_refused(elsewhere: Path) -> None:
    """A data folder that the user named is never silently replaced by another one."""
    with pytest.raises(DataError, match="does not hold set: there is no such folder"):
        find_files("set", [HELLO], str(elsewhere / "absent"), NOWHERE)
    with pytest.raises(DataError, match=r"does not hold set: hello\.txt is missing"):
        find_files("set", [HELLO], str(elsewhere), NOWHERE)
    (elsewhere / "hello.txt").write_bytes(b"hell")
    with pytest.raises(DataError, match=r"hello\.txt must have 5 bytes, got 4"):
        find_files("set", [HELLO], str(elsewhere), NOWHERE)


def test_offline_error_says_what_was_tried_and_what_to_do(elsewhere: Path) -> None:
    """Without data and network, the error lists the places and the two ways out."""
    with pytest.raises(DataError, match=r"set was not found in .*system/set.*Put hello\.txt into a folder .*--data"):
        find_files("set", [HELLO], None, NOWHERE)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"hello!", "must have 5 bytes, got more"),
        (b"hell", "must have 5 bytes, got 4"),
        (b"jello", "must have SHA-256"),
    ],
)
def test_a_wrong_download_leaves_nothing_behind(elsewhere: Path, content: bytes, message: str) -> None:
    """What is fetched is checked before it gets its name; a wrong file leaves no trace."""
    source = elsewhere / "source"
    source.mkdir()
    (source / "hello.txt").write_bytes(content)
    with pytest.raises(DataError, match=message):
        find_files("set", [HELLO], None, source.as_uri() + "/")
    assert list((cache_folder() / "set").iterdir()) == []


def test_a_file_may_have_another_name_at_its_source(elsewhere: Path) -> None:
    """What is fetched under one name is kept under another."""
    source = elsewhere / "source"
    source.mkdir()
    (source / "input.txt").write_bytes(b"hello")
    folder = find_files("set", [RemoteFile("hello.txt", 5, DIGEST, source="input.txt")], None, source.as_uri() + "/")
    assert [entry.name for entry in folder.iterdir()] == ["hello.txt"]


def test_a_right_download_is_kept(elsewhere: Path) -> None:
    """A fetched file ends in the cache and is found there the next time."""
    source = elsewhere / "source"
    source.mkdir()
    (source / "hello.txt").write_bytes(b"hello")
    folder = find_files("set", [HELLO], None, source.as_uri() + "/")
    assert [entry.name for entry in folder.iterdir()] == ["hello.txt"]
    assert find_files("set", [HELLO], None, NOWHERE) == folder


def idx_file(path: Path, header: bytes, values: bytes) -> Path:
    path.write_bytes(gzip.compress(header + values))
    return path


def test_idx_values_come_back(tmp_path: Path) -> None:
    """A well-formed idx file gives its values in its shape."""
    header = struct.pack(">BBBBII", 0, 0, 8, 2, 2, 3)
    array = read_idx(idx_file(tmp_path / "a.gz", header, bytes(range(6))), (2, 3))
    assert array.tolist() == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize(
    ("header", "values", "message"),
    [
        (struct.pack(">BBBBII", 0, 0, 9, 2, 2, 3), bytes(6), r"must start with 00000802 \(idx, bytes\), got 00000902"),
        (struct.pack(">BBBBI", 0, 0, 8, 2, 2), b"", "ends within its header"),
        (struct.pack(">BBBBII", 0, 0, 8, 2, 2**31, 2**31), b"", r"must have shape \(2, 3\), got \(2147483648"),
        (struct.pack(">BBBBII", 0, 0, 8, 2, 2, 3), bytes(5), "must hold 6 values, got 5"),
        (struct.pack(">BBBBII", 0, 0, 8, 2, 2, 3), bytes(7), "must hold 6 values, got more"),
    ],
)
def test_damaged_idx_files_are_refused(tmp_path: Path, header: bytes, values: bytes, message: str) -> None:
    """A wrong type, shape or length is refused before anything is allocated for it."""
    with pytest.raises(DataError, match=message):
        read_idx(idx_file(tmp_path / "a.gz", header, values), (2, 3))


def test_unpackable_and_absurd_idx_files_are_refused(tmp_path: Path) -> None:
    """Bytes that are no gzip, a cut file, and a shape beyond all reason are refused."""
    path = tmp_path / "a.gz"
    path.write_bytes(b"nonsense")
    with pytest.raises(DataError, match="cannot be unpacked"):
        read_idx(path, (2, 3))
    path.write_bytes(gzip.compress(struct.pack(">BBBBII", 0, 0, 8, 2, 2, 3) + bytes(6))[:-9])
    with pytest.raises(DataError, match="cannot be unpacked"):
        read_idx(path, (2, 3))
    with pytest.raises(DataError, match=f"At most {MAX_ELEMENTS} values are read"):
        read_idx(path, (2**20, 2**20))


def test_networks_depend_on_the_seed_and_touch_no_global_state() -> None:
    """The same seed gives the same weights, another one others; the global generator is left alone."""
    task = load_task("digits")
    before = torch.random.get_rng_state()
    first, same, other = (make_network("conv", task, seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.testing.assert_close(first, same, rtol=0, atol=0)
    assert not torch.equal(first["0.weight"], other["0.weight"])


def test_initial_weights_have_pytorchs_own_spread() -> None:
    """Our generator-driven initialisation has the bounds of PyTorch's default."""
    network = make_network("mlp", load_task("digits"), 0)
    layer = network.get_submodule("1")
    assert isinstance(layer, nn.Linear)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        standard = nn.Linear(64, 64)
    torch.testing.assert_close(layer.weight.abs().max(), standard.weight.abs().max(), rtol=0.01, atol=0)
    torch.testing.assert_close(layer.bias.abs().max(), standard.bias.abs().max(), rtol=0.1, atol=0)


def test_networks_of_width_one_are_those_of_earlier_releases() -> None:
    """Numbers of parameters, names and first weights at width 1 are as they were before there was a width."""
    task = load_task("digits")
    sizes = {name: num_parameters(make_network(name, task, 0)) for name in network_names()}
    assert sizes == {
        "mlp": 6570,
        "conv": 3738,
        "mlp_norm": 6762,
        "conv_norm": 3818,
        "conv_batch_norm": 3778,
        "transformer": 26346,
    }
    mlp, conv = (make_network(name, task, 0).state_dict() for name in ("mlp", "conv"))
    assert list(mlp) == ["1.weight", "1.bias", "3.weight", "3.bias", "5.weight", "5.bias"]
    assert list(conv) == ["0.weight", "0.bias", "2.weight", "2.bias", "4.weight", "4.bias", "8.weight", "8.bias"]
    first = torch.empty(64, 64).uniform_(-1 / 8, 1 / 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(mlp["1.weight"], first, rtol=0, atol=0)


def test_width_multiplies_hidden_layers_only() -> None:
    """Twice the width doubles every hidden layer; inputs and classes stay; absurd widths are refused."""
    task = load_task("digits")
    wide = make_network("mlp", task, 0, width=2.0).state_dict()
    assert [tuple(wide[f"{layer}.weight"].shape) for layer in (1, 3, 5)] == [(128, 64), (64, 128), (10, 64)]
    for name in network_names():
        narrow, same, wider = (num_parameters(make_network(name, task, 0, width)) for width in (0.5, 1.0, 2.0))
        assert narrow < same < wider
        assert make_network(name, task, 0, width=1 / 64)(task.test.inputs[:2]).shape == (2, 10)
    with pytest.raises(OptionError, match=r"`width` must lie within 0\.015625 and 64, got 100"):
        make_network("mlp", task, 0, width=100.0)


@pytest.mark.parametrize("text", [False, True], ids=["images", "text"])
def test_every_tensor_of_a_network_learns(text: bool) -> None:
    """Gradients reach every tensor of every network; only batch normalisation mixes samples and keeps buffers."""
    task = text_task() if text else load_task("digits")
    for name in fitting_networks(task):
        network = make_network(name, task, 0)
        inputs = task.train.inputs[:8]
        outputs = network(inputs)
        if name != "conv_batch_norm":
            torch.testing.assert_close(network(inputs[:3]), outputs[:3], rtol=1e-4, atol=1e-5)
        nn.functional.cross_entropy(outputs, task.train.labels[:8]).backward()
        for tensor, value in network.named_parameters():
            assert value.grad is not None, (name, tensor)
            assert float(value.grad.abs().max()) > 1e-6, (name, tensor)
        assert bool(list(network.buffers())) == (name == "conv_batch_norm")


def test_tensors_of_all_kinds_occur() -> None:
    """The layouts of the networks tell norms, embeddings, convolutions, weights and biases apart."""
    kinds = {
        name: {spec.kind for spec in layout_of(make_network(name, load_task("digits"), 0))} for name in network_names()
    }
    assert kinds["mlp_norm"] == {"weight", "bias", "norm"}
    assert kinds["conv_norm"] == {"convolution", "weight", "bias", "norm"}
    assert kinds["transformer"] == {"weight", "bias", "norm", "embedding"}
    assert {spec.kind for spec in layout_of(make_network("mlp", text_task(), 0))} == {"weight", "bias", "embedding"}


def test_a_network_refuses_what_it_cannot_see() -> None:
    """Convolutions are refused on texts, naming what would do."""
    with pytest.raises(OptionError, match="one of mlp, mlp_norm, transformer for the task text, .* got 'conv_norm'"):
        make_network("conv_norm", text_task(), 0)


@pytest.mark.parametrize("name", ["mlp", "mlp_norm", "transformer"])
def test_the_next_character_can_be_learned(name: str) -> None:
    """A few steps on a text that repeats itself bring the loss on held-out contexts well below that of guessing."""
    task = text_task()
    network = make_network(name, task, 0)
    optimizer = make_optimizer("adam", network.parameters(), 0.01)
    before = evaluate(network, task.test)
    for inputs, classes in train_loader(task, 16, 50, seed=0):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(inputs), classes).backward()
        optimizer.step()
    after = evaluate(network, task.test)
    assert after.loss < before.loss / 3
    assert after.accuracy > 0.7
    assert float(probe(network, task.verify).mean()) < before.loss / 3


def toy_split(num_samples: int = 10) -> Split:
    return Split(torch.arange(float(num_samples)).reshape(-1, 1, 1, 1), torch.arange(num_samples))


def labels(batches: Any) -> list[list[int]]:
    return [batch[1].tolist() for batch in batches]


def test_each_pass_takes_every_sample_once_in_a_new_order() -> None:
    """Within a pass no sample comes twice; passes and seeds differ in order."""
    order = labels(Batches(toy_split(), 5, 4, seed=3))
    assert sorted(order[0] + order[1]) == sorted(order[2] + order[3]) == list(range(10))
    assert order[:2] != order[2:]
    assert order != labels(Batches(toy_split(), 5, 4, seed=4))
    assert order == labels(Batches(toy_split(), 5, 4, seed=3))


def test_a_batch_depends_on_seed_and_step_only() -> None:
    """Starting later, going on from a stored position, or asking for one batch gives what the whole run would see."""
    whole = labels(Batches(toy_split(), 3, 11, seed=0))
    assert labels(Batches(toy_split(), 3, 11, seed=0, first_step=4)) == whole[4:]
    assert len(Batches(toy_split(), 3, 11, seed=0, first_step=4)) == 7
    begun = Batches(toy_split(), 3, 11, seed=0)
    iterator = iter(begun)
    for _ in range(5):
        next(iterator)
    resumed = Batches(toy_split(), 3, 11, seed=0)
    resumed.load_state_dict(begun.state_dict())
    assert labels(resumed) == whole[5:]
    assert labels(resumed) == whole  # a second pass begins anew
    assert resumed[7][1].tolist() == whole[7]


def test_wrong_batch_settings_are_refused() -> None:
    """Numbers out of range are refused with their limits."""
    split = toy_split()
    with pytest.raises(OptionError, match="`batch_size` must lie within 1 and 10, the samples, got 11"):
        Batches(split, 11, 1, 0)
    with pytest.raises(OptionError, match="`num_steps` must be at least 1, got 0"):
        Batches(split, 1, 0, 0)
    with pytest.raises(OptionError, match="`first_step` must lie within 0 and 2, got 3"):
        Batches(split, 1, 2, 0, first_step=3)
    with pytest.raises(IndexError, match="`step` must lie within 0 and 1, got 2"):
        Batches(split, 1, 2, 0)[2]
    with pytest.raises(OptionError, match="`next_step` must lie within 0 and 2, got 7"):
        Batches(split, 1, 2, 0).load_state_dict({"next_step": 7})
    with pytest.raises(OptionError, match="`batch_size` must be at least 1, got 0"):
        sequential_batches(split, 0)


def test_sequential_batches_cover_the_set_in_order() -> None:
    """Evaluation batches hold every sample once, in order."""
    assert labels(sequential_batches(toy_split(), 4)) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_schedules_start_at_one_and_end_at_zero() -> None:
    """Linear and cosine decay go from 1 to 0 and stay there; constant stays at 1."""
    assert [decay_factor("linear", step, 4) for step in range(6)] == [1, 0.75, 0.5, 0.25, 0, 0]
    assert decay_factor("cosine", 0, 4) == 1
    assert decay_factor("cosine", 2, 4) == pytest.approx(0.5)
    assert decay_factor("cosine", 9, 4) == 0
    assert decay_factor("constant", 9, 4) == 1


class Stop(pl.Callback):
    @override
    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == 7:
            trainer.save_checkpoint(Path(trainer.default_root_dir) / "middle.ckpt")


def trainer(folder: Path, callbacks: list[pl.Callback]) -> pl.Trainer:
    return pl.Trainer(
        accelerator="cpu",
        max_epochs=1,
        logger=False,
        callbacks=callbacks,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
    )


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
@pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec.*")
def test_a_run_resumed_in_mid_epoch_equals_one_run_through(tmp_path: Path, optimizer: str) -> None:
    """Train straight through == stop, resume, go on: bit for bit, with a decaying learning rate."""
    task = load_task("digits")

    def module() -> Classifier:
        return Classifier(make_network("mlp", task, 0), optimizer, 0.01, "linear", 12)

    straight = module()
    trainer(tmp_path, [Stop()]).fit(straight, train_loader(task, 32, 12, seed=5))
    resumed = module()
    trainer(tmp_path, []).fit(
        resumed, train_loader(task, 32, 12, seed=5), ckpt_path=tmp_path / "middle.ckpt", weights_only=True
    )
    torch.testing.assert_close(resumed.state_dict(), straight.state_dict(), rtol=0, atol=0)
    assert evaluate(straight, task.test).accuracy > 0.15  # it did learn


class Moody(nn.Module):
    """Would change with every call, if it were let to."""

    def __init__(self) -> None:
        super().__init__()
        self.flatten = nn.Flatten()
        self.norm = nn.BatchNorm1d(64)
        self.dropout = nn.Dropout(0.5)
        self.linear = nn.Linear(64, 10)

    @override
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.linear(self.dropout(self.norm(self.flatten(images)))) + 0 * torch.rand(1)


def test_probing_and_evaluating_leave_no_trace() -> None:
    """Buffers, modes of every sub-module, gradients and the random state are as they were; losses are per sample."""
    task = load_task("digits")
    module = Moody()
    module.norm.eval()
    state = {name: value.clone() for name, value in module.state_dict().items()}
    random_state = torch.random.get_rng_state()
    batch = (task.verify.inputs[:20], task.verify.labels[:20])
    losses = probe(module, batch)
    whole = evaluate(module, task.verify, batch_size=64)
    assert losses.shape == (20,)
    assert not losses.requires_grad
    assert torch.equal(torch.random.get_rng_state(), random_state)
    assert [part.training for part in module.modules()] == [True, True, False, True, True]
    torch.testing.assert_close(module.state_dict(), state, rtol=0, atol=0)
    assert torch.is_grad_enabled()
    torch.testing.assert_close(evaluate(module, Split(*batch)).loss, float(losses.mean()), rtol=1e-5, atol=0)
    assert 0 <= whole.accuracy <= 1


def test_modes_are_put_back_after_an_error() -> None:
    """A probe that fails leaves the module in the mode it was in."""
    module = Moody()
    with pytest.raises(RuntimeError, match="running_mean should contain 7 elements"):
        probe(module, (torch.zeros(3, 7), torch.zeros(3, dtype=torch.long)))
    assert all(part.training for part in module.modules())


def test_an_empty_set_is_not_evaluated() -> None:
    """There is no accuracy of nothing."""
    with pytest.raises(OptionError, match="An empty set cannot be evaluated on"):
        evaluate(nn.Linear(1, 1), Split(torch.zeros(0, 1), torch.zeros(0, dtype=torch.long)))
