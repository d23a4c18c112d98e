"""Any network in UNet's place: sizes, outputs, BatchNorm, runs, tiles, and refusals."""

import json
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import pytorch_lightning as pl
import segmentation_models_pytorch as smp
import torch
from pytorch_lightning.tuner import Tuner
from torch import nn
from torch.nn import functional as F
from torchvision.models import get_model
from torchvision.transforms import v2

import ui_segmentation_system as ui
from tests.conftest import MakePairs, Refused, Train, draw_image, equal, save_system

SIZE = (64, 96)
pytestmark = pytest.mark.usefixtures("offline")


class Pooled(nn.Module):
    """Halves twice, with BatchNorm, and goes up again: sides must be multiples of 4."""

    def __init__(self, num_out: int = 1) -> None:
        super().__init__()
        self.down = nn.Sequential(
            *(nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU()),
            nn.AvgPool2d(4),
        )
        self.up = nn.ConvTranspose2d(16, num_out, 4, stride=4)
        self.skip = nn.Conv2d(3, num_out, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.up(self.down(image)) + self.skip(image)


class Fixed(Pooled):
    """Takes one size, as a transformer may, and asserts it."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        assert image.shape[-2:] == SIZE
        return super().forward(image)


class Gives(nn.Conv2d):
    """Gives what a function makes of the logits of one convolution."""

    def __init__(self, make: Callable[[torch.Tensor], Any]) -> None:
        super().__init__(3, 1, 1)
        self.make = make

    def forward(self, image: torch.Tensor) -> Any:
        return self.make(super().forward(image))


def system_of(network: nn.Module, **options: Any) -> ui.UISegmentationSystem:
    return ui.UISegmentationSystem(network=network, **options)


def of_library(name: str, num_out: int = 1) -> nn.Module:
    """A network of segmentation_models_pytorch, or of torchvision, untrained."""
    if hasattr(smp, name):
        return getattr(smp, name)("resnet18", encoder_weights=None, classes=num_out)
    return get_model(name, weights=None, weights_backbone=None, num_classes=num_out)


@pytest.mark.parametrize(
    ("name", "multiple"),
    [
        *(("Unet", 1), ("FPN", 32), ("lraspp_mobilenet_v3_large", 1)),
        *(("deeplabv3_mobilenet_v3_large", 1), ("fcn_resnet50", 1)),
    ],
)
def test_networks_of_libraries_train_predict_tile_and_are_stored(
    name: str, multiple: int, make_pairs: MakePairs, train: Train, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    system = system_of(of_library(name), multiple_of=multiple)
    before = [weight.detach().clone() for weight in system.parameters()]
    data = ui.UISegmentationData(make_pairs(4), 2, SIZE, overfit_num=4)
    trainer = train(system, data, max_epochs=1)
    assert trainer.global_step == 2
    moved = [
        not torch.equal(old, new)
        for old, new in zip(before, system.parameters(), strict=True)
    ]
    assert np.mean(moved) > 0.95  # after a ReLU that is shut nothing learns
    system.settings["image_size"] = None
    image = draw_image(1, (75, 101))
    found = system.predict_mask(image)
    assert found.shape == (101, 75) and found.dtype == bool
    with warnings.catch_warnings():  # of a network that looks at a whole tile
        warnings.simplefilter("ignore")
        tiled = ui.predict_tiled(system, np.asarray(image), 64, 16)
    assert tiled.shape == (1, 101, 75)
    save_system(tmp_path / "a.ckpt", system)
    again = ui.load_system(tmp_path / "a.ckpt", network=of_library(name))
    assert again.settings == system.settings and equal(again, system)
    assert np.array_equal(again.predict_mask(image), found)
    own = type(system.network).__qualname__
    message = rf"a.ckpt: .*class {own}: .*load_system\(path, network=\.\.\.\)"
    with pytest.raises(ValueError, match=message):
        ui.load_system(tmp_path / "a.ckpt")
    with pytest.raises(ValueError, match=r"a.ckpt: is of another model"):
        ui.load_system(tmp_path / "a.ckpt", network=Pooled())


def test_what_was_trained_compiled_loads_into_the_plain_network(tmp_path: Path) -> None:
    torch.manual_seed(0)
    compiled = system_of(torch.compile(Pooled(), backend="eager"))
    save_system(tmp_path / "a.ckpt", compiled)
    plain = ui.load_system(tmp_path / "a.ckpt", network=Pooled())
    image = torch.rand(1, 3, *SIZE)
    assert torch.equal(plain(image), compiled.eval()(image))


def test_nine_classes_of_a_dictionary(train: Train) -> None:
    torch.manual_seed(0)
    network = of_library("lraspp_mobilenet_v3_large", 9)
    system = system_of(network, task="multiclass", num_out_channels=9, image_size=SIZE)
    samples = [ui.Sample(torch.rand(3, *SIZE), torch.randint(0, 9, SIZE))] * 2
    data = torch.utils.data.DataLoader(samples, 2)
    trainer = train(system, data, val_dataloaders=data, max_epochs=1)
    assert 0 <= trainer.callback_metrics["val_iou_8"] <= 1
    found = system.predict_classes(draw_image(2, (33, 47)))
    assert found.shape == (47, 33) and found.dtype == np.uint8 and found.max() < 9


def test_only_the_part_that_comes_trained_is_slow() -> None:
    network = nn.Sequential(v2.Normalize([0.5] * 3, [0.25] * 3), Pooled())
    system = system_of(network, pretrained="1.down", learning_rate=8e-3)
    system.trainer = Mock(estimated_stepping_batches=9)
    *fresh, last = system.configure_optimizers()[0][0].param_groups
    slow = list(map(id, last["params"]))
    assert slow == list(map(id, network[1].down.parameters()))
    assert last["max_lr"] == 1e-3 and fresh[0]["max_lr"] == 8e-3
    assert not {*slow} & {id(one) for group in fresh for one in group["params"]}


def test_images_are_not_normalised() -> None:
    seen = []
    system = system_of(nn.Conv2d(3, 1, 1))
    system.network.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    system.predict_mask(draw_image(0))
    expected = torch.from_numpy(np.asarray(draw_image(0)).copy()).permute(2, 0, 1) / 255
    torch.testing.assert_close(seen[0][0], expected)


@pytest.mark.parametrize("size", [(4, 4), (5, 7), (64, 33), (1, 1)])
def test_sides_are_padded_and_logits_cut(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    system = system_of(Pooled(), multiple_of=4).eval()
    image = torch.rand(2, 3, *size)
    logits = system(image)
    assert logits.shape == (2, 1, *size)
    padding = (0, -size[1] % 4, 0, -size[0] % 4)
    padded = F.pad(image, padding, mode="replicate")
    expected = system.network(padded)[..., : size[0], : size[1]]
    torch.testing.assert_close(logits, expected)


def test_tiles_of_a_network_whose_sides_are_multiples() -> None:
    """Where windows begin at multiples and see enough, tiles give the picture's."""
    torch.manual_seed(0)
    system = system_of(Pooled(), multiple_of=4).eval()
    pixels = np.asarray(draw_image(3, (101, 75)))
    whole = ui.predict_tiled(system, pixels, 128, 0)
    for tile in (32, 30):
        options = {"weights": "centre"}
        found = ui.predict_tiled(system, pixels, tile, 16 - tile % 4, **options)
        assert found.shape == (1, 75, 101)
        if tile % 4 == 0:
            np.testing.assert_allclose(found, whole, atol=1e-5)


@pytest.mark.parametrize(
    ("network", "image", "message"),
    [
        (
            Pooled(),
            torch.rand(1, 3, 6, 8),
            r"Pooled failed on torch.float32 \(1, 3, 6, 8\): .*The size of tensor .* "
            "multiples, say of 32, need multiple_of=32",
        ),
        (
            *(Fixed(), torch.rand(1, 3, 8, 8)),
            r"Fixed failed on .*AssertionError.*, one fixed size image_size",
        ),
        (
            *(nn.Bilinear(3, 3, 1), torch.rand(1, 3, 8, 8)),  # of two inputs
            r"Bilinear failed on .*TypeError.*expected a network of float images",
        ),
        (
            *(of_library("deeplabv3_mobilenet_v3_large"), torch.rand(1, 3, 64, 96)),
            "more than 1 value per channel.*BatchNorm in training batches of two or",
        ),
        (
            *(Pooled(), torch.zeros(1, 3, 8, 8, dtype=torch.uint8)),
            r"Pooled failed on torch.uint8 \(1, 3, 8, 8",
        ),
        (
            *(Pooled(), torch.rand(3, 8, 8)),  # a ValueError, of BatchNorm
            r"Pooled failed on torch.float32 \(3, 8, 8\): .*expected 4D",
        ),
        *(
            (network, torch.rand(1, 3, 8, 8), f"the network gave {message}")
            for network, message in (
                (Pooled(2), r"torch.Size\(\[1, 2, 8, 8\]\): .*\(1, 1, 8, 8\)"),
                (Gives(lambda x: (x, x)), "tuple: expected logits .* wrap the net"),
                (Gives(lambda x: {"logits": x}), "dict: .*dictionary with them as"),
                (Gives(lambda x: x[0]), r"torch.Size\(\[1, 8, 8\]\)"),
            )
        ),
    ],
)
def test_what_does_not_fit_is_refused_by_name(
    network: nn.Module, image: torch.Tensor, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        system_of(network.train())(image)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lerning_rate": 0.1}, "lerning_rate.*no settings of UNet"),
        ({"pretrained": "enc"}, r"pretrained 'enc': expected a part, as of \["),
        *(
            ({"multiple_of": number}, "multiple_of .*: expected a whole number, 1")
            for number in (0, 2.5, "32")
        ),
    ],
)
def test_settings_that_do_not_fit_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        system_of(Pooled(), **options)


