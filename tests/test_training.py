"""The Lightning system and its data: seeds, resuming, scores, masks of any size."""

import copy
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from PIL import Image
from pytorch_lightning.callbacks import ModelCheckpoint

from tests.conftest import MakePairs, Train, draw_image, equal, small_system
from ui_segmentation_system import (
    ImageTargetCompose,
    ImageTargetResize,
    ImageTargetToTensor,
    Sample,
    StepProgress,
    UIImageMaskDataset,
    UISegmentationData,
    UISegmentationSystem,
    UNet,
    Watch,
    bce_loss,
    binary_iou,
    foreground_share,
    load_image,
    load_system,
)

SIZE = (32, 32)


class Spy(pl.Callback):
    """Notes rates and gradient norms of each step, and how the head's bias starts."""

    def __init__(self) -> None:
        self.rates: list[float] = []
        self.norms: list[float] = []
        self.bias: float | None = None

    def on_train_batch_start(
        self, trainer: pl.Trainer, module: UISegmentationSystem, *_: Any
    ) -> None:
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])
        if self.bias is None:
            self.bias = module.network.head.bias.item()

    def on_before_zero_grad(
        self, trainer: pl.Trainer, module: UISegmentationSystem, _: Any
    ) -> None:
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


def test_resumed_training_ends_where_it_would_have(
    make_pairs: MakePairs, train: Train, tmp_path: Path
) -> None:
    folder = make_pairs(1)
    keep = ModelCheckpoint(
        tmp_path / "kept", "{epoch}", every_n_epochs=1, save_top_k=-1
    )
    whole = small_system()
    options = {"max_epochs": 3, "enable_checkpointing": True, "callbacks": [keep]}
    train(whole, overfit_data(folder), **options)
    resumed = small_system(seed=9)
    path = tmp_path / "kept" / "epoch=0.ckpt"
    train(resumed, overfit_data(folder), ckpt_path=path, max_epochs=3)
    assert equal(whole, resumed)


def test_one_picture_is_learnt_by_heart(make_pairs: MakePairs, train: Train) -> None:
    system = small_system(max_features=32)
    data = UISegmentationData(make_pairs(1), 1, SIZE, overfit_num=20)
    trainer = train(system, data, max_epochs=3)
    assert trainer.global_step == 60
    assert trainer.callback_metrics["val_iou"] > 0.98
    image, target = data.val_set[0]
    found = system.predict_mask(Image.fromarray(to_pixels(image)))
    assert np.mean(found == target[0].numpy().astype(bool)) > 0.99


