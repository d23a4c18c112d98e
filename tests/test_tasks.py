"""The three tasks of the system: learnt by heart, resumed, saved, drawn, refused."""

import json
import math
import multiprocessing
import random
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
from pytorch_lightning.strategies import DDPStrategy

import ui_segmentation_system as ui
from tests.conftest import Train, draw_image, equal, find_box, small_system

SIZE = (32, 32)
STRIPE = np.zeros(SIZE, bool)
STRIPE[8:13, 1:-1] = True
MakeMaps = Callable[..., Path]


@pytest.fixture
def make_maps(tmp_path: Path) -> MakeMaps:
    """Give a function that writes pairs of a task."""

    def make(task: str, count: int = 1) -> Path:
        folder = tmp_path / task
        folder.mkdir()
        for number in range(1, count + 1):
            image = draw_image(number, SIZE)
            values = np.array(find_box(image))
            box = values > 0
            image.paste((30, 220, 30), mask=Image.fromarray(STRIPE))
            if task == "multiclass":
                values = np.where(STRIPE, 2, box).astype(np.uint8)
                values[-1 - 3 * number % 10 :] = 255
            elif task == "multilabel":
                values = ui.pack_masks(np.stack([box, STRIPE])).numpy()
            image.save(folder / f"{number}_input.png")
            Image.fromarray(values).save(folder / f"{number}_target.png")
        return folder

    return make


READ = {
    "binary": ui.load_mask,
    "multiclass": partial(ui.load_classes, num_classes=3),
    "multilabel": partial(ui.load_masks, num_classes=2),
}
OUTPUTS = {"binary": 1, "multiclass": 3, "multilabel": 2}
METHODS = {
    name: f"predict_{kind}"
    for name, kind in zip(OUTPUTS, ("mask", "classes", "masks"), strict=True)
}
each_task = pytest.mark.parametrize("task", OUTPUTS)


def new_system(task: str, seed: int = 0, **options: Any) -> ui.UISegmentationSystem:
    return small_system(seed, task=task, num_out_channels=OUTPUTS[task], **options)


def data_of(folder: Path, **options: Any) -> ui.UISegmentationData:
    options = {"overfit_num": 4, "read_target": READ[folder.name]} | options
    return ui.UISegmentationData(folder, 2, SIZE, **options)


def predict(system: ui.UISegmentationSystem, image: Image.Image) -> np.ndarray:
    return getattr(system, METHODS[system.task])(image)


class Spy(pl.Callback):
    """Notes the head's bias that training starts with."""

    bias: torch.Tensor

    def on_train_batch_start(self, _: pl.Trainer, module: Any, *__: Any) -> None:
        if module.global_step == 0:
            self.bias = module.network.head.bias.detach().clone()


# ---- learning