def test_training_stops_before_anything_is_written(
    make_pairs: MakePairs, train: Train, tmp_path: Path
) -> None:
    system, run = system_of(Pooled(2)), ui.RunFolder(tmp_path / "run")
    data = ui.UISegmentationData(make_pairs(4), 2, SIZE)
    with pytest.raises(ValueError, match=r"the network gave .* expected logits"):
        train(system, data, callbacks=[run])
    assert not list(tmp_path.rglob("*.ckpt"))


def test_probabilities_are_told_apart_from_logits(
    make_pairs: MakePairs, train: Train
) -> None:
    data = ui.UISegmentationData(make_pairs(4), 2, SIZE)
    with pytest.warns(UserWarning, match="0 to 1 alone, .* leave out its sigmoid"):
        train(system_of(nn.Sequential(Pooled(), nn.Sigmoid())), data, max_epochs=1)


def test_lightnings_tuner_sets_rate_and_batch_size(
    make_pairs: MakePairs, tmp_path: Path
) -> None:
    data = ui.UISegmentationData(make_pairs(8), 1, SIZE)
    system = ui.UISegmentationSystem(max_features=16, image_size=SIZE)
    off = dict.fromkeys(("logger", "enable_progress_bar"), False)
    tuner = Tuner(pl.Trainer(accelerator="cpu", default_root_dir=tmp_path, **off))
    found = tuner.lr_find(system, data, num_training=30, early_stop_threshold=None)
    assert system.settings["learning_rate"] == found.suggestion() != 4e-3
    tuner.scale_batch_size(system, datamodule=data, max_trials=1, steps_per_trial=1)
    assert data.batch_size == 2


