"""The Lightning system and its data: seeds, resuming, scores, masks of any size."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from PIL import Image
from torch.utils.data import DataLoader, IterableDataset

import ui_segmentation_system as ui
from tests.conftest import MakePairs, Train, draw_image, equal, small_system

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


def overfit_data(folder: Path) -> ui.UISegmentationData:
    return ui.UISegmentationData(folder, 2, SIZE, overfit_num=4)


def tensors(folder: Path) -> list[ui.Sample]:
    steps = [ui.ImageTargetResize(SIZE), ui.ImageTargetToTensor()]
    return list(ui.UIImageMaskDataset(folder, ui.ImageTargetCompose(steps)))


def test_same_seed_same_training(make_pairs: MakePairs, train: Train) -> None:
    folder = make_pairs(6)
    systems = [small_system(seed) for seed in (0, 0, 1)]
    for system in systems:
        torch.manual_seed(5)
        train(system, ui.UISegmentationData(folder, 2, SIZE))
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


@pytest.mark.parametrize("validate", [0, 1])
def test_a_loss_that_is_no_number_ends_any_training(
    make_pairs: MakePairs, train: Train, validate: int
) -> None:
    system, options = small_system(), {"max_epochs": 3, "limit_val_batches": validate}
    torch.nn.init.constant_(system.network.head.weight, torch.nan)
    message = "train_loss: nan in epoch 1; expected a finite number; .*lower learning"
    with pytest.raises(ValueError, match=message):
        train(system, overfit_data(make_pairs(1)), **options)
    assert system.trainer.current_epoch == 0


def test_a_run_goes_on_with_its_own_optimizer(
    make_pairs: MakePairs, train: Train, tmp_path: Path
) -> None:
    data, path = overfit_data(make_pairs(1)), tmp_path / "adam.ckpt"
    adam = ui.UISegmentationSystem(max_features=16, optimizer="adam")
    train(adam, data).save_checkpoint(path)
    again = ui.UISegmentationSystem(max_features=16)
    with pytest.raises(ValueError, match="by adam, this system by muon: expected the"):
        train(again, data, ckpt_path=path)


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


TURNED = Image.Exif()
TURNED[0x0112] = 6
UPRIGHT = draw_image(0, (45, 31))
DEEP = np.linspace(0, 65535, 600).reshape(20, 30).astype(np.uint16)


@pytest.mark.parametrize(
    ("stored", "seen"),
    [
        (UPRIGHT.transpose(Image.Transpose.ROTATE_90), UPRIGHT),
        (Image.new("RGBA", (9, 9)), Image.new("RGB", (9, 9), "white")),
        (Image.fromarray(DEEP), None),
    ],
    ids=["turned", "clear", "16 bits"],
)
def test_picture_is_turned_and_flattened_before_it_is_judged(
    stored: Image.Image, seen: Image.Image | None, tmp_path: Path
) -> None:
    system, path = small_system(), tmp_path / "a.png"
    stored.save(path, exif=TURNED if seen is UPRIGHT else None)
    expected = system.predict_mask(seen or ui.load_image(path), 0.4)
    with Image.open(path) as picture:
        assert np.array_equal(system.predict_mask(picture, 0.4), expected)


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
        data = ui.UISegmentationData(folder, 2, SIZE, seed=seed, val_share=0.3)
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


def test_batches_are_whole_and_shuffled_and_files_read_once(
    make_pairs: MakePairs,
) -> None:
    data = ui.UISegmentationData(make_pairs(12), 4, SIZE)
    data.setup()
    assert (len(data.train_set), len(data.val_set)) == (10, 2)
    batches = list(data.train_dataloader())
    assert [tuple(batch.image.shape) for batch in batches] == [(4, 3, *SIZE)] * 2
    assert {batch.target.dtype for batch in batches} == {torch.float32}
    (batch,) = data.val_dataloader()
    assert batch.target.shape == (2, 1, *SIZE)
    before = torch.stack([image for image, _ in data.train_set])
    shutil.rmtree(data.data_dir)
    assert torch.equal(before, torch.stack([image for image, _ in data.train_set]))
    assert torch.equal(batch.image[1], data.val_set[1].image)
    torch.manual_seed(0)
    first = [next(iter(data.train_dataloader())).image for _ in range(4)]
    assert not all(torch.equal(first[0], image) for image in first)


def test_overfitting_data_is_the_first_pair_alone(make_pairs: MakePairs) -> None:
    folder = make_pairs(11)
    data = ui.UISegmentationData(folder, 4, SIZE, overfit_num=8)
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
        (0, {"batch_size": 0}, "batch_size 0: expected a whole number, 1 or more"),
        (0, {"overfit_num": -1}, "overfit_num -1: expected a whole number, 0 or more"),
        (0, {"val_share": 0}, "val_share 0: expected a number, 0.001 to 0.999"),
        (0, {"val_share": 1}, "val_share 1: expected a number, 0.001 to 0.999"),
        (0, {"missing": True}, "missing True: expected one of error, empty, skip"),
        (0, {"scenes": Path("a.csv")}, "scenes .*expected what read_scenes gives"),
        (0, {"image_size": (0, 32)}, r"image_size \(0, 32\): expected one whole num"),
    ],
)
def test_settings_and_too_little_data_are_refused(
    count: int, options: dict, message: str, make_pairs: MakePairs
) -> None:
    folder = make_pairs(count)
    with pytest.raises(ValueError, match=message):
        data = ui.UISegmentationData(folder, **{"image_size": SIZE} | options)
        assert count, "bad settings are refused at once"
        data.setup()


def test_bad_folder_is_refused_before_training(tmp_path: Path, train: Train) -> None:
    data = ui.UISegmentationData(tmp_path / "gone", 1, SIZE)
    with pytest.raises(FileNotFoundError, match="gone: there is no such folder"):
        train(small_system(), data)


def test_progress_has_no_clock(
    make_pairs: MakePairs, train: Train, capsys: pytest.CaptureFixture[str]
) -> None:
    data = overfit_data(make_pairs(1))
    train(small_system(), data, callbacks=[ui.StepProgress()])
    out = capsys.readouterr().out.replace("\r", "\n").strip().splitlines()
    assert out[0].endswith("| 0/4 steps")
    assert out[-1].endswith("| 4/4 steps")
    assert all(line.startswith("training: ") for line in out)
    assert "s/it" not in "".join(out) and "it/s" not in "".join(out)


def test_steps_of_several_batches_are_counted_once(
    make_pairs: MakePairs, train: Train, capsys: pytest.CaptureFixture[str]
) -> None:
    data, still = overfit_data(make_pairs(1)), small_system(learning_rate=1e-8)
    watch = ui.Watch(tensors(data.data_dir)[0], 1)
    callbacks = [ui.StepProgress(), watch]
    train(still, data, callbacks=callbacks, accumulate_grad_batches=2)
    assert capsys.readouterr().out.rstrip().endswith("| 2/2 steps")
    assert watch.steps == [0, 1, 2]
    assert watch.losses == pytest.approx([watch.losses[0]] * 3, rel=1e-3)


def test_runs_without_an_end_or_validation_are_refused(
    make_pairs: MakePairs, train: Train, tmp_path: Path
) -> None:
    folder, keeper = make_pairs(1), ui.RunFolder(tmp_path / "run")
    averages = [keeper, pl.callbacks.EMAWeightAveraging()]
    with pytest.raises(ValueError, match=r"beside averaged weights.* ModelC"):
        train(small_system(), overfit_data(folder), callbacks=averages)
    with pytest.raises(ValueError, match="RunFolder: there is no validation data"):
        train(small_system(), DataLoader(tensors(folder)), callbacks=[keeper])
    assert not keeper.folder.exists()
    with pytest.raises(ValueError, match="give the Trainer max_epochs or max_steps"):
        train(small_system(), overfit_data(folder), max_epochs=-1)
    with pytest.raises(ValueError, match="max_steps, the latter for a stream"):
        train(small_system(), DataLoader(Stream(tensors(folder))), max_epochs=1)


@pytest.mark.parametrize("own", [None, (16, 24)])
def test_predicts_at_the_size_it_was_trained_at(
    own: tuple[int, int] | None, make_pairs: MakePairs, train: Train, tmp_path: Path
) -> None:
    system = small_system(image_size=own)
    data = ui.UISegmentationData(make_pairs(3), 2, (32, 48), overfit_num=4)
    trainer = train(system, data, max_epochs=1)
    assert tuple(system.settings["image_size"]) == (own or (32, 48))
    trainer.save_checkpoint(tmp_path / "own.ckpt", weights_only=True)
    again = ui.load_system(tmp_path / "own.ckpt")
    seen = []
    again.network.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    assert again.predict_mask(draw_image(1, (20, 10))).shape == (10, 20)
    assert seen[0].shape[-2:] == (own or (32, 48))
    larger = ui.UISegmentationData(data.data_dir, 2, (64, 64), overfit_num=2)
    train(again, larger, max_epochs=1)
    assert tuple(again.settings["image_size"]) == (64, 64)


def test_a_checkpoint_may_be_judged_on_other_pictures(
    make_pairs: MakePairs, train: Train, tmp_path: Path
) -> None:
    data = ui.UISegmentationData(make_pairs(4), 2, SIZE, val_share=0.5)
    system, path = small_system(), tmp_path / "half.ckpt"
    trainer = train(system, data, max_epochs=1)
    trainer.save_checkpoint(path)
    other = overfit_data(data.data_dir)
    (scores,) = trainer.validate(system, other, ckpt_path=path, verbose=False)
    assert 0 <= scores["val_iou"] <= 1
    with pytest.raises(ValueError, match=r"validates on other images .*_input.png;"):
        train(small_system(), other, ckpt_path=path)


@dataclass
class Stream(IterableDataset):
    """Samples without a length."""

    samples: list[ui.Sample]

    def __iter__(self) -> Iterator[ui.Sample]:
        return iter(self.samples)


class Once(Stream):
    """A stream that gives each sample once, however often it is begun."""

    def __iter__(self) -> Iterator[ui.Sample]:
        self.rest = getattr(self, "rest", iter(self.samples))
        return self.rest


class Counted(Stream):
    """A stream that knows its length."""

    def __len__(self) -> int:
        return len(self.samples)


@pytest.mark.parametrize("kind", [Stream, Counted])
def test_a_run_may_validate_a_stream(
    kind: type[Stream], make_pairs: MakePairs, train: Train, tmp_path: Path
) -> None:
    samples = tensors(make_pairs(2))
    keeper = ui.RunFolder(tmp_path / "run")
    loaders = DataLoader(samples, 2), DataLoader(kind(samples), 2)
    train(small_system(), loaders[0], None, loaders[1], callbacks=[keeper])
    names = {"log.csv", "last.ckpt", "best.ckpt", "curves.png", "epochs"}
    assert {path.name for path in keeper.folder.iterdir()} == names
    drawn = Image.open(keeper.folder / "epochs" / "001.png")
    assert drawn.size == (4 * SIZE[1], 2 * SIZE[0])


def test_a_stream_of_one_pass_loses_nothing(
    make_pairs: MakePairs, train: Train
) -> None:
    loader = DataLoader(Once(tensors(make_pairs(2)) * 2), 2)
    trainer = train(small_system(), loader, max_epochs=-1, max_steps=2)
    assert trainer.global_step == 2 and [*loader] == []


@pytest.mark.parametrize("precision", ["bf16-true", "64-true"])
def test_a_run_of_another_precision_is_kept(
    precision: str, make_pairs: MakePairs, train: Train, tmp_path: Path
) -> None:
    samples = tensors(make_pairs(2))
    callbacks = [ui.RunFolder(tmp_path / "run"), watch := ui.Watch(samples[0], 1)]
    loader, others = DataLoader(samples, 2), [DataLoader(samples)]  # a list of loaders
    options = {"callbacks": callbacks, "precision": precision, "max_epochs": 1}
    train(small_system(), loader, None, others, **options)
    assert watch.steps == [0, 1] and watch.probabilities[0].dtype == torch.float32
    assert (tmp_path / "run" / "best.ckpt").exists()


def with_dropout() -> torch.nn.Sequential:
    last = torch.nn.BatchNorm2d(1), torch.nn.Dropout(0.5)
    return torch.nn.Sequential(torch.nn.Conv2d(3, 1, 1), *last)


def test_a_loaded_system_is_trained_in_training_mode(
    make_pairs: MakePairs, train: Train, tmp_path: Path
) -> None:
    data = overfit_data(make_pairs(1))
    system = ui.UISegmentationSystem(network=with_dropout())
    train(system, data).save_checkpoint(tmp_path / "own.ckpt", weights_only=True)
    again = ui.load_system(tmp_path / "own.ckpt", with_dropout())
    assert not again.training and not again.network.training
    train(again, data)
    assert again.training and again.network.training
    before, after = (one.network[1].running_mean for one in (system, again))
    assert not torch.equal(before, after)


class Mine(ui.UISegmentationSystem):
    """A subclass with a setting, kept in Lightning's way, and a loss with a buffer."""

    def __init__(self, alpha: float | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.alpha = alpha
        self.measure = torch.nn.BCEWithLogitsLoss(pos_weight=torch.tensor([2.0]))
        if alpha:
            self.save_hyperparameters("alpha")

    def loss(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return self.measure(logits, targets)


@pytest.mark.parametrize(
    ("alpha", "load"),
    # A float64 is plain in the checkpoint, which is read again.
    [(np.float64(0.3), Mine.load_from_checkpoint), (None, ui.load_system)],
)
def test_a_subclass_keeps_its_settings_and_its_loss(
    alpha: float, load: Callable, make_pairs: MakePairs, train: Train, tmp_path: Path
) -> None:
    system, path = Mine(alpha, max_features=16, image_size=SIZE), tmp_path / "own.ckpt"
    trainer = train(system, overfit_data(make_pairs(1)), max_epochs=1)
    trainer.save_checkpoint(path, weights_only=True)
    again = load(path)
    assert getattr(again, "alpha", None) == alpha
    assert again.settings["max_features"] == 16
    assert np.array_equal(again.predict_mask(UPRIGHT), system.predict_mask(UPRIGHT))
    kept: dict[str, Any] = {}
    Mine(torch.nn.ReLU).on_save_checkpoint(kept)  # what has no plain form is text
    assert "ReLU" in kept["hyper_parameters"]["alpha"]


class Doubled(ui.UISegmentationSystem):
    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(image)


def test_a_forward_of_ones_own_is_not_lost(
    make_pairs: MakePairs, train: Train, tmp_path: Path
) -> None:
    system, path = Doubled(max_features=16, image_size=SIZE), tmp_path / "own.ckpt"
    train(system, overfit_data(make_pairs(1)), max_epochs=1).save_checkpoint(path)
    message = r"own\.ckpt: .*Doubled has a forward of its own.*load_from_checkpoint"
    with pytest.raises(ValueError, match=message):
        ui.load_system(path)
    again = Doubled.load_from_checkpoint(path)
    assert np.array_equal(again.predict_mask(UPRIGHT), system.predict_mask(UPRIGHT))


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


class Told(ui.RunFolder):
    """Keeps a run by scores that it is told, and the head's weights of each epoch."""

    def on_validation_end(self, trainer: pl.Trainer, module: Any) -> None:
        epoch = trainer.current_epoch
        self._scores = {"val_loss": 1.0, "val_iou": (0.1, 0.3, 0.2, 0.2, 0.2)[epoch]}
        self.heads = [*getattr(self, "heads", []), module.network.head.weight.clone()]


@pytest.fixture
def keep(make_pairs: MakePairs, train: Train) -> Callable[..., None]:
    """Give a function that trains a small system, kept by a ui.RunFolder."""
    data = ui.UISegmentationData(make_pairs(8), image_size=SIZE, batch_size=2)

    def run(keeper: ui.RunFolder, **options: Any) -> None:
        options |= {"callbacks": [keeper], "num_sanity_val_steps": 0}
        train(small_system(), data, **options)

    return run


def test_epochs_without_validation_have_empty_cells(
    keep: Callable[..., None], tmp_path: Path
) -> None:
    keeper = ui.RunFolder(tmp_path / "run")
    keep(keeper, max_epochs=4, check_val_every_n_epoch=2)
    assert ["val_iou" in row for row in keeper.rows] == [False, True, False, True]
    assert (tmp_path / "run" / "best.ckpt").exists()


def test_of_a_trial_nothing_is_kept(keep: Callable[..., None], tmp_path: Path) -> None:
    keep(ui.RunFolder(tmp_path / "run"), fast_dev_run=True)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("patience", "epochs"), [(0, 5), (1, 3), (2, 4), (3, 5)])
def test_the_best_epoch_is_kept_and_training_stops_after_epochs_without_gain(
    keep: Callable[..., None], tmp_path: Path, patience: int, epochs: int
) -> None:
    keeper = Told(tmp_path / "run", patience=patience)
    keep(keeper, max_epochs=5)
    assert len(keeper.rows) == epochs
    for name, epoch in (("best", 1), ("last", epochs - 1)):
        kept = ui.load_system(keeper.folder / f"{name}.ckpt").network.head.weight
        same = [torch.equal(kept, head) for head in keeper.heads]
        assert same == [number == epoch for number in range(epochs)]
