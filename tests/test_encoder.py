"""The pretrained encoder: its file, what it refuses, its rates, no file afterwards."""

import copy
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torchvision.models import mobilenet_v2
from torchvision.transforms.v2.functional import normalize

import ui_segmentation_system as ui
from tests.conftest import (
    MakePairs,
    Refused,
    Train,
    draw_image,
    equal,
    save_system,
    weights,
)
from tools import encoder_weights

SIZE = (32, 48)
LINE = r"python -c .*mobilenet_v2\(weights='IMAGENET1K_V1'\)\" fetches mobilenet_v2-b"
LARGEST_BYTES = 5_000_000


LambdaCallback = ui.pl.callbacks.LambdaCallback
pytestmark = pytest.mark.usefixtures("offline")


def make_file(path: Path) -> Path:
    """Write what torchvision's file holds, of random weights and odd statistics."""
    torch.manual_seed(1)
    state = mobilenet_v2(weights=None).state_dict()
    for name, value in state.items():
        if "running" in name:
            value.uniform_(0.5, 2)
    path.parent.mkdir(exist_ok=True, parents=True)
    torch.save(state, path)
    return path


def encoder_system(**options: Any) -> ui.UISegmentationSystem:
    torch.manual_seed(0)
    return ui.UISegmentationSystem(encoder="mobilenet_v2", **options)


def pairs_data(folder: Path, **options: Any) -> ui.UISegmentationData:
    return ui.UISegmentationData(folder, 2, SIZE, **options)


@pytest.mark.parametrize("height", [1, 31, 32, 33, 70])
@pytest.mark.parametrize("width", [1, 40, 65])
@pytest.mark.parametrize("training", [True, False])
def test_logits_for_any_size_of_one_image(
    height: int, width: int, training: bool
) -> None:
    torch.manual_seed(0)
    network = ui.MobileNetUNet(2).train(training)
    logits = network(torch.rand(1, 3, height, width))
    assert logits.shape == (1, 2, height, width)
    assert logits.isfinite().all()
    if training:
        logits.sum().backward()