def test_batch_norm_learns_from_training_alone_and_resumes(
    make_pairs: MakePairs, train: Train, tmp_path: Path
) -> None:
    """Neither what is watched nor what is drawn changes statistics; a batch is one."""
    data = ui.UISegmentationData(make_pairs(2), 1, (30, 46), overfit_num=2)

    def run(seed: int, folder: str, *more: Any, start: Any = None) -> Any:
        torch.manual_seed(seed)
        system = system_of(Pooled(), multiple_of=4)
        train(
            *(system, data, start),
            callbacks=[ui.RunFolder(tmp_path / folder), *more],
            plugins=[ui.SafeCheckpointIO()],
            num_sanity_val_steps=0,
        )
        return system

    whole = run(0, "whole")
    assert whole.network.down[1].num_batches_tracked == 4  # two epochs of two steps
    crash = ui.pl.callbacks.LambdaCallback(
        on_train_epoch_start=lambda trainer, _: 1 // (1 - trainer.current_epoch)
    )
    with pytest.raises(ZeroDivisionError):
        run(0, "parts", crash)
    assert equal(whole, run(1, "parts", start=tmp_path / "parts/last.ckpt"))
    best = ui.load_system(tmp_path / "parts/best.ckpt", network=Pooled())
    assert best.settings["multiple_of"] == 4
    assert best.predict_mask(draw_image(5, (46, 30))).shape == (30, 46)


