"""The Lightning system and its data: seeds, resuming, scores, masks of any size."""

import copy
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from PIL import Image
from torch.utils.data import DataLoader, IterableDataset

from tests.conftest import MakePairs, Train, draw_image, equal, small_system
from ui_segmentation_system import (
    ImageTargetCompose,
    ImageTargetResize,
    ImageTargetToTensor,
    RunFolder,
    Sample,
    StepProgress,
    UIImageMaskDataset,
    UISegmentationData,
    UISegmentationSystem,
    UNet,
    Watch,
    bce_dice_loss,
    foreground_share,
    load_image,
    load_system,
)

SIZE = (32, 32)


class Spy(pl.Callback):
    """Notes rates and gradient norms of each step."""

    def __init__(self) -> None:
        self.rates: list[float] = []
        self.norms: list[float] = []

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    def on_before_zero_grad(self, _: pl.Trainer, module: Any, *__: Any) -> None:
        grads = [p.grad for p in module.parameters() if p.grad is not None]
        if grads:
            self.norms.append(float(torch.stack([g.norm() for g in grads]).norm()))


def overfit_data(folder: Path) -> UISegmentationData:
    return UISegmentationData(folder, 2, SIZE, overfit_num=4)


def tensors(folder: Path) -> list[Sample]:
    steps = [ImageTargetResize(SIZE), ImageTargetToTensor()]
    return list(UIImageMaskDataset(folder, ImageTargetCompose(steps)))


def test_same_seed_same_training(make_pairs: MakePairs, train: Train) -> None:
    folder = make_pairs(6)
    systems = [small_system(seed) for seed in (0, 0, 1)]
    for system in systems:
        torch.manual_seed(5)
        train(system, UISegmentationData(folder, 2, SIZE))
    assert equal(systems[0], systems[1])
    assert not equal(systems[0], systems[2])
    assert not equal(systems[0], small_system(0))


def test_rates_follow_one_cycle(make_pairs: MakePairs, train: Train) -> None:
    spy = Spy()
    options = {"max_epochs": 10, "limit_val_batches": 0, "callbacks": [spy]}
    train(small_system(), overfit_data(make_pairs(1)), **options)
    assert len(spy.rates) == 20
    assert spy.rates[0] == pytest.approx(1e-3)
    assert max(spy.rates) == pytest.approx(1e-2)
    assert np.argmax(spy.rates) == 3  # the fourth of 20: a fifth
    assert spy.rates[-1] == pytest.approx(1e-5, rel=0.01)


@pytest.mark.parametrize("steps", range(1, 7))
def test_any_number_of_steps_can_be_trained(
    make_pairs: MakePairs, train: Train, steps: int
) -> None:
    system = small_system()
    train(system, overfit_data(make_pairs(1)), max_epochs=-1, max_steps=steps)
    assert system.trainer.global_step == steps


@pytest.mark.parametrize(
    ("options", "least", "most"),
    [
        ({}, 0.999, 1.001),
        ({"gradient_clip_val": 0.25}, 0.249, 0.251),
        ({"gradient_clip_val": 0.5, "gradient_clip_algorithm": "value"}, 1.1, 1e3),
        ({"gradient_clip_val": 0}, 1e3, 1e9),
    ],
)
def test_gradients_are_clipped_at_1_or_as_the_trainer_says(
    make_pairs: MakePairs, train: Train, options: dict, least: float, most: float
) -> None:
    spy, system = Spy(), small_system(pos_weight=1e4)
    train(system, overfit_data(make_pairs(1)), callbacks=[spy], **options)
    assert least < spy.norms[0] < most


def test_picture_is_turned_and_flattened_before_it_is_judged(tmp_path: Path) -> None:
    system = small_system()
    upright = draw_image(0, (45, 31))
    exif = Image.Exif()
    exif[0x0112] = 6
    lying = upright.transpose(Image.Transpose.ROTATE_90)
    lying.save(tmp_path / "a.png", exif=exif)
    expected = system.predict_mask(upright, 0.4)
    with Image.open(tmp_path / "a.png") as picture:
        assert np.array_equal(system.predict_mask(picture, 0.4), expected)
    clear = Image.new("RGBA", (45, 31), (9, 9, 9, 0))
    white = Image.new("RGB", (45, 31), "white")
    found = system.predict_mask(clear, 0.4), system.predict_mask(white, 0.4)
    assert np.array_equal(*found)


