"""The three tasks of the system: learnt by heart, resumed, saved, drawn, refused."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from PIL import Image
from pytorch_lightning.callbacks import ModelCheckpoint

import ui_segmentation_system as ui
from tests.conftest import (
    MakePairs,
    Train,
    draw_image,
    equal,
    find_box,
    small_system,
)

SIZE = (32, 32)
GREEN = (30, 220, 30)
MakeMaps = Callable[..., Path]


def paint_stripe(image: Image.Image) -> np.ndarray:
    """Paint a green stripe across image and box; where it is, bool (H, W)."""
    where = np.zeros((image.height, image.width), bool)
    where[image.height // 4 : image.height // 4 + 5, 1:-1] = True
    image.paste(Image.new("RGB", image.size, GREEN), mask=Image.fromarray(where))
    return where


@pytest.fixture
def make_maps(tmp_path: Path) -> MakeMaps:
    """Give a function that writes pairs of the "multiclass" or "multilabel" task."""

    def make(task: str, count: int = 1) -> Path:
        folder = tmp_path / task
        folder.mkdir()
        for number in range(1, count + 1):
            image = draw_image(number, SIZE)
            box = np.array(find_box(image)) > 0
            stripe = paint_stripe(image)
            if task == "multiclass":
                values = np.where(stripe, 2, box).astype(np.uint8)
                values[-2:, :4] = 255
            else:
                values = ui.pack_masks(np.stack([box, stripe])).numpy()
            image.save(folder / f"{number}_input.png")
            Image.fromarray(values).save(folder / f"{number}_target.png")
        return folder

    return make


READ = {
    "multiclass": partial(ui.load_classes, num_classes=3),
    "multilabel": partial(ui.load_masks, num_classes=2),
}
OUTPUTS = {"binary": 1, "multiclass": 3, "multilabel": 2}
several = pytest.mark.parametrize("task", READ)


def new_system(task: str, seed: int = 0, **options: Any) -> ui.UISegmentationSystem:
    return small_system(seed, task=task, num_out_channels=OUTPUTS[task], **options)


def data_of(folder: Path, **options: Any) -> ui.UISegmentationData:
    options = {"overfit_num": 4, "read_target": READ[folder.name]} | options
    return ui.UISegmentationData(folder, 2, SIZE, **options)


def predict(system: ui.UISegmentationSystem, image: Image.Image) -> np.ndarray:
    return getattr(system, ui.TASKS[system.task])(image)


class Spy(pl.Callback):
    """Notes the head's bias that training starts with."""

    bias: torch.Tensor

    def on_train_batch_start(self, _: pl.Trainer, module: Any, *__: Any) -> None:
        if module.global_step == 0:
            self.bias = module.network.head.bias.detach().clone()


# ---- learning


@several
@pytest.mark.parametrize("fast", [False, True])
def test_one_picture_is_learnt_by_heart(
    make_maps: MakeMaps, train: Train, task: str, fast: bool
) -> None:
    system = new_system(task, max_features=128, fast=fast)
    data = data_of(make_maps(task), overfit_num=40)
    trainer = train(system, data, max_epochs=3)
    assert trainer.global_step == 60
    assert trainer.callback_metrics["val_iou"] > 0.97
    image, target = ui.UIImageMaskDataset(data.data_dir, read_target=READ[task])[0]
    known = np.asarray(target) != 255
    agree = predict(system, image) == np.asarray(target)
    assert np.mean(agree[known]) > 0.99


@several
def test_resumed_training_ends_where_it_would_have(
    make_maps: MakeMaps, train: Train, tmp_path: Path, task: str
) -> None:
    folder = make_maps(task)
    keep = ModelCheckpoint(tmp_path / "kept", "{epoch}", save_top_k=-1)
    whole = new_system(task)
    options = {"max_epochs": 3, "enable_checkpointing": True, "callbacks": [keep]}
    train(whole, data_of(folder), **options)
    resumed = new_system(task, seed=9)
    path = tmp_path / "kept" / "epoch=0.ckpt"
    train(resumed, data_of(folder), ckpt_path=path, max_epochs=3)
    assert equal(whole, resumed)


