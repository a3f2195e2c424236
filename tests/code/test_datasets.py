"""The data: the stand-ins, where the published files are looked for, and what is never trained on."""

import hashlib
import os
import socket
import struct
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
import torchvision
from ewc import datasets

CACHED = (datasets.find_data, datasets._published, datasets.digits, datasets.letters)


@pytest.fixture(autouse=True)
def nothing_remembered():
    for function in CACHED:
        function.cache_clear()
    yield
    for function in CACHED:
        function.cache_clear()


# ---- the stand-ins


@pytest.mark.parametrize(("maker", "train", "test"), [(datasets.digits, 1437, 360), (datasets.letters, 6000, 930)])
def test_a_stand_in_is_a_whole_task(maker, train, test):
    task = maker()
    assert task.embedded
    assert task.train_inputs.shape == (train, 1, 28, 28)
    assert task.test_inputs.shape == (test, 1, 28, 28)
    assert task.train_targets.shape == (train,)
    assert task.test_targets.shape == (test,)
    assert len(task.classes) == 10
    for images, targets in ((task.train_inputs, task.train_targets), (task.test_inputs, task.test_targets)):
        assert images.dtype == torch.float32
        assert targets.dtype == torch.int64
        assert 0 <= images.min() < 0.05
        assert 0.35 < images.max() <= 1
        share = targets.bincount(minlength=10) / len(targets)
        assert ((share > 0.06) & (share < 0.14)).all(), share
    both = torch.cat([task.train_inputs, task.test_inputs]).flatten(1)
    assert len(both.unique(dim=0)) > 0.99 * len(both)  # no test image stands among those to learn from


@pytest.mark.parametrize("maker", [datasets.digits, datasets.letters])
def test_a_stand_in_is_the_same_each_time_and_draws_nothing_from_torch(maker):
    torch.manual_seed(1)
    first = maker()
    maker.cache_clear()
    torch.manual_seed(2)
    wanted = torch.rand(3)
    torch.manual_seed(2)
    second = maker()
    assert torch.equal(torch.rand(3), wanted)
    assert torch.equal(first.train_inputs, second.train_inputs)
    assert torch.equal(first.test_targets, second.test_targets)
    assert first.checksum == second.checksum


def test_the_checksum_tells_data_apart():
    assert datasets.digits().checksum != datasets.letters().checksum
    images, targets = torch.rand(20, 1, 28, 28), torch.arange(20) % 10
    one = datasets._embedded("x", "x", (), images, targets, 10, "")
    other = images.clone()
    other[7, 0, 3, 3] += 1e-3
    assert datasets._embedded("x", "x", (), images.clone(), targets, 10, "").checksum == one.checksum
    assert datasets._embedded("x", "x", (), other, targets, 10, "").checksum != one.checksum
    assert datasets._embedded("x", "x", (), images, targets.flip(0), 10, "").checksum != one.checksum


def test_digits_are_scikit_learns():
    sklearn = pytest.importorskip("sklearn.datasets")
    task, bunch = datasets.digits(), sklearn.load_digits()
    counts = torch.cat([task.train_targets, task.test_targets]).bincount()
    assert counts.tolist() == torch.tensor(bunch.target).bincount().tolist()
    total = torch.cat([task.train_inputs, task.test_inputs]).mean().item()
    assert total == pytest.approx(bunch.images.mean() / 16, rel=0.05)


@pytest.mark.parametrize("maker", [datasets.digits, datasets.letters])
def test_a_stand_in_can_be_learned_by_its_class_means(maker):
    task = maker()
    means = torch.stack([task.train_inputs[task.train_targets == c].mean(0).flatten() for c in range(10)])
    nearest = torch.cdist(task.test_inputs.flatten(1), means).argmin(1)
    assert (nearest == task.test_targets).float().mean() > 0.6


def test_a_task_moves_to_a_device_with_all_its_tensors():
    task = datasets.digits().to("meta")
    for name in ("train_inputs", "train_targets", "test_inputs", "test_targets"):
        assert getattr(task, name).device.type == "meta"
    assert datasets.digits().train_inputs.device.type == "cpu"
    assert task.checksum == datasets.digits().checksum


# ---- where the published files are looked for


def write_published(folder, names=("MNIST", "FashionMNIST")):
    """Four tiny files for each data set, in torchvision's layout and the idx format; their SHA-256, as `_PUBLISHED` has them."""
    published = {}
    for name in names:
        raw = Path(folder, name, "raw")
        raw.mkdir(parents=True)
        hashes = []
        for file, count in zip(datasets._FILES, (6, 6, 3, 3), strict=True):
            if "images" in file:
                body = bytes((len(name) + i) % 256 for i in range(count * 28 * 28))
                content = struct.pack(">IIII", 0x803, count, 28, 28) + body
            else:
                content = struct.pack(">II", 0x801, count) + bytes(i % 10 for i in range(count))
            (raw / file).write_bytes(content)
            hashes.append(hashlib.sha256(content).hexdigest())
        published[name] = tuple(hashes)
    return published