def test_mask_keeps_its_place_when_scaled() -> None:
    class Bright(torch.nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return (image.amin(1, keepdim=True) - 0.6) * 20

    system = small_system(image_size=(24, 40))
    system.network = Bright()
    image = Image.new("RGB", (90, 60))
    image.paste("white", (30, 12, 75, 48))
    expected = np.array(image)[..., 0] > 0
    assert np.mean(system.predict_mask(image) == expected) > 0.97


def test_split_is_whole_disjoint_and_follows_the_seed(make_pairs: MakePairs) -> None:
    folder = make_pairs(10)

    def split(seed: int) -> tuple[list, list]:
        data = UISegmentationData(folder, 2, SIZE, seed=seed, val_share=0.3)
        data.setup()
        return data.train_set.pairs, data.val_set.pairs

    torch.manual_seed(1)
    train_pairs, val_pairs = split(0)
    assert (len(train_pairs), len(val_pairs)) == (7, 3)
    assert set(train_pairs).isdisjoint(val_pairs)
    assert len(set(train_pairs + val_pairs)) == 10
    torch.manual_seed(2)
    assert split(0) == (train_pairs, val_pairs)
    assert any(split(seed)[1] != val_pairs for seed in (1, 2, 3))


def test_batches_are_whole_and_shuffled(make_pairs: MakePairs) -> None:
    data = UISegmentationData(make_pairs(12), 4, SIZE)
    data.setup()
    assert (len(data.train_set), len(data.val_set)) == (10, 2)
    batches = list(data.train_dataloader())
    assert [tuple(batch.image.shape) for batch in batches] == [(4, 3, *SIZE)] * 2
    assert {batch.target.dtype for batch in batches} == {torch.float32}
    (batch,) = data.val_dataloader()
    assert batch.target.shape == (2, 1, *SIZE)
    assert torch.equal(batch.image[1], data.val_set[1].image)
    torch.manual_seed(0)
    first = [next(iter(data.train_dataloader())).image for _ in range(4)]
    assert not all(torch.equal(first[0], image) for image in first)


def test_overfitting_data_is_the_first_pair_alone(make_pairs: MakePairs) -> None:
    folder = make_pairs(11)
    data = UISegmentationData(folder, 4, SIZE, overfit_num=8)
    data.setup()
    assert (len(data.train_set), len(data.val_set)) == (8, 1)
    first = tensors(folder)[0]
    for sample in (*data.train_set, *data.val_set):
        assert torch.equal(sample.image, first.image)
        assert torch.equal(sample.target, first.target)


@pytest.mark.parametrize(
    ("count", "options", "message"),
    [
        (5, {"batch_size": 5}, "batch_size 5: only 4 training samples"),
        (3, {"batch_size": 9, "overfit_num": 8}, "batch_size 9: .*only 8 training"),
        (1, {"batch_size": 1}, "1 groups in 1 samples: expected at least 2"),
    ],
)
def test_too_little_data_is_refused(
    count: int, options: dict, message: str, make_pairs: MakePairs
) -> None:
    data = UISegmentationData(make_pairs(count), image_size=SIZE, **options)
    with pytest.raises(ValueError, match=message):
        data.setup()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size 0: expected a whole number, 1 or more"),
        ({"overfit_num": -1}, "overfit_num -1: expected a whole number, 0 or more"),
        ({"val_share": 0}, "val_share 0: expected a number, 0.001 to 0.999"),
        ({"val_share": 1}, "val_share 1: expected a number, 0.001 to 0.999"),
        ({"missing": True}, "missing True: expected one of error, empty, skip"),
        ({"scenes": Path("a.csv")}, "scenes .*expected what read_scenes gives"),
        ({"image_size": (0, 32)}, r"image_size \(0, 32\): expected one whole number"),
    ],
)
def test_bad_settings_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        UISegmentationData("anywhere", **options)


def test_bad_folder_is_refused_before_training(tmp_path: Path, train: Train) -> None:
    data = UISegmentationData(tmp_path / "gone", 1, SIZE)
    with pytest.raises(FileNotFoundError, match="gone: there is no such folder"):
        train(small_system(), data)


def test_data_is_read_once(make_pairs: MakePairs, train: Train) -> None:
    folder = make_pairs(4)
    data = UISegmentationData(folder, 1, SIZE)
    data.setup()
    before = [copy.deepcopy(sample) for sample in (*data.train_set, *data.val_set)]
    shutil.rmtree(folder)
    after = (*data.train_set, *data.val_set)
    for one, other in zip(before, after, strict=True):
        assert torch.equal(one.image, other.image)