def to_pixels(image: torch.Tensor) -> np.ndarray:
    return (image * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()


def test_logged_scores_are_of_all_pixels_together(
    make_pairs: MakePairs, train: Train
) -> None:
    system = small_system()
    # A third of ten: three to validate, in batches of two and one.
    data = UISegmentationData(make_pairs(10), 2, SIZE, val_share=0.3)
    logged = train(system, data).callback_metrics
    images, targets = (torch.stack(part) for part in zip(*data.val_set, strict=True))
    with torch.no_grad():
        logits = system(images)
    assert len(images) == 3
    iou = binary_iou(logits, targets, from_logits=True)
    torch.testing.assert_close(logged["val_iou"], iou)
    torch.testing.assert_close(logged["val_loss"], bce_loss(logits, targets))
    assert "train_loss" in logged


def test_training_starts_at_the_share_of_foreground(
    make_pairs: MakePairs, train: Train
) -> None:
    folder = make_pairs(1)
    spy = Spy()
    train(small_system(), overfit_data(folder), callbacks=[spy])
    share = foreground_share([tensors(folder)[0].target])
    assert spy.bias == pytest.approx(np.log(share / (1 - share)), abs=1e-5)


def test_rates_follow_one_cycle(make_pairs: MakePairs, train: Train) -> None:
    spy = Spy()
    options = {"max_epochs": 10, "limit_val_batches": 0, "callbacks": [spy]}
    train(small_system(), overfit_data(make_pairs(1)), **options)
    assert len(spy.rates) == 20
    assert spy.rates[0] == pytest.approx(1e-3)
    assert max(spy.rates) == pytest.approx(1e-2)
    assert np.argmax(spy.rates) == 5  # the sixth of 20: 30 %
    assert spy.rates[-1] == pytest.approx(1e-5, rel=0.01)


def test_gradients_are_clipped_at_1(make_pairs: MakePairs, train: Train) -> None:
    folder = make_pairs(1)
    spy = Spy()
    train(small_system(pos_weight=1e4), overfit_data(folder), callbacks=[spy])
    assert spy.norms[0] == pytest.approx(1, abs=1e-3)
    assert max(spy.norms) <= 1.001
    spy = Spy()
    options = {"callbacks": [spy], "gradient_clip_val": 0.25}
    train(small_system(pos_weight=1e4), overfit_data(folder), **options)
    assert spy.norms[0] == pytest.approx(0.25, abs=1e-3)


def test_loss_and_its_weight_are_used(make_pairs: MakePairs) -> None:
    image, target = (part[None] for part in tensors(make_pairs(1))[0])
    logits = small_system()(image)
    assert small_system().loss(logits, target) == bce_loss(logits, target)
    weighted = small_system(pos_weight=3.0).loss(logits, target)
    assert weighted == bce_loss(logits, target, 3.0)
    both = small_system(loss="bce_dice").loss(logits, target)
    assert bce_loss(logits, target) < both < bce_loss(logits, target) + 1
    with pytest.raises(ValueError, match="loss 'mse': expected one of bce, bce_dice"):
        UISegmentationSystem(loss="mse")


def test_system_survives_a_checkpoint(
    make_pairs: MakePairs, train: Train, tmp_path: Path
) -> None:
    system = small_system(max_features=32, normalize=False, fast=True, pos_weight=2.0)
    trainer = train(system, overfit_data(make_pairs(1)))
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    again = UISegmentationSystem.load_from_checkpoint(
        tmp_path / "a.ckpt", weights_only=True
    )
    assert system.network.shrink == 2, "fast did not reach the network"
    assert equal(system, again)
    assert again.hparams == system.hparams
    image = draw_image(3, (45, 31))
    assert np.array_equal(system.predict_mask(image), again.predict_mask(image))


@pytest.mark.parametrize("image_size", [None, SIZE])
@pytest.mark.parametrize("size", [(1, 1), (3, 40), (16, 16), (33, 31), (100, 70)])
@pytest.mark.parametrize("mode", ["RGB", "L", "P"])
def test_mask_for_a_picture_of_any_size(
    image_size: tuple[int, int] | None, size: tuple[int, int], mode: str
) -> None:
    system = small_system(image_size=image_size)
    mask = system.predict_mask(draw_image(0, size).convert(mode))
    assert (mask.dtype, mask.shape) == (np.dtype(bool), size[::-1])
    assert system.training, "predicting must leave the mode as it was"


def test_mask_is_the_network_on_the_picture() -> None:
    system = small_system()
    image = draw_image(0, (45, 31))
    tensor, _ = ImageTargetToTensor()(image, Image.new("L", image.size))
    with torch.no_grad():
        probabilities = system(tensor[None]).sigmoid()[0, 0].numpy()
    for threshold in (0.3, 0.5, 0.8):
        mask = system.predict_mask(image, threshold)
        assert np.array_equal(mask, probabilities >= threshold)
    assert 0 < system.predict_mask(image, float(np.median(probabilities))).mean() < 1


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


def test_what_cannot_be_judged_is_refused() -> None:
    image = draw_image(0)
    with pytest.raises(ValueError, match="got ndarray; expected a PIL picture"):
        small_system().predict_mask(np.array(image))
    with pytest.raises(ValueError, match="threshold 128: expected a number, 0 to 1"):
        small_system().predict_mask(image, 128)
    several = small_system(task="multilabel", num_out_channels=2)
    with pytest.raises(ValueError, match="task multilabel; expected its own"):
        several.predict_mask(image)


@pytest.mark.parametrize(
    ("image", "target", "message"),
    [
        (
            torch.rand(3, 16, 16) * 255,
            torch.ones(1, 16, 16),
            r"expected an image \(3, H, W\) in 0..1",
        ),
        (torch.rand(3, 16, 16), torch.full((1, 16, 16), 255.0), "divided by 255"),
    ],
)
def test_unscaled_samples_are_refused(
    image: torch.Tensor, target: torch.Tensor, message: str, train: Train
) -> None:
    loader = torch.utils.data.DataLoader([Sample(image, target)] * 2)
    with pytest.raises(ValueError, match=message):
        train(small_system(), loader)


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
        (5, {"batch_size": 5}, "batch_size 5: there are only 4 training samples"),
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


def test_watch_sees_the_run_from_its_start(make_pairs: MakePairs, train: Train) -> None:
    folder = make_pairs(1)
    sample = tensors(folder)[0]
    watch = Watch(sample, every_n_steps=2)
    trainer = train(small_system(), overfit_data(folder), callbacks=[watch])
    assert trainer.global_step == 4
    assert watch.steps == [0, 2, 4]
    assert len(watch.losses) == len(watch.ious) == len(watch.probabilities) == 3
    assert {tuple(frame.shape) for frame in watch.probabilities} == {SIZE}
    last = watch.probabilities[-1][None, None]
    iou = binary_iou(last, sample.target[None], from_logits=False)
    assert watch.ious[-1] == pytest.approx(iou.item())


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
    assert watch.losses[0] == pytest.approx(bce_loss(logits, target[None]).item())
    torch.testing.assert_close(watch.probabilities[0], logits[0, 0].sigmoid())
    with pytest.raises(
        ValueError, match="every_n_steps 0: expected a whole number, 1 or more"
    ):
        Watch(Sample(image, target), 0)


def test_training_without_end_is_refused(make_pairs: MakePairs, train: Train) -> None:
    with pytest.raises(ValueError, match="give the Trainer max_epochs or max_steps"):
        train(small_system(), overfit_data(make_pairs(1)), max_epochs=-1)


@pytest.mark.parametrize("value", [0, 0.5])
def test_the_trainer_may_clip_otherwise(
    make_pairs: MakePairs, train: Train, value: float
) -> None:
    options = {"gradient_clip_val": value, "gradient_clip_algorithm": "value"}
    train(small_system(), overfit_data(make_pairs(1)), max_epochs=1, **options)


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