@pytest.mark.parametrize("task", OUTPUTS)
def test_pictures_of_which_nothing_is_known_do_no_harm(train: Train, task: str) -> None:
    image = torch.rand(3, *SIZE)
    shape = SIZE if task == "multiclass" else (OUTPUTS[task], *SIZE)
    kind = torch.long if task == "multiclass" else torch.float
    known = torch.ones(shape, dtype=kind)
    samples = [ui.Sample(image, known), ui.Sample(image, torch.full_like(known, 255))]
    system = new_system(task)
    loader = torch.utils.data.DataLoader(samples, batch_size=1)
    trainer = train(system, loader, max_epochs=3, val_dataloaders=loader)
    assert all(weight.isfinite().all() for weight in system.parameters())
    assert trainer.callback_metrics["val_loss"].isfinite()
    assert 0 <= trainer.callback_metrics["val_iou"] <= 1
    nothing = torch.full_like(known, 255)[None]
    assert system.score(system(image[None]), nothing) == 1


@several
@pytest.mark.parametrize("fast", [False, True])
def test_training_starts_at_the_shares(
    make_maps: MakeMaps, train: Train, task: str, fast: bool
) -> None:
    spy = Spy()
    data = data_of(make_maps(task))
    train(new_system(task, fast=fast), data, callbacks=[spy])
    target = data.train_set[0].target
    if task == "multiclass":
        counts = torch.stack([(target == number).sum() for number in range(3)])
        expected = (counts / counts.sum()).log()
    else:
        expected = target.mean(dim=(1, 2)).logit()
    expected = expected.repeat_interleave(4 if fast else 1)
    torch.testing.assert_close(spy.bias, expected)


def test_committed_class_maps_are_trained_on(train: Train) -> None:
    system = small_system(task="multiclass", num_out_channels=9, fast=True)
    pictures = ui.REFERENCE.parents[1] / "test_inputs"
    index = json.loads((pictures / "index.json").read_text())["items"]
    scenes = {f"{item['id']}_input.png": item["map"] for item in index}
    data = ui.UISegmentationData(
        pictures,
        4,
        (28, 32),
        scenes=scenes,
        augment=ui.train_augmentation(),
        patterns=("{key}_input.png", "classes/{key}_classes.png"),
        read_target=partial(ui.load_classes, num_classes=9),
    )
    trainer = train(system, data, max_epochs=1)
    images, targets = next(iter(data.train_dataloader()))
    assert (images.shape, targets.shape) == ((4, 3, 28, 32), (4, 28, 32))
    assert (targets.dtype, trainer.global_step) == (torch.int64, 24)
    assert 0.05 < trainer.callback_metrics["val_iou"] < 0.9


def test_logged_score_is_the_mean_over_classes_of_all_pixels(
    make_maps: MakeMaps, train: Train
) -> None:
    system = new_system("multiclass")
    # Three of ten to validate, in batches of two and one.
    data = data_of(make_maps("multiclass", 10), overfit_num=0, val_share=0.3)
    logged = train(system, data).callback_metrics
    images, targets = (torch.stack(part) for part in zip(*data.val_set, strict=True))
    assert len(images) == 3
    with torch.no_grad():
        logits = system(images)
    found = logits.argmax(dim=1)
    ious = []
    for number in range(3):
        mine, wanted = (found == number) & (targets != 255), targets == number
        if (mine | wanted).any():
            ious.append(((mine & wanted).sum() / (mine | wanted).sum()).item())
    assert logged["val_iou"].item() == pytest.approx(np.mean(ious), abs=1e-6)
    assert system.score(logits, targets) == logged["val_iou"]
    expected = ui.cross_entropy_loss(logits, targets)
    assert logged["val_loss"].item() == pytest.approx(expected.item(), abs=1e-4)


@pytest.mark.parametrize("task", OUTPUTS)
def test_counts_of_several_processes_are_added(
    monkeypatch: pytest.MonkeyPatch, task: str
) -> None:
    system, logged = new_system(task), {}
    shape = (2, *SIZE) if task == "multiclass" else (2, OUTPUTS[task], *SIZE)
    generator = torch.Generator().manual_seed(1)
    parts = []
    for _ in range(2):
        logits = torch.randn(2, OUTPUTS[task], *SIZE, generator=generator)
        targets = torch.randint(0, min(shape[1], 2), shape, generator=generator)
        parts.append((logits, targets))
    counts = [system.count(*part) for part in parts]
    losses = [system.loss(*part) * (part[1] != 255).sum() for part in parts]
    sums = [
        torch.stack([loss, torch.tensor(part[1].numel())])
        for loss, part in zip(losses, parts, strict=True)
    ]
    gathered = {counts[0].shape: torch.stack(counts), (2,): torch.stack(sums)}
    monkeypatch.setattr(system, "all_gather", lambda one: gathered[one.shape])
    monkeypatch.setattr(system, "log", logged.__setitem__)
    system.on_validation_epoch_start()
    system._counts, system._loss_sum = counts[0], sums[0]
    system.on_validation_epoch_end()
    both = [torch.cat(part) for part in zip(*parts, strict=True)]
    assert logged["val_iou"] == system.score(*both)
    assert logged["val_loss"].item() == pytest.approx(system.loss(*both).item())