def test_progress_has_no_clock(
    make_pairs: MakePairs, train: Train, capsys: pytest.CaptureFixture[str]
) -> None:
    data = overfit_data(make_pairs(1))
    train(small_system(), data, callbacks=[StepProgress()])
    out = capsys.readouterr().out.replace("\r", "\n").strip().splitlines()
    assert out[0].endswith("| 0/4 steps")
    assert out[-1].endswith("| 4/4 steps")
    assert all(line.startswith("training: ") for line in out)
    assert "s/it" not in "".join(out)
    assert "it/s" not in "".join(out)


def test_watch_begins_where_training_begins(
    make_pairs: MakePairs, train: Train
) -> None:
    folder = make_pairs(1)
    image, target = tensors(folder)[0]
    watch = Watch(Sample(image, target), every_n_steps=1)
    train(small_system(), overfit_data(folder), callbacks=[watch])
    start: UNet = small_system().network
    start.set_prior([foreground_share([target])])
    with torch.no_grad():
        logits = start(image[None])
    loss = bce_dice_loss(logits, target[None]).item()
    assert watch.losses[0] == pytest.approx(loss)
    torch.testing.assert_close(watch.probabilities[0], logits[0, 0].sigmoid())
    with pytest.raises(
        ValueError, match="every_n_steps 0: expected a whole number, 1 or more"
    ):
        Watch(Sample(image, target), 0)


def test_training_without_end_is_refused(make_pairs: MakePairs, train: Train) -> None:
    folder = make_pairs(1)
    with pytest.raises(ValueError, match="give the Trainer max_epochs or max_steps"):
        train(small_system(), overfit_data(folder), max_epochs=-1)
    with pytest.raises(ValueError, match="max_steps, the latter for a stream"):
        train(small_system(), DataLoader(Stream(tensors(folder))), max_epochs=1)


def test_predict_mask_sees_a_16_bit_picture_as_load_image_does(tmp_path: Path) -> None:
    values = np.linspace(0, 65535, 600).reshape(20, 30).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / "deep.png")
    system = small_system()
    raw = system.predict_mask(Image.open(tmp_path / "deep.png"))
    assert np.array_equal(raw, system.predict_mask(load_image(tmp_path / "deep.png")))


@pytest.mark.parametrize("own", [None, (16, 24)])
def test_predicts_at_the_size_it_was_trained_at(
    own: tuple[int, int] | None, make_pairs: MakePairs, train: Train, tmp_path: Path
) -> None:
    system = small_system(image_size=own)
    data = UISegmentationData(make_pairs(3), 2, (32, 48), overfit_num=4)
    trainer = train(system, data, max_epochs=1)
    assert tuple(system.settings["image_size"]) == (own or (32, 48))
    trainer.save_checkpoint(tmp_path / "own.ckpt", weights_only=True)
    again = load_system(tmp_path / "own.ckpt")
    seen = []
    again.network.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    assert again.predict_mask(draw_image(1, (20, 10))).shape == (10, 20)
    assert seen[0].shape[-2:] == (own or (32, 48))
    larger = UISegmentationData(data.data_dir, 2, (64, 64), overfit_num=2)
    train(again, larger, max_epochs=1)
    assert tuple(again.settings["image_size"]) == (64, 64)


class Stream(IterableDataset):
    """Samples without a length."""

    def __init__(self, samples: list[Sample]) -> None:
        self.samples = samples

    def __iter__(self) -> Iterator[Sample]:
        return iter(self.samples)


class Counted(Stream):
    """A stream that knows its length."""

    def __len__(self) -> int:
        return len(self.samples)


@pytest.mark.parametrize("kind", [Stream, Counted])
def test_a_run_may_validate_a_stream(
    kind: type[Stream], make_pairs: MakePairs, train: Train, tmp_path: Path
) -> None:
    samples = tensors(make_pairs(2))
    keeper = RunFolder(tmp_path / "run")
    loaders = DataLoader(samples, 2), DataLoader(kind(samples), 2)
    train(small_system(), loaders[0], None, loaders[1], callbacks=[keeper])
    names = {"log.csv", "last.ckpt", "best.ckpt", "curves.png", "epochs"}
    assert {path.name for path in keeper.folder.iterdir()} == names
    drawn = Image.open(keeper.folder / "epochs" / "001.png")
    assert drawn.size == (4 * SIZE[1], 2 * SIZE[0])