@pytest.fixture
def places(tmp_path, monkeypatch):
    """Tiny published files, kept aside; an empty torchvision cache; no EWC_DATA; a network that must not be used."""
    monkeypatch.setattr(datasets, "_PUBLISHED", write_published(tmp_path / "chosen"))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "torch" / "hub"))
    monkeypatch.delenv("EWC_DATA", raising=False)
    network(monkeypatch, AssertionError("the network was asked"))
    return tmp_path


def network(monkeypatch, answer):
    """Let torchvision's download raise `answer`, or call it with the folder and the name."""
    asked = []
    for name in ("MNIST", "FashionMNIST"):
        real = getattr(torchvision.datasets, name)

        def dataset(root, train=True, download=False, name=name, real=real):
            if not download:
                return real(root, train=train)
            asked.append(name)
            if isinstance(answer, Exception):
                raise answer
            return answer(root, name)

        monkeypatch.setattr(torchvision.datasets, name, dataset)
    return asked


def cache_of(places):
    return places / "torch" / "datasets"


def test_ewc_data_comes_first(places, monkeypatch):
    write_published(cache_of(places))
    monkeypatch.setenv("EWC_DATA", str(places / "chosen"))
    assert datasets.find_data() == places / "chosen"


def test_images_and_labels_are_those_that_torchvision_reads(places, monkeypatch):
    monkeypatch.setenv("EWC_DATA", str(places / "chosen"))
    task = datasets.fashion_mnist()
    for train, inputs, targets in ((True, task.train_inputs, task.train_targets), (False, task.test_inputs, task.test_targets)):
        read = torchvision.datasets.FashionMNIST(str(places / "chosen"), train=train)
        assert torch.equal(inputs, read.data[:, None].float() / 255)
        assert torch.equal(targets, read.targets)
        assert targets.dtype == read.targets.dtype


def test_torchvisions_cache_comes_second_and_the_network_is_not_asked(places):
    write_published(cache_of(places))
    assert datasets.find_data() == cache_of(places)


def test_torchvisions_download_comes_third(places, monkeypatch):
    asked = network(monkeypatch, lambda root, name: write_published(root, [name]))
    assert datasets.find_data() == cache_of(places)
    assert asked == ["MNIST", "FashionMNIST"]


def test_only_what_is_missing_is_downloaded(places, monkeypatch):
    write_published(cache_of(places), ["MNIST"])
    asked = network(monkeypatch, lambda root, name: write_published(root, [name]))
    assert datasets.find_data() == cache_of(places)
    assert asked == ["FashionMNIST"]


@pytest.mark.parametrize("error", [URLError("no route"), RuntimeError("Error downloading"), TimeoutError(), ConnectionResetError()])
def test_without_files_and_without_a_network_the_stand_ins_serve(places, monkeypatch, error):
    network(monkeypatch, error)
    before = socket.getdefaulttimeout()
    assert datasets.find_data() is None
    assert socket.getdefaulttimeout() == before
    assert [task.name for task in datasets.paired()] == ["digits", "letters"]
    with pytest.raises(FileNotFoundError, match="Fashion-MNIST was not found and could not be downloaded; EWC_DATA"):
        datasets.fashion_mnist()


def test_one_data_set_alone_is_not_enough(places, monkeypatch):
    write_published(cache_of(places), ["MNIST"])
    network(monkeypatch, URLError("no route"))
    assert datasets.find_data() is None


def test_a_slow_network_is_given_up_after_a_time(places, monkeypatch):
    seen = []
    network(monkeypatch, lambda root, name: seen.append(socket.getdefaulttimeout()) or write_published(root, [name]))
    datasets.find_data()
    assert all(seconds is not None and 0 < seconds <= 60 for seconds in seen)


def test_the_search_is_made_once(places, monkeypatch):
    network(monkeypatch, URLError("no route"))
    assert datasets.find_data() is None
    network(monkeypatch, AssertionError("asked again"))
    assert datasets.find_data() is None


def test_the_word_embedded_asks_for_the_stand_ins(places, monkeypatch):
    write_published(cache_of(places))
    monkeypatch.setenv("EWC_DATA", "embedded")
    assert datasets.find_data() is None
    assert all(task.embedded for task in datasets.paired())


