"""Networks that answer for every position: segmentation, detection, super-resolution."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from networks.topology import Input, topology


def double_conv(inputs: int, outputs: int) -> nn.Sequential:
    """Two convolutions with BatchNorm and ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
        nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


class UNet(nn.Module):
    """Three levels; what comes up is concatenated with what the way down left there."""

    def __init__(self, widths: tuple[int, int, int], bilinear: bool) -> None:
        super().__init__()
        a, b, c = widths
        self.down = nn.ModuleList([double_conv(3, a), double_conv(a, b), double_conv(b, c)])
        self.up = nn.ModuleList([self.raise_(c, b, bilinear), self.raise_(b, a, bilinear)])
        self.merge = nn.ModuleList([double_conv(2 * b, b), double_conv(2 * a, a)])
        self.out = nn.Conv2d(a, 4, 1)

    @staticmethod
    def raise_(inputs: int, outputs: int, bilinear: bool) -> nn.Module:
        """Twice the resolution, fewer channels."""
        if not bilinear:
            return nn.ConvTranspose2d(inputs, outputs, 2, 2)
        resize = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
        return nn.Sequential(resize, nn.Conv2d(inputs, outputs, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Classes of every pixel."""
        levels = [self.down[0](x)]
        for down in self.down[1:]:
            levels.append(down(functional.max_pool2d(levels[-1], 2)))
        y = levels.pop()
        for up, merge in zip(self.up, self.merge, strict=True):
            y = merge(torch.cat([levels.pop(), up(y)], 1))
        return self.out(y)


@topology()
def unet() -> nn.Module:
    """U-Net that raises the resolution by ConvTranspose."""
    return UNet((16, 32, 48), bilinear=False)


@topology()
def unet_bilinear() -> nn.Module:
    """U-Net that raises the resolution by interpolation."""
    return UNet((16, 32, 48), bilinear=True)


class ConvUnit(nn.Module):
    """Convolution, BatchNorm, SiLU: the unit that YOLO networks are made of."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Carry an image through."""
        return functional.silu(self.bn(self.conv(x)))


class C2f(nn.Module):
    """Half of the channels pass by, half go through bottlenecks, all stages are concatenated."""

    def __init__(self, inputs: int, outputs: int, depth: int, shortcut: bool = True) -> None:
        super().__init__()
        self.half = outputs // 2
        self.enter = ConvUnit(inputs, outputs)
        self.leave = ConvUnit((2 + depth) * self.half, outputs)
        self.shortcut = shortcut
        self.blocks = nn.ModuleList(
            nn.Sequential(ConvUnit(self.half, self.half, 3), ConvUnit(self.half, self.half, 3))
            for _ in range(depth)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Carry an image through."""
        stages = list(self.enter(x).chunk(2, 1))
        for block in self.blocks:
            y = block(stages[-1])
            stages.append(stages[-1] + y if self.shortcut else y)
        return self.leave(torch.cat(stages, 1))


class SPPF(nn.Module):
    """Three poolings in a row, concatenated."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.enter = ConvUnit(channels, channels // 2)
        self.leave = ConvUnit(channels * 2, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Carry an image through."""
        stages = [self.enter(x)]
        for _ in range(3):
            stages.append(functional.max_pool2d(stages[-1], 5, 1, 2))
        return self.leave(torch.cat(stages, 1))


class Detect(nn.Module):
    """Boxes and classes of one level, from two branches."""

    def __init__(self, inputs: int, boxes: int = 16, classes: int = 5) -> None:
        super().__init__()
        self.box = nn.Sequential(ConvUnit(inputs, 16, 3), nn.Conv2d(16, boxes, 1))
        self.classes = nn.Sequential(ConvUnit(inputs, 16, 3), nn.Conv2d(16, classes, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Boxes, then classes, of every position."""
        return torch.cat([self.box(x), self.classes(x)], 1)


class YOLO(nn.Module):
    """Backbone, top-down and bottom-up path, a head per level."""

    def __init__(self, a: int = 16, b: int = 32, c: int = 48) -> None:
        super().__init__()
        self.stem = nn.Sequential(ConvUnit(3, 16, 3, 2), ConvUnit(16, a, 3, 2), C2f(a, a, 1))
        self.middle = nn.Sequential(ConvUnit(a, b, 3, 2), C2f(b, b, 2))
        self.deep = nn.Sequential(ConvUnit(b, c, 3, 2), C2f(c, c, 1), SPPF(c))
        self.up = nn.Upsample(scale_factor=2, mode="nearest")
        self.top_down = C2f(b + c, b, 1, shortcut=False)
        self.lower = C2f(a + b, a, 1, shortcut=False)
        self.reduce = ConvUnit(a, a, 3, 2)
        self.bottom_up = C2f(a + b, b, 1, shortcut=False)
        self.heads = nn.ModuleList([Detect(a), Detect(b), Detect(c)])

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Predictions of the three levels."""
        shallow = self.stem(x)
        middle = self.middle(shallow)
        deep = self.deep(middle)
        merged = self.top_down(torch.cat([self.up(deep), middle], 1))
        fine = self.lower(torch.cat([self.up(merged), shallow], 1))
        coarse = self.bottom_up(torch.cat([self.reduce(fine), merged], 1))
        levels = (fine, coarse, deep)
        return tuple(head(level) for head, level in zip(self.heads, levels, strict=True))


@topology(Input("images", (3, 64, 64)))
def yolo() -> nn.Module:
    """Detector of C2f blocks with SPPF, a path-aggregation neck and three outputs."""
    return YOLO()


class YOLODecoded(nn.Module):
    """As YOLO, with one output: all positions of all levels, boxes as expected distances."""

    def __init__(self) -> None:
        super().__init__()
        self.net = YOLO()
        self.distances = nn.Parameter(torch.arange(4.0).view(1, 4, 1, 1), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """Predictions of every position."""
        flat = torch.cat([level.flatten(2) for level in self.net(x)], 2)
        boxes, classes = flat.split([16, 5], 1)
        bins = boxes.view(-1, 4, 4, boxes.shape[-1]).transpose(1, 2).softmax(1)
        return torch.cat([(bins * self.distances).sum(1), classes.sigmoid()], 1)


@topology(Input("images", (3, 64, 64)))
def yolo_decoded() -> nn.Module:
    """The detector with its decoding in the graph."""
    return YOLODecoded()


@topology(Input("luminance", (1, 24, 24)))
def espcn() -> nn.Module:
    """Super-resolution: the last convolution makes the pixels, twice, once behind a convolution."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 5, padding=2),
        nn.PReLU(32),
        nn.Conv2d(32, 24, 3, padding=1),
        nn.PReLU(),
        nn.Conv2d(24, 64, 3, padding=1),
        nn.PixelShuffle(2),
        nn.ReLU(),
        nn.Conv2d(16, 9, 3, padding=1),
        nn.PixelShuffle(3),
    )
