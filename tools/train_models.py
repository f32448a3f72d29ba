"""Train the embedded models on scikit-learn's digits and export them to ONNX.

Four small networks (a VGG, a residual net, an MLP and a vision transformer) learn 8x8 grey digits,
kept at their native size: two poolings or strides still leave 2x2 positions for the last stage. All
take `input` of shape (batch, 1, 8, 8), pixels divided by 16, and return `logits` of shape
(batch, 10).

The test images come from a fixed split that no option changes; they are only looked at to report
the accuracy, and the weights are those of the last epoch. `digits_calib.npz` holds unlabelled
images of the train split, `digits_test.npz` the test split. On one machine with the same package
versions the files come out byte-identical.

The table on stdout is the one in `models/README.md`; progress goes to stderr.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from digit_networks import Product, mlp, resnet, vgg, vit
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from torch import Tensor, nn

Images = NDArray[np.float32]
Labels = NDArray[np.int64]

# no option changes the split: images seen in training must not become test images
SPLIT_SEED = 0
TEST_COUNT = 500
CALIB_COUNT = 500
OPSET = 17
BATCH_SIZE = 64


def sgd(network: nn.Module) -> torch.optim.Optimizer:
    """Return the optimizer of the networks without attention."""
    return torch.optim.SGD(network.parameters(), momentum=0.9, nesterov=True, weight_decay=5e-4)


def adamw(network: nn.Module) -> torch.optim.Optimizer:
    """Return the optimizer of the transformer."""
    return torch.optim.AdamW(network.parameters(), weight_decay=0.05)


@dataclass(frozen=True)
class Recipe:
    """How to build a network and how to train it."""

    build: Callable[[], nn.Module]
    epochs: int
    optimizer: Callable[[nn.Module], torch.optim.Optimizer] = sgd
    peak_learning_rate: float = 0.05


# The epochs were chosen on folds of the train split, the transformer's and its learning rate on one
# fold among three settings. The MLP learns slower without BatchNorm.
NETWORKS = {
    "vgg_digits": Recipe(vgg, epochs=60),
    "resnet_digits": Recipe(resnet, epochs=60),
    "mlp_digits": Recipe(mlp, epochs=240),
    "vit_digits": Recipe(vit, epochs=240, optimizer=adamw, peak_learning_rate=1e-3),
}


def load_split() -> tuple[Images, Labels, Images, Labels]:
    """Load the digits as train images, train labels, test images and test labels.

    Images have shape (count, 1, 8, 8) and values in 0..1.
    """
    digits = load_digits()
    # 0..16 in steps of 1: dividing by 16 is exact in float32
    images = (digits.images[:, None] / 16).astype(np.float32)
    labels = digits.target.astype(np.int64)
    order = np.random.default_rng(SPLIT_SEED).permutation(len(images))
    test, train = order[:TEST_COUNT], order[TEST_COUNT:]
    return images[train], labels[train], images[test], labels[test]


def shifted(images: Tensor, generator: torch.Generator) -> Tensor:
    """Shift each image of a batch by a random fraction of up to one pixel, zeros coming in."""
    # grid coordinates run from -1 to 1 over 8 pixels, so one pixel is 2/8
    offsets = (torch.rand(len(images), 2, generator=generator) * 2 - 1) * (2 / 8)
    transforms = torch.cat((torch.eye(2).expand(len(images), 2, 2), offsets[:, :, None]), dim=2)
    grid = nn.functional.affine_grid(transforms, list(images.shape), align_corners=False)
    return nn.functional.grid_sample(images, grid, align_corners=False)


def train(network: nn.Module, recipe: Recipe, images: Tensor, labels: Tensor, seed: int) -> None:
    """Train a network in place on a one-cycle schedule; leave it in eval mode."""
    generator = torch.Generator().manual_seed(seed)
    # a last batch of a few images would disturb BatchNorm: drop it, the order changes anyway
    batches = len(images) // BATCH_SIZE
    optimizer = recipe.optimizer(network)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        recipe.peak_learning_rate,
        total_steps=recipe.epochs * batches,
        cycle_momentum=False,
    )
    network.train()
    for epoch in range(1, recipe.epochs + 1):
        order = torch.randperm(len(images), generator=generator)[: batches * BATCH_SIZE]
        total = 0.0
        for rows in order.split(BATCH_SIZE):
            logits = network(shifted(images[rows], generator))
            loss = nn.functional.cross_entropy(logits, labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item()
        if epoch % (recipe.epochs // 6) == 0:
            print(f"  epoch {epoch}: train loss {total / batches:.4f}", file=sys.stderr)
    network.eval()


def export(network: nn.Module, path: Path) -> None:
    """Write a network in eval mode as ONNX with a dynamic batch axis.

    The TorchScript exporter with PRESERVE keeps the BatchNorm nodes, which EVAL would fold into
    the convolutions, and the parameters' names: networks found in practice have both.
    """
    with warnings.catch_warnings():
        # the deprecation of the TorchScript exporter, which is wanted here
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network,
            (torch.zeros(2, 1, 8, 8),),
            str(path),
            input_names=["input"],
            output_names=["logits"],
            dynamic_axes={"input": {0: "batch"}, "logits": {0: "batch"}},
            opset_version=OPSET,
            training=torch.onnx.TrainingMode.PRESERVE,
            do_constant_folding=False,
            dynamo=False,
        )


def run(path: Path, images: Images) -> NDArray[np.float32]:
    """Return onnxruntime's logits, of shape (count, 10), on the CPU."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(["logits"], {"input": images})[0]