def test_losses_of_masks_are_those_of_one_mask() -> None:
    logits, targets = torch.randn(2, 2, 5, 5), torch.ones(2, 2, 5, 5)
    options = {"loss": "bce_dice", "pos_weight": 3.0}
    loss = new_system("multilabel", **options).loss(logits, targets)
    assert loss == ui.bce_dice_loss(logits, targets, 3.0)
    ids = torch.randint(0, 3, (2, 5, 5))
    loss = new_system("multiclass").loss(torch.randn(2, 3, 5, 5), ids)
    logits = torch.randn(2, 3, 5, 5)
    weighted = new_system("multiclass", class_weights=[1, 2, 3])
    expected = ui.cross_entropy_loss(logits, ids, [1, 2, 3])
    assert weighted.loss(logits, ids) == expected
    assert new_system("multiclass").loss(logits, ids) != expected


# ---- predicting


@pytest.mark.parametrize("image_size", [None, (16, 48)])
@pytest.mark.parametrize("size", [(1, 1), (3, 40), (33, 31), (100, 70)])
@several
def test_prediction_for_a_picture_of_any_size(
    task: str, size: tuple[int, int], image_size: tuple[int, int] | None
) -> None:
    system = new_system(task, image_size=image_size)
    found = predict(system, draw_image(0, size).convert("P"))
    expected = {
        "multiclass": (np.dtype(np.uint8), size[::-1]),
        "multilabel": (np.dtype(bool), (2, *size[::-1])),
    }
    assert (found.dtype, found.shape) == expected[task]
    assert system.training, "predicting must leave the mode as it was"


@several
def test_prediction_is_the_network_on_the_picture(task: str) -> None:
    system = new_system(task)
    image = draw_image(0, (45, 31))
    tensor, _ = ui.ImageTargetToTensor()(image, Image.new("L", image.size))
    with torch.no_grad():
        logits = system(tensor[None])[0]
    if task == "multiclass":
        assert np.array_equal(system.predict_classes(image), logits.argmax(0).numpy())
        return
    probabilities = logits.sigmoid().numpy()
    for threshold in (0.3, 0.5, [0.6, 0.2]):
        least = np.broadcast_to(threshold, 2).reshape(2, 1, 1).astype(np.float32)
        found = system.predict_masks(image, threshold)
        assert np.array_equal(found, probabilities >= least)
    middle = np.median(probabilities, axis=(1, 2))
    share = system.predict_masks(image, middle).mean(axis=(1, 2))
    assert share == pytest.approx(0.5, abs=0.02)


def test_classes_are_chosen_after_the_logits_are_resized() -> None:
    class Edges(torch.nn.Conv2d):
        """Classes 0 and 2 on the two halves; class 1 nowhere, but second everywhere."""

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            left = torch.linspace(6, -6, image.shape[-1]).expand(image.shape[-2:])
            return torch.stack([left, torch.zeros_like(left) - 1, -left])[None]

    system = new_system("multiclass", image_size=(8, 8))
    system.network = Edges(1, 1, 1)
    found = system.predict_classes(Image.new("RGB", (80, 40)))
    assert np.unique(found).tolist() == [0, 2], "ids were blended, not logits"
    assert (found[:, :40] == 0).all() and (found[:, 40:] == 2).all()


def test_each_task_has_its_own_prediction() -> None:
    methods = {ui.TASKS[task] for task in OUTPUTS}
    assert methods == {"predict_mask", "predict_masks", "predict_classes"}
    image = draw_image(0)
    for task in OUTPUTS:
        system = new_system(task)
        predict(system, image)
        for method in methods - {ui.TASKS[task]}:
            words = f"{method}: a network of task {task}; .*use "
            with pytest.raises(ValueError, match=words + ui.TASKS[task]):
                getattr(system, method)(image)


def test_what_cannot_be_predicted_is_refused() -> None:
    image = draw_image(0)
    system = new_system("multilabel")
    with pytest.raises(ValueError, match="got ndarray; expected a PIL picture"):
        system.predict_masks(np.array(image))
    with pytest.raises(
        ValueError, match=r"threshold \[0\.5, 1\.5\]: expected one or 2, 0 to 1"
    ):
        system.predict_masks(image, [0.5, 1.5])
    with pytest.raises(ValueError, match=r"threshold .*0\.5\]: expected one or 2"):
        system.predict_masks(image, [0.5, 0.5, 0.5])
    with pytest.raises(ValueError, match="got str; expected a PIL picture"):
        new_system("multiclass").predict_classes("1_input.png")


