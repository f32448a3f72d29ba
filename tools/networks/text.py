"""Blocks of language models."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from networks.topology import Input, topology

WORDS = 60
TOKENS = Input("input_ids", (10,), below=WORDS)
MASK = Input("attention_mask", (10,), below=2)


def heads_of(x: Tensor, heads: int) -> Tensor:
    """(batch, words, features) -> (batch, heads, words, features per head)."""
    return x.view(x.shape[0], x.shape[1], heads, -1).transpose(1, 2)


def joined(x: Tensor) -> Tensor:
    """(batch, heads, words, features per head) -> (batch, words, features)."""
    return x.transpose(1, 2).reshape(x.shape[0], x.shape[2], -1)


class BertLayer(nn.Module):
    """Post-norm layer with a linear map each for queries, keys and values."""

    def __init__(self, width: int, heads: int, inner: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.out = nn.Linear(width, width)
        self.attention_norm, self.norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.enter, self.leave = nn.Linear(width, inner), nn.Linear(inner, width)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """Carry a sentence through."""
        q, k, v = (heads_of(part(x), self.heads) for part in (self.query, self.key, self.value))
        scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1]) + bias
        x = self.attention_norm(x + self.out(joined(scores.softmax(-1) @ v)))
        return self.norm(x + self.leave(functional.gelu(self.enter(x))))


class Bert(nn.Module):
    """Embeddings of words and positions, layers, a pooled classifier."""

    def __init__(self, width: int = 48, heads: int = 4, depth: int = 2) -> None:
        super().__init__()
        self.words, self.positions = nn.Embedding(WORDS, width), nn.Embedding(32, width)
        self.norm = nn.LayerNorm(width)
        self.layers = nn.ModuleList(BertLayer(width, heads, 96) for _ in range(depth))
        self.pooler, self.classes = nn.Linear(width, width), nn.Linear(width, 3)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Scores of the classes."""
        positions = torch.arange(input_ids.shape[1])
        x = self.norm(self.words(input_ids) + self.positions(positions))
        bias = (1.0 - attention_mask[:, None, None, :].float()) * -1e4
        for layer in self.layers:
            x = layer(x, bias)
        return self.classes(torch.tanh(self.pooler(x[:, 0])))


@topology(TOKENS, MASK)
def bert() -> nn.Module:
    """Encoder with separate queries, keys and values and an attention mask."""
    return Bert()


class RMSNorm(nn.Module):
    """Root-mean-square norm as the LLaMA code writes it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """Rows of unit size, scaled."""
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))


def rotated(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Rotary position embedding, the two halves of the features as pairs."""
    left, right = x.chunk(2, -1)
    return x * cosine + torch.cat([-right, left], -1) * sine


class LlamaLayer(nn.Module):
    """Pre-norm layer: grouped-query attention with rotary positions, SwiGLU."""

    def __init__(self, width: int, heads: int, shared: int, inner: int) -> None:
        super().__init__()
        self.heads, self.shared = heads, shared
        size = width // heads
        self.q_proj = nn.Linear(width, width, bias=False)
        self.k_proj = nn.Linear(width, shared * size, bias=False)
        self.v_proj = nn.Linear(width, shared * size, bias=False)
        self.o_proj = nn.Linear(width, width, bias=False)
        self.input_norm, self.norm = RMSNorm(width), RMSNorm(width)
        self.gate_proj = nn.Linear(width, inner, bias=False)
        self.up_proj = nn.Linear(width, inner, bias=False)
        self.down_proj = nn.Linear(inner, width, bias=False)

    def repeated(self, x: Tensor) -> Tensor:
        """Each of the shared heads for all the queries that read it."""
        batch, shared, words, size = x.shape
        copies = self.heads // shared
        x = x[:, :, None].expand(batch, shared, copies, words, size)
        return x.reshape(batch, self.heads, words, size)

    def forward(self, x: Tensor, cosine: Tensor, sine: Tensor, mask: Tensor) -> Tensor:
        """Carry a text through."""
        y = self.input_norm(x)
        q = rotated(heads_of(self.q_proj(y), self.heads), cosine, sine)
        k = self.repeated(rotated(heads_of(self.k_proj(y), self.shared), cosine, sine))
        v = self.repeated(heads_of(self.v_proj(y), self.shared))
        mixed = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        x = x + self.o_proj(joined(mixed))
        y = self.norm(x)
        return x + self.down_proj(functional.silu(self.gate_proj(y)) * self.up_proj(y))