def check(network: nn.Module, path: Path, images: Images) -> None:
    """Raise unless the file is valid and onnxruntime agrees with torch at batch 1 and 3."""
    onnx.checker.check_model(str(path), full_check=True)
    for batch in (1, 3):
        with torch.no_grad():
            expected = network(torch.from_numpy(images[:batch])).numpy()
        np.testing.assert_allclose(run(path, images[:batch]), expected, rtol=1e-4, atol=1e-4)


def count_macs(network: nn.Module) -> int:
    """Count multiply-accumulates of convolutions, linear layers and products for one image."""
    total = 0

    def add(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        # every element of the output takes one for each value that it sums over
        summed = layer.weight[0].numel() if isinstance(layer, nn.Conv2d) else inputs[0].shape[-1]
        total += output[0].numel() * summed

    counted = (nn.Conv2d, nn.Linear, Product)
    layers = [layer for layer in network.modules() if isinstance(layer, counted)]
    hooks = [layer.register_forward_hook(add) for layer in layers]
    with torch.no_grad():
        network(torch.zeros(1, 1, 8, 8))
    for hook in hooks:
        hook.remove()
    return total


def table_row(network: nn.Module, path: Path, accuracy: float) -> str:
    """Format a network's row of the table in `models/README.md`."""
    params = sum(parameter.numel() for parameter in network.parameters())
    size = path.stat().st_size / 1000
    macs = count_macs(network)
    return f"| `{path.name}` | {params:,} | {macs:,} | {size:.0f} kB | {accuracy:.1f} % |"


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description="Train and export the embedded digit models.")
    default = Path(__file__).resolve().parents[1] / "models"
    parser.add_argument("--out", type=Path, default=default, help="folder to write to")
    parser.add_argument("--only", choices=NETWORKS, help="train this network only")
    parser.add_argument("--seed", type=int, default=0, help="seed of weights, order and shifts")
    return parser.parse_args()


def main() -> None:
    """Write the data files, then train, export, check and report each network."""
    arguments = parse_arguments()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    arguments.out.mkdir(parents=True, exist_ok=True)
    train_images, train_labels, test_images, test_labels = load_split()
    np.savez_compressed(arguments.out / "digits_calib.npz", input=train_images[:CALIB_COUNT])
    np.savez_compressed(arguments.out / "digits_test.npz", input=test_images, labels=test_labels)
    print("| file | params | MACs per image | size | test accuracy |")
    print("|---|---:|---:|---:|---:|")
    for name in [arguments.only] if arguments.only else NETWORKS:
        print(name, file=sys.stderr)
        # seeded per network, so that --only gives the same weights as a full run
        torch.manual_seed(arguments.seed)
        recipe = NETWORKS[name]
        network = recipe.build()
        images, labels = torch.from_numpy(train_images), torch.from_numpy(train_labels)
        train(network, recipe, images, labels, arguments.seed)
        path = arguments.out / f"{name}.onnx"
        export(network, path)
        check(network, path, test_images)
        accuracy = 100 * float(np.mean(run(path, test_images).argmax(axis=1) == test_labels))
        print(table_row(network, path, accuracy), flush=True)


if __name__ == "__main__":
    main()
