"""A decoder of the Llama architecture for training on one CPU thread.

The weights are kept in float32 and carry the names that Hugging Face folders use. The matrix
products run in bfloat16, the residual stream, the norms and the loss in float32.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F

LINEAR_LAYERS = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
                 "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")


@dataclass
class Shape:
    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    vocab: int
    length: int
    rope_theta: float = 10000.0
    norm_eps: float = 1e-5

    def __post_init__(self):
        if self.hidden % self.heads or self.heads % self.kv_heads or self.head_dim % 2:
            raise SystemExit("heads must divide hidden with an even quotient, "
                             "and kv-heads must divide heads")

    @property
    def head_dim(self):
        return self.hidden // self.heads

    def weight_shapes(self):
        """The shape of every stored tensor, by name. The output layer is the embedding."""
        kv = self.kv_heads * self.head_dim
        of_layer = {
            "input_layernorm": (self.hidden,),
            "self_attn.q_proj": (self.hidden, self.hidden),
            "self_attn.k_proj": (kv, self.hidden),
            "self_attn.v_proj": (kv, self.hidden),
            "self_attn.o_proj": (self.hidden, self.hidden),
            "post_attention_layernorm": (self.hidden,),
            "mlp.gate_proj": (self.intermediate, self.hidden),
            "mlp.up_proj": (self.intermediate, self.hidden),
            "mlp.down_proj": (self.hidden, self.intermediate),
        }
        shapes = {"model.embed_tokens.weight": (self.vocab, self.hidden)}
        for layer in range(self.layers):
            for name, shape in of_layer.items():
                shapes[f"model.layers.{layer}.{name}.weight"] = shape
        shapes["model.norm.weight"] = (self.hidden,)
        return shapes

    def parameter_count(self):
        return sum(torch.Size(shape).numel() for shape in self.weight_shapes().values())


def initial_weights(shape, seed):
    """Normal weights of deviation 0.02, less for the layers that write the residual stream."""
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name, size in shape.weight_shapes().items():
        if len(size) == 1:
            weights[name] = torch.ones(size)
            continue
        deviation = 0.02
        if "o_proj" in name or "down_proj" in name:
            deviation /= (2 * shape.layers) ** 0.5
        weights[name] = torch.randn(size, generator=generator) * deviation
    return weights


class RootMeanSquareNorm(torch.autograd.Function):
    """float32 in, `dtype` out. Written by hand: the composed form takes twice the passes."""

    @staticmethod
    def forward(ctx, x, weight, eps, dtype):
        scale = torch.rsqrt(torch.linalg.vector_norm(x, dim=-1, keepdim=True)
                            .square_().div_(x.shape[-1]).add_(eps))
        normal = x * scale
        ctx.save_for_backward(normal, weight, scale)
        return (normal * weight).to(dtype)

    @staticmethod
    def backward(ctx, gradient):
        normal, weight, scale = ctx.saved_tensors
        gradient = gradient.float()
        weight_gradient = (gradient * normal).flatten(0, -2).sum(0)
        gradient = gradient * weight
        along = (gradient * normal).mean(-1, keepdim=True)
        return gradient.addcmul_(normal, along, value=-1).mul_(scale), weight_gradient, None, None


class SwishGate(torch.autograd.Function):
    """gate * sigmoid(gate) * up. By hand, as bfloat16 silu is slow forward and backward."""

    @staticmethod
    def forward(ctx, gate, up):
        ctx.save_for_backward(gate, up)
        return gate * torch.sigmoid(gate) * up

    @staticmethod
    def backward(ctx, gradient):
        gate, up = ctx.saved_tensors
        sigmoid = torch.sigmoid(gate)
        swish = gate * sigmoid
        # The derivative of the swish: sigmoid + swish * (1 - sigmoid).
        slope = torch.addcmul(sigmoid, swish, 1 - sigmoid)
        return gradient * up * slope, gradient * swish


def rotary_tables(shape, length, dtype):
    """Cosines and sines for [length, head_dim]; the sines of the first half are negated."""
    steps = torch.arange(0, shape.head_dim, 2, dtype=torch.float32) / shape.head_dim
    angles = torch.arange(length, dtype=torch.float32)[:, None] / shape.rope_theta ** steps
    cosines = torch.cat([angles.cos(), angles.cos()], dim=-1)
    sines = torch.cat([-angles.sin(), angles.sin()], dim=-1)
    return cosines.to(dtype), sines.to(dtype)


def rotate(x, tables):
    """Rotary positions of [..., length, head_dim], where channel i turns with i + head_dim/2."""
    cosines, sines = tables
    first, second = x.chunk(2, dim=-1)
    return x * cosines + torch.cat([second, first], dim=-1) * sines


def attention(shape, queries, keys, values, tables):
    """Causal grouped-query attention over [batch, length, heads * head_dim]."""
    batch, length, _ = queries.shape
    per_kv = shape.heads // shape.kv_heads

    def split(x):
        return x.view(batch, length, -1, shape.head_dim).transpose(1, 2)

    queries = rotate(split(queries), tables) * shape.head_dim ** -0.5
    keys = rotate(split(keys), tables)
    # The query heads that share a key head are stacked along the length.
    queries = queries.reshape(batch * shape.kv_heads, per_kv * length, shape.head_dim)
    keys = keys.reshape(batch * shape.kv_heads, length, shape.head_dim)
    values = split(values).reshape(batch * shape.kv_heads, length, shape.head_dim)
    future = torch.full((length, length), float("-inf"), dtype=queries.dtype).triu_(1)
    scores = torch.baddbmm(future.repeat(per_kv, 1)[None], queries, keys.transpose(1, 2))
    mixed = torch.bmm(torch.softmax(scores, dim=-1), values)
    mixed = mixed.view(batch, shape.heads, length, shape.head_dim)
    return mixed.transpose(1, 2).reshape(batch, length, shape.hidden)


def logits(shape, weights, tokens, dtype=torch.bfloat16, dropout=0.0):
    """Scores [batch, length, vocab] for the token after each of `tokens` [batch, length]."""
    tables = rotary_tables(shape, tokens.shape[1], dtype)
    embedding = weights["model.embed_tokens.weight"]
    x = F.embedding(tokens, embedding)

    def norm(name):
        return RootMeanSquareNorm.apply(x, weights[name], shape.norm_eps, dtype)

    def add(branch):
        return x + F.dropout(branch, dropout).float() if dropout else x + branch.float()

    for layer in range(shape.layers):
        prefix = f"model.layers.{layer}."

        def linear(name, value):
            return F.linear(value, weights[f"{prefix}{name}.weight"].to(dtype))

        h = norm(prefix + "input_layernorm.weight")
        h = attention(shape, linear("self_attn.q_proj", h), linear("self_attn.k_proj", h),
                      linear("self_attn.v_proj", h), tables)
        x = add(linear("self_attn.o_proj", h))
        h = norm(prefix + "post_attention_layernorm.weight")
        h = SwishGate.apply(linear("mlp.gate_proj", h), linear("mlp.up_proj", h))
        x = add(linear("mlp.down_proj", h))
    return F.linear(norm("model.norm.weight"), embedding.to(dtype))


def loss(shape, weights, windows, dtype=torch.bfloat16, dropout=0.0):
    """The mean negative log-likelihood of each token of [batch, length] but the first."""
    scores = logits(shape, weights, windows[:, :-1], dtype, dropout)
    return F.cross_entropy(scores.flatten(0, 1).float(), windows[:, 1:].flatten())


def perplexity(shape, weights, ids, batch=8, windows=None, dtype=torch.float32):
    """exp of the mean loss over consecutive windows of shape.length tokens."""
    count = len(ids) // shape.length
    if windows:
        count = min(count, windows)
    cut = torch.tensor(ids[:count * shape.length]).view(count, shape.length)
    total = 0.0
    with torch.no_grad():
        for part in cut.split(batch):
            total += loss(shape, weights, part, dtype).item() * len(part)
    return torch.tensor(total / count).exp().item()
