"""The samples that Olive's quantiser calibrates with."""

import numpy as np
from olive.data.registry import Registry


class Samples:
    """Pairs of a dictionary of inputs and a label, as Olive's data loaders batch them."""

    def __init__(self, path, count):
        self.arrays = {name: array[:count] for name, array in np.load(path).items()}

    def __len__(self):
        return len(next(iter(self.arrays.values())))

    def __getitem__(self, index):
        return {name: array[index] for name, array in self.arrays.items()}, 0


@Registry.register_dataset()
def calibration_samples(path="samples.npz", count=128, **_):
    """The first samples of a file of arrays, whose keys are the model's inputs."""
    return Samples(path, count)