# ---- checkpoints


@several
def test_system_survives_a_checkpoint(
    make_maps: MakeMaps, train: Train, tmp_path: Path, task: str
) -> None:
    options: dict[str, Any] = {"pos_weight": 2.0}
    if task == "multiclass":
        options = {"class_weights": torch.tensor([1.0, 2.0, 0.5])}
    system = new_system(task, fast=True, **options)
    trainer = train(system, data_of(make_maps(task)))
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    again = ui.load_system(tmp_path / "a.ckpt")
    assert equal(system, again)
    assert again.settings == system.settings
    assert again.task == task
    if task == "multiclass":
        assert again.settings["class_weights"] == [1.0, 2.0, 0.5]
    image = draw_image(3, (45, 31))
    assert np.array_equal(predict(system, image), predict(again, image))


def test_a_checkpoint_from_before_there_were_tasks_is_loaded(tmp_path: Path) -> None:
    checkpoint = ui.read_checkpoint(ui.REFERENCE)
    for name in ("task", "class_weights"):
        del checkpoint["hyper_parameters"][name]
    torch.save(checkpoint, tmp_path / "old.ckpt")
    system = ui.load_system(tmp_path / "old.ckpt")
    assert system.task == "binary"
    pictures = ui.REFERENCE.parents[1] / "test_inputs"
    total = 0
    for number in (1, 40, 77):
        image = ui.load_image(pictures / f"{number}_input.png")
        wanted = np.array(ui.load_mask(pictures / f"{number}_target.jpg")) == 255
        found = system.predict_mask(image)
        total += ui.iou_counts(*map(torch.from_numpy, (found, wanted.astype(float))))
    assert ui.iou_of(total) > 0.8


# ---- watching


@several
def test_watch_sees_each_task(make_maps: MakeMaps, train: Train, task: str) -> None:
    data = data_of(make_maps(task))
    data.setup()
    sample = data.train_set[0]
    watch = ui.Watch(sample, every_n_steps=2)
    system = new_system(task)
    train(system, data, callbacks=[watch])
    assert watch.steps == [0, 2, 4]
    assert watch.probabilities[-1].shape == (OUTPUTS[task], *SIZE)
    with torch.no_grad():
        logits = system(sample.image[None])
    assert watch.ious[-1] == pytest.approx(
        float(system.score(logits, sample.target[None]))
    )
    expected = logits[0].softmax(dim=0) if task == "multiclass" else logits[0].sigmoid()
    torch.testing.assert_close(watch.probabilities[-1], expected)


@several
def test_run_folder_draws_classes_in_their_colours(
    make_maps: MakeMaps, train: Train, tmp_path: Path, task: str
) -> None:
    system = new_system(task, max_features=128)
    data = data_of(make_maps(task), overfit_num=40)
    keeper = ui.RunFolder(tmp_path / "run")
    train(system, data, callbacks=[keeper], max_epochs=2)
    picture = np.array(Image.open(tmp_path / "run/epochs/002.png"))
    assert picture.shape == (32, 4 * 32, 3)
    image, highest, found, wanted = np.split(picture, 4, axis=1)
    sample = data.val_set[0]
    assert np.array_equal(image, ui.to_array(sample.image))
    assert np.ptp(highest, axis=2).max() == 0
    target = sample.target.numpy()
    if task == "multiclass":
        ids = target
    else:
        ids = np.where(target[1] == 1, 2, target[0]).astype(int)
    expected = np.array(ui.CLASS_COLOURS)[ids]
    assert np.array_equal(wanted, expected)
    known = ids != 255
    assert np.mean((found == expected)[known]) > 0.95
    assert {"epoch", "val_iou"} <= keeper.best.keys()
    assert len(keeper.rows) == 2
    assert ui.load_system(tmp_path / "run/best.ckpt").task == task