@each_task
@pytest.mark.parametrize("fast", [False, True])
def test_one_picture_is_learnt_by_heart_and_kept_in_a_folder(
    make_maps: MakeMaps, train: Train, tmp_path: Path, task: str, fast: bool
) -> None:
    system = new_system(task, max_features=128, fast=fast)
    data, folder = data_of(make_maps(task), overfit_num=40), tmp_path / "run"
    keeper = ui.RunFolder(folder)
    trainer = train(system, data, max_epochs=3, callbacks=[keeper])
    assert trainer.global_step == 60
    assert trainer.callback_metrics["val_iou"] > 0.97
    image, target = ui.UIImageMaskDataset(data.data_dir, read_target=READ[task])[0]
    wanted = np.asarray(target)
    known = wanted != (128 if task == "binary" else 255)
    agree = predict(system, image) == (wanted == 255 if task == "binary" else wanted)
    assert np.mean(agree[known]) > 0.99

    # Drawn: the image, probabilities, what was found and what was wanted.
    drawn = np.split(np.array(Image.open(folder / "epochs/003.png")), 4, axis=1)
    sample = data.val_set[0]
    assert np.array_equal(drawn[0], ui.to_array(sample.image))
    assert np.ptp(drawn[1], axis=2).max() == 0
    ids, colours = sample.target.numpy(), np.array(ui.CLASS_COLOURS)
    if task == "binary":
        ids, colours = ids[0].astype(int), np.array([[0] * 3, [255] * 3])
    elif task == "multilabel":
        ids = np.where(ids[1] == 1, 2, ids[0]).astype(int)
    expected = colours[np.minimum(ids, len(colours) - 1)]
    assert np.array_equal(drawn[3], expected)
    assert np.mean((drawn[2] == expected)[ids != 255]) > 0.95
    assert {"epoch", "val_iou"} <= keeper.best.keys() and len(keeper.rows) == 3
    assert ui.load_system(folder / "best.ckpt").task == task

    kept = {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    with pytest.raises(FileExistsError, match=r"holds a run already.*ckpt_path="):
        train(new_system(task), data, callbacks=[ui.RunFolder(folder)])
    assert {path: path.read_bytes() for path in kept} == kept


@each_task
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
    unknown = torch.utils.data.DataLoader(samples[1:])
    with pytest.raises(ValueError, match=r"no validation target has a pixel.*expected"):
        train(new_system(task), loader, max_epochs=1, val_dataloaders=unknown)
    nothing = torch.full_like(known, 255)[None]
    assert system.score_of(system.count(system(image[None]), nothing)) == 1


@each_task
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


def test_a_bias_that_has_learnt_is_kept(make_maps: MakeMaps, train: Train) -> None:
    spy, system = Spy(), new_system("binary")
    with torch.no_grad():
        system.network.head.bias.fill_(0.25)
    train(system, data_of(make_maps("binary")), callbacks=[spy])
    assert spy.bias.tolist() == [0.25]


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


class Note(pl.Callback):
    """Each process writes a draw of every generator, and the head's bias."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def setup(self, trainer: pl.Trainer, module: Any, stage: str) -> None:
        for start in (random.seed, np.random.seed, torch.manual_seed):
            start(0)
        for weight in module.parameters():  # which a forkserver lets them share
            weight.data = weight.data.clone()

    def on_train_batch_start(self, trainer: pl.Trainer, module: Any, *_: Any) -> None:
        draws = [random.random(), np.random.rand(), torch.rand(1).item()]
        facts = {"draws": draws, "bias": module.network.head.bias.detach()}
        torch.save(facts, self.folder / f"{trainer.global_rank}.pt")


# Three of ten to validate, in batches of two and one, or one of ten.
SCORED = [("multiclass", 3), ("multilabel", 3), ("binary", 3), ("binary", 1)]


@pytest.mark.parametrize(("task", "count"), SCORED)
@pytest.mark.parametrize("processes", [1, 2])
def test_scores_are_of_all_pixels_together(
    make_maps: MakeMaps,
    train: Train,
    tmp_path: Path,
    task: str,
    count: int,
    processes: int,
) -> None:
    multiprocessing.get_context("forkserver").set_forkserver_preload([ui.__name__])
    weights = {"class_weights": [1, 2, 3]} if task == "multiclass" else {}
    system = new_system(task, **weights)
    options = {"val_share": count / 10, "augment": ui.ImageTargetRandomCrop((24, 24))}
    data = data_of(make_maps(task, 10), overfit_num=0, **options)
    options = {"callbacks": [Note(tmp_path)], "max_epochs": 1}
    if processes == 2:
        options |= {"devices": 2, "strategy": DDPStrategy(start_method="forkserver")}
    logged = train(system, data, **options).callback_metrics
    data.setup()
    images, targets = (torch.stack(part) for part in zip(*data.val_set, strict=True))
    assert len(images) == count
    with torch.no_grad():
        logits = system(images)
    torch.testing.assert_close(logged["val_loss"], system.loss(logits, targets))
    assert logged["val_iou"] == system.score_of(system.count(logits, targets))
    assert "train_loss" in logged
    if processes == 2:  # all start at the same shares, and draw otherwise
        first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
        assert torch.equal(first["bias"], second["bias"])
        assert not set(first["draws"]) & set(second["draws"])


def test_losses_of_masks_are_those_of_one_mask() -> None:
    logits, targets = torch.randn(2, 2, 5, 5), torch.ones(2, 2, 5, 5)
    options = {"loss": "bce_dice", "pos_weight": 3.0}
    loss = new_system("multilabel", **options).loss(logits, targets)
    assert loss == ui.bce_dice_loss(logits, targets, 3.0)
    ids = torch.randint(0, 3, (2, 5, 5))
    logits = torch.randn(2, 3, 5, 5)
    weighted = new_system("multiclass", class_weights=[1, 2, 3])
    expected = ui.cross_entropy_loss(logits, ids, [1, 2, 3])
    assert weighted.loss(logits, ids) == expected
    assert new_system("multiclass").loss(logits, ids) != expected


# ---- predicting


@pytest.mark.parametrize("image_size", [None, (16, 48)])
@pytest.mark.parametrize("size", [(1, 1), (3, 40), (33, 31), (100, 70)])
@each_task
def test_prediction_for_a_picture_of_any_size(
    task: str, size: tuple[int, int], image_size: tuple[int, int] | None
) -> None:
    system = new_system(task, image_size=image_size)
    found = predict(system, draw_image(0, size).convert("P"))
    shape = (2, *size[::-1]) if task == "multilabel" else size[::-1]
    assert found.shape == shape
    assert found.dtype == (np.uint8 if task == "multiclass" else bool)
    assert system.training, "predicting must leave the mode as it was"


@each_task
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
    for threshold in (0.3, 0.5, 0.8, float(probabilities.max())):
        found = getattr(system, METHODS[task])(image, threshold)
        assert np.array_equal(np.atleast_3d(found.T).T, probabilities >= threshold)
    middle = float(np.median(probabilities[0]))
    found = getattr(system, METHODS[task])(image, middle)
    share = found.reshape(-1, *found.shape[-2:])[0].mean()
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


# ---- checkpoints


@each_task
def test_checkpoints_are_loaded_and_training_resumed_from_them(
    make_maps: MakeMaps, train: Train, tmp_path: Path, task: str
) -> None:
    options: dict[str, Any] = {"pos_weight": np.float64(2), "normalize": False}
    options["max_features"] = np.int64(32)
    if task == "multiclass":
        options = {"class_weights": torch.tensor([1.0, 2.0, 0.5])}
        options["class_values"] = [(0, 0, 0), (np.uint8(9), 0, 0), (7, 0, 0)]
    system, resumed = (new_system(task, n, fast=True, **options) for n in (0, 9))
    keep = ModelCheckpoint(tmp_path, "{epoch}", save_top_k=-1)
    data, settings = data_of(make_maps(task)), {"max_epochs": 3}
    train(system, data, enable_checkpointing=True, callbacks=[keep], **settings)
    train(resumed, data, ckpt_path=tmp_path / "epoch=0.ckpt", **settings)
    image, path = draw_image(3, (45, 31)), tmp_path / "epoch=2.ckpt"
    lightnings = ui.UISegmentationSystem.load_from_checkpoint
    for again in (resumed, ui.load_system(path), lightnings(path, weights_only=True)):
        assert equal(system, again)
        assert again.settings == system.settings
        assert (again.task, again.network.shrink) == (task, 2)
        assert np.array_equal(predict(system, image), predict(again, image))
    if task == "multiclass":
        assert again.settings["class_weights"] == [1.0, 2.0, 0.5]


def test_a_checkpoint_of_another_version_is_refused_by_name(tmp_path: Path) -> None:
    checkpoint = ui.read_checkpoint(ui.REFERENCE)
    del checkpoint["hyper_parameters"]["optimizer"]  # as all of version 0.2 were
    checkpoint["pytorch-lightning_version"] = pl.__version__
    torch.save(checkpoint, tmp_path / "old.ckpt")
    for load in (ui.load_system, ui.UISegmentationSystem.load_from_checkpoint):
        with pytest.raises(ValueError, match=r"of version 0.2 or before.*train"):
            load(tmp_path / "old.ckpt")
    del checkpoint["hyper_parameters"]  # of a model that is not ours at all
    checkpoint["state_dict"] = {"weight": torch.zeros(1)}
    torch.save(checkpoint, tmp_path / "other.ckpt")
    with pytest.raises(RuntimeError, match="Missing key"):
        ui.UISegmentationSystem.load_from_checkpoint(tmp_path / "other.ckpt")


# ---- watching


@each_task
def test_watch_sees_each_task(make_maps: MakeMaps, train: Train, task: str) -> None:
    data = data_of(make_maps(task))
    data.setup()
    sample = data.train_set[0]
    watch, spy = ui.Watch(sample, every_n_steps=2), Spy()
    system, start = new_system(task), new_system(task)
    train(system, data, callbacks=[watch, spy])
    assert watch.steps == [0, 2, 4]
    start.network.head.bias.data = spy.bias
    for index, then in ((0, start), (-1, system)):
        with torch.no_grad():
            logits = then(sample.image[None])
        score = then.score_of(then.count(logits, sample.target[None]))
        assert watch.ious[index] == pytest.approx(float(score))
        expected = logits[0].softmax(0) if task == "multiclass" else logits[0].sigmoid()
        expected = expected[0] if task == "binary" else expected
        torch.testing.assert_close(watch.probabilities[index], expected)
    loss = start.loss(start(sample.image[None]), sample.target[None]).item()
    assert watch.losses[0] == pytest.approx(loss)
    with pytest.raises(ValueError, match=r"every_n_steps 0: .* number, 1 or more"):
        ui.Watch(sample, 0)


# ---- refusing


CLASSES_3 = {"task": "multiclass", "num_out_channels": 3}
BAD_SETTINGS: list[tuple[dict[str, Any], str]] = [
    ({"task": "multi_class"}, "multilabel, multiclass; did you mean multiclass"),
    ({"loss": "mse"}, "loss 'mse': expected one of bce, bce_dice"),
    ({"learning_rate": 0}, "learning_rate 0: expected a number, 1e-09 to 1000"),
    ({"num_out_channels": 3}, 'num_out_channels with task "binary" 3: expected'),
    ({"task": "multiclass"}, 'with task "multiclass" 1: expected .*, 2 to 255'),
    (CLASSES_3 | {"num_out_channels": 256}, "256: expected a whole number, 2 to 255"),
    ({"class_weights": [1]}, r"class_weights \[1\]: expected .* the last for \"multic"),
    (CLASSES_3 | {"loss": "bce"}, "loss 'bce'.*expected the first two for m"),
    (CLASSES_3 | {"pos_weight": 2.0}, "pos_weight 2.0 .*expected the first two for ma"),
    (CLASSES_3 | {"class_weights": [1, 1]}, r"class_weights \[1.0, 1.0\]: expected 3"),
    (CLASSES_3 | {"class_weights": [1, 1, -1]}, "expected 3 finite numbers.*from 0 up"),
    (CLASSES_3 | {"class_names": ["a"]}, r"class_names \['a'\]: expected 3"),
    ({"pos_weight": -1}, "pos_weight -1: expected a number above 0"),
    ({"pos_weight": math.inf}, "pos_weight inf: expected a number above 0"),
    ({"image_size": (0, 32)}, r"image_size \(0, 32\): expected one whole number of"),
    ({"network": "Bright"}, "network 'Bright': expected a torch.nn.Module"),
    ({"max_features": 100}, "max_features 100: expected a multiple of 16"),
]


@pytest.mark.parametrize(("options", "message"), BAD_SETTINGS)
def test_settings_that_do_not_go_together_are_refused(
    options: dict, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        small_system(**options)


PICTURE = draw_image(0)
UNPREDICTED: list[tuple[str, str, tuple, str]] = [
    # task, method, arguments, message
    *(
        (task, method, (PICTURE,), f"{method}: .* task {task}; .*use {METHODS[task]}$")
        for task in OUTPUTS
        for method in METHODS.values()
        if method != METHODS[task]
    ),
    *(
        (task, METHODS[task], (given,), f"got {kind}; expected a PIL picture; .*load_i")
        for task in OUTPUTS
        for given, kind in ((np.array(PICTURE), "ndarray"), ("1_input.png", "str"))
    ),
    ("binary", "predict_mask", (PICTURE, 128), "threshold 128: expected a number, 0"),
    ("binary", "predict_mask", (PICTURE, np.nan), "threshold nan: expected a number"),
    *(
        ("multilabel", "predict_masks", (PICTURE, given), "threshold .* a number, 0 to")
        for given in (1.5, np.nan, [0.5] * 2)
    ),
]


@pytest.mark.parametrize("case", range(len(UNPREDICTED)))
def test_what_cannot_be_predicted_is_refused(case: int) -> None:
    task, method, given, message = UNPREDICTED[case]
    with pytest.raises(ValueError, match=message):
        getattr(new_system(task), method)(*given)


IMAGE = torch.rand(3, *SIZE)
CLASSES = torch.zeros(SIZE, dtype=torch.long)


UNLEARNT: list[tuple[str, Any, Any, str]] = [
    # task, image and target of a sample, message
    ("binary", IMAGE, CLASSES, r'\(1, 32, 32\): .*equal shapes.*task="multiclass"'),
    ("multilabel", IMAGE, CLASSES, 'class ids are for cross.*, task="multiclass"'),
    ("multilabel", IMAGE, IMAGE[:1], r"\(1, 2, 32, 32\) and targets \(1, 1, 32, 32\)"),
    ("multiclass", IMAGE, IMAGE[:1], r"float32 \(1, 1, 32, 32\): .*class ids, int64"),
    ("multiclass", IMAGE, IMAGE[0], "torch.float32 .*: expected .*class ids, int64"),
    ("multiclass", IMAGE, CLASSES + 7, "class ids 7 .*; expected 0 to 2, or 255"),
    (
        *("binary", IMAGE * 255, torch.ones(1, *SIZE)),
        r"sample of .* up to 254.* in 0\.\.1, the target; see ImageTarget",
    ),
    ("binary", draw_image(0), find_box(draw_image(0)), "of Image, Image: expected two"),
    ("binary", IMAGE, torch.full((1, *SIZE), 255.0), "no .* a pixel of 1.* by 255"),
    ("binary", IMAGE, torch.full((1, *SIZE), 254.0), "of 254 to 254: .* by 255"),
    ("multiclass", IMAGE, CLASSES, "no training target has .* a class but 0: expected"),
]


@pytest.mark.parametrize("case", range(len(UNLEARNT)))
def test_samples_that_teach_nothing_are_refused(case: int, train: Train) -> None:
    task, image, target, message = UNLEARNT[case]
    samples = [ui.Sample(image, target)] * 2
    loader = torch.utils.data.DataLoader(samples, collate_fn=list)
    with pytest.raises(ValueError, match=message):
        train(new_system(task), loader)


def test_samples_to_validate_are_looked_at_too(train: Train) -> None:
    good, mask = ui.Sample(IMAGE, torch.ones(1, *SIZE)), torch.zeros(1, *SIZE)
    loader = torch.utils.data.DataLoader([good] * 2)
    half = torch.cat([mask[:, :16], mask[:, :16] + 255], dim=1)
    for sample, message in (
        (good._replace(target=half), "no validation target has .* by 255"),
        (good._replace(image=IMAGE * 255), "validation sample of .* up to 254"),
        (good._replace(image=IMAGE * math.nan), "validation sample of .* up to nan"),
        ({"image": IMAGE, "mask": mask}, "validation sample of dict: expected two"),
    ):
        others = torch.utils.data.DataLoader([sample] * 2)
        with pytest.raises(ValueError, match=message):
            train(new_system("binary"), loader, None, others, num_sanity_val_steps=0)
    # What shows nothing is no fault; nor are first ones that do.
    for samples in [mask] * 2, [half] * 120 + [good.target]:
        others = [ui.Sample(IMAGE, target) for target in samples]
        others = torch.utils.data.DataLoader(others)
        train(new_system("binary"), loader, None, others, limit_val_batches=1)
