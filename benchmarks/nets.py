"""The networks that the benchmarks compare: one output channel, random weights."""

import importlib.util
import itertools
from collections.abc import Callable
from functools import partial

import torch
from torch import nn

import ui_segmentation_system as ui

WIDTHS = (16, 32, 64, 128, 256)
# As many parameters as `ui.UNet()` has, one level as wide as in MONAI's own default.
SMALL_MONAI = (22, 22, 44, 88, 176, 22)
# The narrowest decoder that still ends as wide as the default one.
SMALL_DECODER = (128, 64, 32, 16, 16)


class DoubleConv(nn.Sequential):
    """Two 3x3 convolutions with ReLU: (B, C_in, H, W) -> (B, C_out, H, W)."""

    def __init__(self, num_in: int, num_out: int, batch_norm: bool) -> None:
        layers: list[nn.Module] = []
        for channels in (num_in, num_out):
            layers.append(nn.Conv2d(channels, num_out, 3, padding=1))
            if batch_norm:
                layers.append(nn.BatchNorm2d(num_out))
            layers.append(nn.ReLU(inplace=True))
        super().__init__(*layers)


class TextbookUNet(nn.Module):
    """The UNet of many tutorials, PyTorch's own initial weights; H, W multiples of 16.

    (B, 3, H, W) -> logits (B, 1, H, W); 1.94 M parameters.
    """

    def __init__(self, batch_norm: bool = False) -> None:
        super().__init__()
        pairs = list(itertools.pairwise(WIDTHS))
        self.first = DoubleConv(3, WIDTHS[0], batch_norm)
        self.pool = nn.MaxPool2d(2)
        self.downs = nn.ModuleList(DoubleConv(*pair, batch_norm) for pair in pairs)
        self.ups = nn.ModuleList(
            nn.ConvTranspose2d(wide, thin, 2, stride=2) for thin, wide in pairs
        )
        self.blocks = nn.ModuleList(
            DoubleConv(2 * thin, thin, batch_norm) for thin, _ in pairs
        )
        self.head = nn.Conv2d(WIDTHS[0], 1, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        skips = [self.first(image)]
        for down in self.downs:
            skips.append(down(self.pool(skips[-1])))
        x = skips.pop()
        for up, block in zip(self.ups[::-1], self.blocks[::-1], strict=True):
            x = block(torch.cat([skips.pop(), up(x)], dim=1))
        return self.head(x)


def monai_unet(*features: int) -> nn.Module:
    """MONAI's BasicUNet for pictures, as wide as it comes or of six given widths."""
    from monai.networks.nets import BasicUNet

    widths = {"features": features} if features else {}
    return BasicUNet(spatial_dims=2, in_channels=3, out_channels=1, **widths)


def smp_unet(encoder: str, *decoder: int) -> nn.Module:
    """Make a Unet of segmentation_models_pytorch without pretrained weights."""
    import segmentation_models_pytorch as smp

    widths = {"decoder_channels": decoder} if decoder else {}
    return smp.Unet(encoder, encoder_weights=None, **widths)


TEXTBOOK = "textbook UNet"
NETWORKS: dict[str, Callable[[], nn.Module]] = {
    TEXTBOOK: TextbookUNet,
    "`UNet()`": ui.UNet,
    "`UNet(fast=True)`": partial(ui.UNet, fast=True),
    "MONAI BasicUNet": monai_unet,
    "MONAI BasicUNet, small": partial(monai_unet, *SMALL_MONAI),
    "smp Unet, resnet18": partial(smp_unet, "resnet18"),
    "smp Unet, lcnet": partial(smp_unet, "tu-lcnet_050", *SMALL_DECODER),
}


def need_packages() -> None:
    """Raise ValueError if a package that only the benchmarks use is not installed."""
    needed = ("monai", "segmentation_models_pytorch")
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    if missing:
        raise ValueError(
            f"{' and '.join(missing)} not installed; run: "
            "pip install -r benchmarks/requirements.txt"
        )


def count_parameters(network: nn.Module) -> int:
    return sum(weights.numel() for weights in network.parameters())


def set_prior(network: nn.Module, share: float) -> None:
    """Start any of these networks at the share of foreground, as `ui.UNet` can.

    share: 0..1. The last convolution is the head.
    """
    heads = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d)]
    prior = torch.logit(torch.tensor(share, dtype=torch.float64), eps=1e-3)
    nn.init.constant_(heads[-1].bias, float(prior))