def test_watch_changes_no_statistics() -> None:
    network, image = Pooled(), torch.rand(3, 8, 8)
    watch, system = ui.Watch(ui.Sample(image, torch.ones(1, 8, 8))), system_of(network)
    before = network.down[1].running_mean.clone()
    watch.on_train_batch_start(type("Trainer", (), {"global_step": 0}), system)
    assert torch.equal(network.down[1].running_mean, before) and network.training


def test_muon_moves_kernels_of_other_networks_and_adam_the_rest(
    make_pairs: MakePairs, train: Train
) -> None:
    """A network without kernels moves by Adam alone."""

    class Linear(nn.Linear):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return super().forward(image.movedim(1, -1)).movedim(-1, 1)

    data = ui.UISegmentationData(make_pairs(1), 2, (32, 32), overfit_num=4)
    for network, kernels in ((Linear(3, 1), 0), (Pooled(), 2)):
        trainer = train(system_of(network), data, max_epochs=1)
        assert len(trainer.optimizers[0].param_groups[1]["params"]) == kernels


def test_command_line_refuses_a_checkpoint_whose_network_it_cannot_know(
    make_pairs: MakePairs, tmp_path: Path, refused: Refused
) -> None:
    folder = make_pairs(3)
    save_system(tmp_path / "own.ckpt", system_of(Pooled(), image_size=SIZE))
    out = tmp_path / "out"
    train = ["train", "-d", folder, "-b", 1, "--weights"]
    for words in (["predict", folder / "1_input.png", "-c"], train):
        text = refused(*words, tmp_path / "own.ckpt", "-o", out)
        assert "own.ckpt: is of another model (a network of the class Pooled" in text
        assert not list(out.rglob("*"))


def test_the_module_imports_no_library_of_networks() -> None:
    code = "import sys, ui_segmentation_system as ui; ui.UISegmentationSystem()"
    command = [sys.executable, "-c", f"{code}; print(*sys.modules)"]
    names = subprocess.check_output(
        command, cwd=Path(ui.__file__).parent, text=True
    ).split()
    assert "torch" in names
    assert not {"segmentation_models_pytorch", "timm"} & {*names}


def test_a_run_of_before_these_settings_goes_on(
    make_pairs: MakePairs,
    tmp_path: Path,
    refused: Refused,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its checkpoints know no encoder, and its optimizer has two groups."""
    new = {"encoder", "encoder_weights", "multiple_of", "pretrained"}
    start, runs = ui.RunFolder.on_train_epoch_start, tmp_path / "runs"
    words = ["train", "-d", make_pairs(4), "-o", runs, "-b", 2, "--image-size", 32]
    words += ["--max-features", 16, "--max-epochs", 2, "--accelerator", "cpu"]

    def stop(keeper: ui.RunFolder, trainer: Any, *rest: Any) -> None:
        if trainer.current_epoch == 1:
            raise ValueError("stopped")
        start(keeper, trainer, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(ui.RunFolder, "on_train_epoch_start", stop)
        assert "stopped" in refused(*words)
    last = ui.read_checkpoint(runs / "001/last.ckpt")
    settings = json.loads((runs / "001/settings.json").read_text())
    for known in (last["hyper_parameters"], settings):
        for name in new & {*known}:
            del known[name]
    torch.save(last, runs / "001/last.ckpt")
    (runs / "001/settings.json").write_text(json.dumps(settings))
    for arguments in (["train", "--resume", runs / "001"], words):
        assert ui.main([str(word) for word in arguments]) == 0
    systems = [ui.load_system(runs / f"{run}/last.ckpt") for run in ("001", "002")]
    assert equal(*systems)