class Llama(nn.Module):
    """Embedding, layers, norm, scores of the next word."""

    def __init__(self, width: int = 48, heads: int = 4, depth: int = 2) -> None:
        super().__init__()
        self.size = width // heads
        self.embed_tokens = nn.Embedding(WORDS, width)
        self.layers = nn.ModuleList(LlamaLayer(width, heads, 2, 96) for _ in range(depth))
        self.norm = RMSNorm(width)
        self.lm_head = nn.Linear(width, WORDS, bias=False)

    def forward(self, input_ids: Tensor) -> Tensor:
        """Scores of every position's next word."""
        words = input_ids.shape[1]
        frequencies = 10000.0 ** (-torch.arange(0, self.size, 2).float() / self.size)
        angles = torch.arange(words).float()[:, None] * torch.cat([frequencies, frequencies])
        mask = torch.full((words, words), -1e4).triu(1)
        x = self.embed_tokens(input_ids)
        for layer in self.layers:
            x = layer(x, angles.cos(), angles.sin(), mask)
        return self.lm_head(self.norm(x))


@topology(TOKENS)
def llama() -> nn.Module:
    """Decoder with RMSNorm, rotary positions, grouped queries and SwiGLU."""
    return Llama()


class GPTBlock(nn.Module):
    """Pre-norm layer: one matrix makes queries, keys and values, and attention looks back only."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.width = heads, width
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.c_attn, self.c_proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.c_fc, self.c_out = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Carry a text through."""
        packed = self.c_attn(self.ln_1(x)).split(self.width, dim=2)
        q, k, v = (heads_of(part, self.heads) for part in packed)
        words = x.shape[1]
        scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
        past = torch.ones(words, words).tril().view(1, 1, words, words)
        weights = scores.masked_fill(past == 0, -1e4).softmax(-1)
        x = x + self.c_proj(joined(weights @ v))
        return x + self.c_out(functional.gelu(self.c_fc(self.ln_2(x)), approximate="tanh"))


class GPT(nn.Module):
    """Embeddings, blocks, norm; the scores use the embedding's matrix."""

    def __init__(self, width: int = 48, heads: int = 4, depth: int = 2) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(WORDS, width), nn.Embedding(32, width)
        self.blocks = nn.Sequential(*(GPTBlock(width, heads) for _ in range(depth)))
        self.ln_f = nn.LayerNorm(width)
        self.lm_head = nn.Linear(width, WORDS, bias=False)
        self.lm_head.weight = self.wte.weight

    def forward(self, input_ids: Tensor) -> Tensor:
        """Scores of every position's next word."""
        x = self.wte(input_ids) + self.wpe(torch.arange(input_ids.shape[1]))
        return self.lm_head(self.ln_f(self.blocks(x)))


@topology(TOKENS)
def gpt2() -> nn.Module:
    """Decoder with a packed projection split in three, a causal mask and tied embeddings."""
    return GPT()


@topology(Input("features", (10, 48)))
def transformer_encoder() -> nn.Module:
    """Encoder layer of torch itself, between two linear layers."""
    layer = nn.TransformerEncoderLayer(64, 4, 128, activation="gelu", batch_first=True)
    encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
    return nn.Sequential(nn.Linear(48, 64), encoder, nn.Linear(64, 5))