def test_it_goes_down_as_torchvision_does_on_normalised_images() -> None:
    """Each level is what torchvision's own network has there, its own mean and all."""
    torch.manual_seed(0)
    network = ui.MobileNetUNet().eval()
    image = torch.rand(1, 3, 64, 96)
    theirs = mobilenet_v2(weights=None)
    kept = torch.load(ui.ENCODER_WEIGHTS, weights_only=True)
    theirs.load_state_dict(kept, strict=False)
    x = normalize(image, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    levels = []
    for place, layer in enumerate(theirs.eval().features):
        x = layer(x)
        if place in (1, 3, 6, 13, 17):
            levels.append(x)
    first, *found = network.encode(image)
    assert first.shape == (1, 8, 64, 96)
    shapes = [(16, 32, 48), (32, 16, 24), (64, 8, 12), (128, 4, 6), (256, 2, 3)]
    assert [tuple(level.shape[1:]) for level in found] == shapes
    for level, lateral, mine in zip(levels, network.laterals, found, strict=True):
        torch.testing.assert_close(mine, lateral(level), atol=1e-3, rtol=1e-3)


def test_each_image_counts_for_itself_in_training_too() -> None:
    torch.manual_seed(0)
    network, images = ui.MobileNetUNet(), torch.rand(3, 3, 40, 70)
    alone = torch.cat([network(image[None]) for image in images])
    torch.testing.assert_close(network(images), alone, atol=1e-3, rtol=1e-3)


def test_same_image_same_logits_exported() -> None:
    torch.manual_seed(0)
    network = ui.MobileNetUNet().eval()
    side = torch.export.Dim("height", min=1), torch.export.Dim("width", min=1)
    free = {"image": dict(enumerate(side, 2))}
    example = (torch.rand(1, 3, 40, 56),)
    program = torch.export.export(network, example, dynamic_shapes=free).module()
    for size in [(1, 1), (33, 65), (64, 64)]:
        image = torch.rand(1, 3, *size)
        torch.testing.assert_close(program(image), network(image), atol=1e-3, rtol=1e-3)


def test_file_of_the_project_is_small_and_half() -> None:
    assert ui.ENCODER_WEIGHTS.stat().st_size < LARGEST_BYTES
    state = torch.load(ui.ENCODER_WEIGHTS, weights_only=True)
    assert {value.dtype for value in state.values()} == {torch.float16, torch.int64}
    assert all(value.isfinite().all() for value in state.values())
    assert not any("classifier" in name for name in state)
    readme = ui.ENCODER_WEIGHTS.with_name("README.md").read_text(encoding="utf-8")
    digest = encoder_weights.hashlib.sha256(ui.ENCODER_WEIGHTS.read_bytes())
    assert digest.hexdigest() in readme and ui.ENCODER_SHA256 in readme


def test_tool_makes_a_file_of_the_same_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    file, output = make_file(tmp_path / "theirs.pth"), tmp_path / "ours.pt"
    words = [str(file), "--output", str(output)]
    with pytest.raises(SystemExit):
        encoder_weights.main(words)
    message = capsys.readouterr().err
    assert "theirs.pth: of sha256" in message and ui.ENCODER_SHA256 in message
    assert not output.exists()
    digest = encoder_weights.hashlib.sha256(file.read_bytes()).hexdigest()
    monkeypatch.setattr(ui, "ENCODER_SHA256", digest)
    assert encoder_weights.main(words) == 0
    assert output.stat().st_size < LARGEST_BYTES
    image = torch.rand(1, 3, 64, 64)
    found, expected = (
        encoder_system(encoder_weights=path)(image) for path in (output, file)
    )
    assert (found - expected).abs().mean() < 0.02 * expected.std()
    with pytest.raises(SystemExit):
        encoder_weights.main(words)
    assert "expected a file that is not there yet" in capsys.readouterr().err


def test_without_the_projects_file_torchvisions_cache_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone.pt"
    monkeypatch.setattr(ui, "ENCODER_WEIGHTS", gone)
    message = rf"cache.*b0353104.pth: FileNotFoundError.*No such.*{LINE}.*sha256 b03"
    with pytest.raises(FileNotFoundError, match=message):
        encoder_system(encoder_weights=gone)
    cached = Path(torch.hub.get_dir(), "checkpoints", ui.ENCODER_FILE)
    make_file(cached)
    assert equal(*(encoder_system(encoder_weights=path) for path in (gone, cached)))
    with pytest.raises(FileNotFoundError, match=rf"other.pt: FileNotFound.*{LINE}"):
        encoder_system(encoder_weights=tmp_path / "other.pt")


def test_other_weights_are_refused_by_name(tmp_path: Path) -> None:
    whole, file = make_file(tmp_path / "whole.pt"), tmp_path / "other.pt"
    state = torch.load(whole, weights_only=True)
    contents = [
        [1, 2],
        mobilenet_v2(weights=None, width_mult=0.5).state_dict(),
        {name: state[name] for name in list(state)[9:]},
        {**state, "more": Path()},  # code
    ]
    for content in (*contents, whole.read_bytes()[:900_000], b"hello, a text", b""):
        if isinstance(content, bytes):
            file.write_bytes(content)
        else:
            torch.save(content, file)
        message = f"other.pt: .*Error.*; expected torchvision's M.*{LINE}"
        with pytest.raises(ValueError, match=message):
            encoder_system(encoder_weights=file)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"encoder": "resnet"}, "encoder 'resnet': expected one of unet, mobilenet_v2"),
        ({"fast": True}, "encoder mobilenet_v2: expected it without network, max_fea"),
        *(
            (option, "without network, max_features and settings of UNet; it has its")
            for option in (
                *({"max_features": 64}, {"normalize": False}, {"num_levels": 4}),
                {"network": torch.nn.Conv2d(3, 1, 1)},
                *({"multiple_of": 7}, {"pretrained": "head"}),
            )
        ),
        (
            {"encoder": "unet", "encoder_weights": "mine.pt"},
            'encoder_weights mine.pt: expected encoder="mobilenet_v2" with it',
        ),
    ],
)
def test_what_does_not_go_with_an_encoder_is_refused(
    options: dict, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        ui.UISegmentationSystem(**{"encoder": "mobilenet_v2"} | options)


@pytest.mark.parametrize(
    ("optimizer", "peaks"),
    [("muon", [8e-3, 8e-3 * 7.5, 1e-3]), ("adam", [8e-3, 1e-3])],
)
def test_each_group_peaks_at_its_own_rate(
    optimizer: str, peaks: list[float], make_pairs: MakePairs, train: Train
) -> None:
    rates = []
    note = LambdaCallback(
        on_train_batch_start=lambda trainer, *_: rates.append(
            [group["lr"] for group in trainer.optimizers[0].param_groups]
        )
    )
    system = encoder_system(learning_rate=8e-3, optimizer=optimizer)
    before = copy.deepcopy(system.network)
    data = pairs_data(make_pairs(1), overfit_num=4)
    trainer = train(system, data, max_epochs=5, limit_val_batches=0, callbacks=[note])
    assert np.max(rates, axis=0) == pytest.approx(peaks)
    assert rates[0] == pytest.approx([peak / 10 for peak in peaks])
    groups = [[*map(id, g["params"])] for g in trainer.optimizers[0].param_groups]
    assert groups[-1] == [*map(id, system.network.encoder.parameters())]
    assert sorted(itertools.chain(*groups)) == sorted(map(id, system.parameters()))
    # Weights learn, and no BatchNorm is left whose statistics could move.
    assert not list(system.network.buffers())
    pairs = zip(before.parameters(), system.network.parameters(), strict=True)
    assert not any(torch.equal(old, new) for old, new in pairs)


def test_third_group_of_muon_moves_as_under_adam() -> None:
    torch.manual_seed(0)
    kernels = [torch.nn.Parameter(torch.ones(16, 8, 3, 3)) for _ in range(2)]
    muon = ui.Muon([torch.nn.Parameter(torch.ones(2))], 4e-3)
    muon.add_param_group({"params": kernels[:1], "lr": 1e-3})
    adam = torch.optim.Adam(kernels[1:], 1e-3, betas=(0.95, 0.999))
    for _ in range(4):
        grad = torch.randn(16, 8, 3, 3)
        for kernel, optimizer in zip(kernels, (muon, adam), strict=True):
            kernel.grad = grad.clone()
            optimizer.step()
    assert torch.allclose(*kernels, atol=1e-6)


def test_a_frozen_encoder_stays(make_pairs: MakePairs, train: Train) -> None:
    system = encoder_system()
    system.network.encoder.requires_grad_(False)
    before = copy.deepcopy(system.network)
    train(system, pairs_data(make_pairs(1), overfit_num=2))
    for name, old in before.state_dict().items():
        same = torch.equal(old, weights(system)[name])
        assert same == name.startswith("encoder."), name


def test_training_starts_at_the_share_and_learns(
    make_pairs: MakePairs, train: Train
) -> None:
    folder = make_pairs(1, SIZE[::-1])
    system = encoder_system(learning_rate=1e-2)
    watch = ui.Watch(ui.UIImageMaskDataset(folder, ui.ImageTargetToTensor())[0], 1)
    train(system, pairs_data(folder, overfit_num=8), max_epochs=6, callbacks=[watch])
    assert 0.02 < watch.probabilities[0].median() < 0.5
    assert watch.ious[-1] > 0.8 and watch.losses[-1] < watch.losses[0] / 2


def test_checkpoint_needs_no_weights_file(
    tmp_path: Path, make_pairs: MakePairs, train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    system = encoder_system(
        task="multiclass", num_out_channels=9, loss="bce_dice", image_size=SIZE
    )
    save_system(tmp_path / "a.ckpt", system)
    monkeypatch.setattr(ui, "ENCODER_WEIGHTS", tmp_path / "gone.pt")
    again = ui.load_system(tmp_path / "a.ckpt")
    assert equal(system, again) and system.settings == again.settings
    assert "encoder_weights" not in again.settings
    image = draw_image(1, (37, 51))
    found = again.predict_classes(image)
    assert found.shape == (51, 37) and found.dtype == np.uint8
    assert np.array_equal(found, system.predict_classes(image))


def test_tiles_have_the_picture_s_size_and_one_tile_is_the_picture() -> None:
    system = encoder_system().eval()
    pixels = np.asarray(draw_image(2, (96, 64)))
    whole = ui.predict_tiled(system, pixels, (64, 96), 0)
    image = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None] / 255
    with torch.no_grad():
        expected = system(image)[0].sigmoid()
    np.testing.assert_allclose(whole, expected, atol=1e-4)
    tiled = ui.predict_tiled(system, np.asarray(draw_image(2, (101, 75))), 64, 32)
    assert tiled.shape == (1, 75, 101) and 0 <= tiled.min() <= tiled.max() <= 1


def test_resumed_run_ends_as_the_uninterrupted(
    make_pairs: MakePairs, train: Train, tmp_path: Path
) -> None:
    data, systems = pairs_data(make_pairs(4), overfit_num=4), []
    keep = LambdaCallback(
        on_train_epoch_end=lambda trainer, _: trainer.save_checkpoint(
            tmp_path / f"{trainer.current_epoch}.ckpt"
        )
    )
    for start in (None, tmp_path / "0.ckpt"):
        system = encoder_system(encoder_weights=None if start else ui.ENCODER_WEIGHTS)
        torch.manual_seed(3)
        options = {"callbacks": [keep], "plugins": [ui.SafeCheckpointIO()]}
        train(system, data, start, **options)
        systems.append(weights(system))
    torch.testing.assert_close(*systems)


def test_command_line_trains_resumes_predicts_and_starts_from_it(
    make_pairs: MakePairs, tmp_path: Path, refused: Refused, monkeypatch: Any
) -> None:
    folder, runs = make_pairs(4), tmp_path / "runs"
    file = make_file(tmp_path / "mine.pth")
    train = ["train", "-d", folder, "-o", runs, "--image-size", 32, "-b", 2]
    train += ["--accelerator", "cpu", "--max-epochs", 1]
    own = ["--encoder", "mobilenet_v2"]

    def main(*words: Any) -> int:
        return ui.main([str(word) for word in words])

    text = refused(*train, *own, "--encoder-weights", tmp_path / "gone.pth")
    assert "gone.pth: FileNotFoundError" in text and ui.ENCODER_SHA256 in text
    assert "expected it without network, max" in refused(*train, *own, "--fast")
    assert "encoder 'vgg': expected one of" in refused(*train, "--encoder", "vgg")
    assert not runs.exists()
    assert main(*train, *own, "--encoder-weights", file) == 0
    file.unlink()
    monkeypatch.setattr(ui, "ENCODER_WEIGHTS", tmp_path / "gone.pt")
    best = runs / "001/best.ckpt"
    out = tmp_path / "out"
    assert main("predict", "-c", best, folder / "1_input.png", "-o", out) == 0
    assert (out / "1_input_mask.png").exists()
    # What a run has learnt is enough, for itself and for others.
    assert main("train", "--resume", runs / "001") == 0
    assert main(*train, "--weights", best) == 0
    settings = ui.load_system(runs / "002/best.ckpt").settings
    assert settings["encoder"] == "mobilenet_v2"
    assert main("train", "--resume", runs / "002") == 0
    text = refused(*train, "--weights", best, "--encoder", "unet")
    assert "encoder is mobilenet_v2; expected unet" in text