class WithDropout(torch.nn.Sequential):
    def __init__(self) -> None:
        super().__init__(
            torch.nn.Conv2d(3, 1, 1), torch.nn.BatchNorm2d(1), torch.nn.Dropout(0.5)
        )


def test_a_loaded_system_is_trained_in_training_mode(
    make_pairs: MakePairs, train: Train, tmp_path: Path
) -> None:
    data = overfit_data(make_pairs(1))
    system = UISegmentationSystem(network=WithDropout())
    train(system, data).save_checkpoint(tmp_path / "own.ckpt", weights_only=True)
    again = load_system(tmp_path / "own.ckpt", WithDropout())
    assert not again.training and not again.network.training
    train(again, data)
    assert again.training and again.network.training
    before, after = (one.network[1].running_mean for one in (system, again))
    assert not torch.equal(before, after)


class Mine(UISegmentationSystem):
    """A subclass with a setting of its own, kept in Lightning's way."""

    def __init__(self, alpha: float = 0.7, **options: Any) -> None:
        super().__init__(**options)
        self.alpha = alpha
        self.save_hyperparameters("alpha")


def test_a_subclass_keeps_its_settings(
    make_pairs: MakePairs, train: Train, tmp_path: Path
) -> None:
    alpha = np.float64(0.3)  # plain in the checkpoint, which is read again
    trainer = train(Mine(alpha, max_features=16), overfit_data(make_pairs(1)))
    trainer.save_checkpoint(tmp_path / "mine.ckpt", weights_only=True)
    again = Mine.load_from_checkpoint(tmp_path / "mine.ckpt")
    assert (again.alpha, again.settings["max_features"]) == (0.3, 16)


def test_the_trainer_predicts_probabilities(make_pairs: MakePairs) -> None:
    system, samples = small_system().eval(), tensors(make_pairs(2))
    trainer = pl.Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, devices=1
    )
    images = torch.stack([image for image, _ in samples])
    expected = system(images).sigmoid()
    for loader in (DataLoader(samples, 2), DataLoader(images, 2)):
        (found,) = trainer.predict(system, loader)
        torch.testing.assert_close(found, expected)


class Told(RunFolder):
    """Keeps a run by scores that it is told, and the head's weights of each epoch."""

    def on_validation_end(self, trainer: pl.Trainer, module: Any) -> None:
        epoch = trainer.current_epoch
        self._scores = {"val_loss": 1.0, "val_iou": (0.1, 0.3, 0.2, 0.2, 0.2)[epoch]}
        self.heads = [*getattr(self, "heads", []), module.network.head.weight.clone()]


@pytest.fixture
def keep(make_pairs: MakePairs, train: Train) -> Callable[..., None]:
    """Give a function that trains a small system, kept by a RunFolder."""
    data = UISegmentationData(make_pairs(8), image_size=SIZE, batch_size=2)

    def run(keeper: RunFolder, **options: Any) -> None:
        options |= {"callbacks": [keeper], "num_sanity_val_steps": 0}
        train(small_system(), data, **options)

    return run


def test_epochs_without_validation_have_empty_cells(
    keep: Callable[..., None], tmp_path: Path
) -> None:
    keeper = RunFolder(tmp_path / "run")
    keep(keeper, max_epochs=4, check_val_every_n_epoch=2)
    assert ["val_iou" in row for row in keeper.rows] == [False, True, False, True]
    assert (tmp_path / "run" / "best.ckpt").exists()


def test_the_best_epoch_is_kept(keep: Callable[..., None], tmp_path: Path) -> None:
    keeper = Told(tmp_path / "run")
    keep(keeper, max_epochs=3)
    for name, epoch in (("best", 1), ("last", 2)):
        kept = load_system(tmp_path / "run" / f"{name}.ckpt").network.head.weight
        same = [torch.equal(kept, head) for head in keeper.heads]
        assert same == [number == epoch for number in range(3)]


@pytest.mark.parametrize(("patience", "epochs"), [(0, 5), (1, 3), (2, 4), (3, 5)])
def test_training_stops_after_epochs_without_gain(
    keep: Callable[..., None], tmp_path: Path, patience: int, epochs: int
) -> None:
    keeper = Told(tmp_path / "run", patience=patience)
    keep(keeper, max_epochs=5)
    assert len(keeper.rows) == epochs