def test_run_folder_is_written_over_by_nobody(
    make_maps: MakeMaps, train: Train, tmp_path: Path
) -> None:
    data, folder = data_of(make_maps("multiclass")), tmp_path / "run"
    train(new_system("multiclass"), data, callbacks=[ui.RunFolder(folder)])
    kept = {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    with pytest.raises(FileExistsError, match=r"holds a run already.*ckpt_path="):
        train(new_system("multiclass"), data, callbacks=[ui.RunFolder(folder)])
    assert {path: path.read_bytes() for path in kept} == kept


def test_run_folder_needs_validation(
    make_maps: MakeMaps, train: Train, tmp_path: Path
) -> None:
    data = data_of(make_maps("multiclass"))
    data.setup()
    loader = torch.utils.data.DataLoader(data.train_set, 2)
    with pytest.raises(ValueError, match="RunFolder: there is no validation data"):
        train(
            new_system("multiclass"), loader, callbacks=[ui.RunFolder(tmp_path / "run")]
        )
    assert not (tmp_path / "run").exists()


# ---- refusing


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task": "multi_class"}, "multilabel, multiclass; did you mean multiclass"),
        ({"num_out_channels": 3}, 'num_out_channels with task "binary" 3: .*1 to 1'),
        ({"task": "multiclass"}, "num_out_channels with .* 1: .* 2 to 255"),
        ({"task": "multiclass", "num_out_channels": 256}, "num_out_channels .* 256: "),
        ({"class_weights": [1]}, r'"binary" .* class_weights \[1\]: expected .*"mult'),
        (
            {"task": "multilabel", "num_out_channels": 2, "class_weights": [1, 1]},
            r'"multilabel" .* class_weights \[1, 1\]: expected',
        ),
        (
            {"task": "multiclass", "num_out_channels": 3, "class_weights": [1, 1]},
            r"class_weights \[1\.0, 1\.0\]: expected 3 finite numbers",
        ),
        (
            {"task": "multiclass", "num_out_channels": 2, "class_weights": [1, -1]},
            "expected 2 finite numbers, one per class, from 0 up",
        ),
        ({"pos_weight": -1.0}, r"pos_weight -1\.0: expected a number above 0"),
        (
            {"task": "multilabel", "num_out_channels": 3, "pos_weight": [1, 2]},
            r"pos_weight \[1, 2\]: expected .* one for each of 3 classes",
        ),
        (
            {"task": "multiclass", "num_out_channels": 3, "loss": "bce_dice"},
            "loss 'bce_dice', .* is cross entropy",
        ),
        (
            {"task": "multiclass", "num_out_channels": 3, "pos_weight": 2.0},
            "pos_weight 2.0 .* is cross entropy",
        ),
        (
            {"task": "multiclass", "num_out_channels": 3, "loss": "dice"},
            "loss 'dice': expected one of bce, bce_dice",
        ),
    ],
)
def test_settings_that_do_not_go_together_are_refused(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        small_system(**options)


IMAGE = torch.rand(3, *SIZE)
CLASSES = torch.zeros(SIZE, dtype=torch.long)


@pytest.mark.parametrize(
    ("task", "target", "message"),
    [
        ("binary", CLASSES, r"int64.*expected .* for task 'binary' .*\(1, H, W\)"),
        (
            "multilabel",
            CLASSES,
            r"int64.*expected .* for task 'multilabel' .*\(2, H, W",
        ),
        (
            "multilabel",
            torch.ones(1, *SIZE),
            r"\[1, 32, 32\].*: expected .*\(2, H, W\)",
        ),
        (
            "multiclass",
            torch.ones(1, *SIZE),
            r"\[1, 32, 32\].* class ids, int64 \(H, W",
        ),
        ("multiclass", torch.ones(SIZE), r"float32.* class ids, int64 \(H, W"),
        (
            "multiclass",
            CLASSES + 7,
            "class ids 7 in 1024 of 1024 pixels; expected 0 to 2",
        ),
    ],
)
@pytest.mark.parametrize("with_validation", [False, True])
def test_targets_of_another_task_are_refused(
    train: Train, task: str, target: torch.Tensor, message: str, with_validation: bool
) -> None:
    loader = torch.utils.data.DataLoader([ui.Sample(IMAGE, target)] * 2)
    system = new_system(task)
    if not with_validation:
        with pytest.raises(ValueError, match=message):
            train(system, loader)
        return
    system.eval()
    with pytest.raises(ValueError, match=r"class id|expected equal shapes"):
        system.loss(system(IMAGE[None]), target[None])


def test_masks_of_two_levels_are_no_class_maps(
    make_pairs: MakePairs, train: Train
) -> None:
    folder = make_pairs(4)
    data = ui.UISegmentationData(folder, 2, SIZE, read_target=READ["multiclass"])
    message = "no training target has a pixel of 1, or a class but 0"
    with pytest.raises(ValueError, match=message):
        train(new_system("multiclass"), data)