@pytest.mark.parametrize("wrong", ["nowhere", "empty", "half"])
def test_an_ewc_data_without_the_files_is_refused_by_name(places, monkeypatch, wrong):
    (places / "empty").mkdir()
    write_published(places / "half", ["MNIST"])
    write_published(cache_of(places))  # and what else there is, is not taken in its stead
    monkeypatch.setenv("EWC_DATA", str(places / wrong))
    with pytest.raises(FileNotFoundError) as refusal:
        datasets.find_data()
    told = {"nowhere": "which is no folder", "empty": "no MNIST/raw/train-images", "half": "no FashionMNIST/raw/train-images"}[wrong]
    for word in ("EWC_DATA", wrong, told, "embedded", "unset"):
        assert word in str(refusal.value)


@pytest.mark.parametrize(("lack", "words"), [
    ("file", "which has no FashionMNIST/raw/t10k-labels-idx1-ubyte;"),
    ("folder", "where FashionMNIST/raw/t10k-labels-idx1-ubyte is a folder"),
    ("packed", "which has FashionMNIST/raw/t10k-labels-idx1-ubyte.gz and needs it unpacked"),
])  # fmt: skip
def test_the_file_that_is_missing_is_named(places, monkeypatch, lack, words):
    file = places / "chosen/FashionMNIST/raw" / datasets._FILES[3]
    if lack == "packed":
        file.rename(file.with_name(f"{file.name}.gz"))
    else:
        file.unlink()
    if lack == "folder":
        file.mkdir()
    monkeypatch.setenv("EWC_DATA", str(places / "chosen"))
    with pytest.raises(FileNotFoundError) as refusal:
        datasets.find_data()
    assert words in str(refusal.value)


@pytest.mark.parametrize("harm", ["truncated", "altered", "longer"])
@pytest.mark.parametrize("file", [("MNIST", datasets._FILES[0]), ("FashionMNIST", datasets._FILES[3])])
@pytest.mark.parametrize("where", ["chosen", "cache", "downloaded"])
def test_a_truncated_or_altered_file_is_reported_by_name(places, monkeypatch, file, harm, where):
    def spoil(folder, only=None):
        if only in (None, file[0]):
            path = Path(folder, file[0], "raw", file[1])
            content = path.read_bytes()
            changed = {"truncated": content[:-1], "altered": content[:-1] + b"\xff", "longer": content + b"\0"}
            path.write_bytes(changed[harm])

    if where == "chosen":
        spoil(places / "chosen")
        monkeypatch.setenv("EWC_DATA", str(places / "chosen"))
    elif where == "cache":
        write_published(cache_of(places))
        spoil(cache_of(places))
    else:

        def arrive(root, name):
            write_published(root, [name])
            spoil(root, name)

        network(monkeypatch, arrive)
    with pytest.raises(ValueError, match="is not the published file") as refusal:
        datasets.paired()
    assert str(Path(file[0], "raw", file[1])) in str(refusal.value)
    assert "delete it and fetch it again" in str(refusal.value)


def test_a_published_task_is_read_as_it_stands_in_the_files(places, monkeypatch):
    monkeypatch.setenv("EWC_DATA", str(places / "chosen"))
    task, other = datasets.paired()
    assert (task.name, other.name) == ("MNIST", "Fashion-MNIST")
    assert not task.embedded
    assert task.train_inputs.shape == (6, 1, 28, 28)
    assert task.test_targets.tolist() == [0, 1, 2]
    wanted = torch.tensor([(5 + i) % 256 for i in range(6 * 784)]).reshape(6, 1, 28, 28) / 255
    torch.testing.assert_close(task.train_inputs, wanted)
    assert task.checksum != other.checksum
    assert datasets.mnist() is task  # read once


# ---- the real files, where there are some

REAL = os.environ.get("EWC_DATA", "embedded")


@pytest.mark.skipif(REAL == "embedded", reason="EWC_DATA names no folder with MNIST and Fashion-MNIST")
def test_the_published_data_are_the_published_data():
    first, second = datasets.mnist(), datasets.fashion_mnist()
    assert first.train_targets.bincount().tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert second.train_targets.bincount().tolist() == [6000] * 10
    for task in (first, second):
        assert task.train_inputs.shape == (60_000, 1, 28, 28)
        assert task.test_inputs.shape == (10_000, 1, 28, 28)
        assert (task.train_inputs.min(), task.train_inputs.max()) == (0, 1)
        assert len(task.classes) == 10
    assert first.train_inputs.mean().item() == pytest.approx(0.1307, abs=1e-4)
    assert second.train_inputs.mean().item() == pytest.approx(0.2860, abs=1e-4)
