"""Sequence taggers."""

from __future__ import annotations

from torch import Tensor, nn

from networks.topology import Input, topology

WORDS = 50
SENTENCE = Input("words", (12,), below=WORDS)


class Tagger(nn.Module):
    """Embedding, linear layer, recurrent layers, linear layers; a tag per word."""

    def __init__(self, recurrent: nn.RNNBase) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, 24)
        self.enter = nn.Sequential(nn.Linear(24, recurrent.input_size), nn.ReLU())
        self.recurrent = recurrent
        width = recurrent.hidden_size * (2 if recurrent.bidirectional else 1)
        self.leave = nn.Sequential(nn.Linear(width, 40), nn.ReLU(), nn.Linear(40, 9))

    def forward(self, words: Tensor) -> Tensor:
        """Scores of the tags of every word."""
        states, _ = self.recurrent(self.enter(self.embedding(words)))
        return self.leave(states)


@topology(SENTENCE)
def lstm() -> nn.Module:
    """Two LSTM layers."""
    return Tagger(nn.LSTM(32, 40, num_layers=2, batch_first=True))


@topology(SENTENCE)
def bilstm() -> nn.Module:
    """A bidirectional LSTM layer."""
    return Tagger(nn.LSTM(32, 40, batch_first=True, bidirectional=True))


@topology(SENTENCE)
def gru() -> nn.Module:
    """A GRU layer."""
    return Tagger(nn.GRU(32, 40, batch_first=True))


class ConvRecurrent(nn.Module):
    """Convolutions over a spectrogram, a GRU over its frames, the last state classified."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.Sequential(
            nn.Conv2d(1, 16, 3, (2, 1), 1), nn.ReLU(), nn.Conv2d(16, 24, 3, (2, 2), 1), nn.ReLU()
        )
        self.recurrent = nn.GRU(24 * 6, 48, batch_first=True)
        self.out = nn.Linear(48, 8)

    def forward(self, spectrogram: Tensor) -> Tensor:
        """Scores of the classes."""
        y = self.convs(spectrogram).permute(0, 3, 1, 2).flatten(2)
        states, _ = self.recurrent(y)
        return self.out(states[:, -1])


@topology(Input("spectrogram", (1, 24, 32)))
def conv_gru() -> nn.Module:
    """Convolutions, then a GRU."""
    return ConvRecurrent()
