#!/usr/bin/python3
"""Zero-shot accuracy of a Llama folder on multiple-choice files, computed independently of the
engine: numpy for the model, Google's sentencepiece for the tokens, one sequence at a time.

    /usr/bin/python3 tests/tools/score_tasks.py MODEL TASK.jsonl... [--questions N]

Reads lines of query, choices, gold, or of context_options, continuation, gold. Prints for each task
its questions, acc and acc_norm, as `qaas-engine evaluate --tasks` does. Conventions are those of
lm-evaluation-harness: one blank between context and choice; the continuation's tokens are what
context and continuation together have beyond the context's count; begin-of-sequence first;
too long a sequence loses its beginning.
Needs Debian's python3-numpy and python3-sentencepiece, and a tokenizer.model in the folder.
"""

import argparse
import json
import os
from pathlib import Path

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

import numpy  # noqa: E402  the thread count must be set first
import sentencepiece  # noqa: E402


def read_safetensors(path):
    """All tensors as float32."""
    raw = path.read_bytes()
    size = int.from_bytes(raw[:8], "little")
    body = memoryview(raw)[8 + size:]
    tensors = {}
    for name, entry in json.loads(raw[8:8 + size]).items():
        if name == "__metadata__":
            continue
        begin, end = entry["data_offsets"]
        if entry["dtype"] == "BF16":
            wide = numpy.frombuffer(body[begin:end], "<u2").astype(numpy.uint32) << 16
            values = wide.view(numpy.float32)
        else:
            kind = {"F16": "<f2", "F32": "<f4"}[entry["dtype"]]
            values = numpy.frombuffer(body[begin:end], kind).astype(numpy.float32)
        tensors[name] = values.reshape(entry["shape"])
    return tensors


class Llama:
    def __init__(self, folder):
        self.config = json.loads((folder / "config.json").read_text("utf-8"))
        self.weights = read_safetensors(folder / "model.safetensors")
        self.heads = self.config["num_attention_heads"]
        self.kv_heads = self.config.get("num_key_value_heads", self.heads)
        self.head_dim = self.config.get("head_dim") or self.config["hidden_size"] // self.heads

    def norm(self, x, name):
        scale = numpy.sqrt((x * x).mean(-1, keepdims=True) + self.config["rms_norm_eps"])
        return x / scale * self.weights[name]

    def rotated(self, x):
        """x: [heads, tokens, head_dim]; pairs are (i, i + head_dim / 2)."""
        half = self.head_dim // 2
        frequency = self.config.get("rope_theta", 10000.0) ** -(numpy.arange(half) / half)
        angle = numpy.outer(numpy.arange(x.shape[1]), frequency)
        cosine, sine = numpy.cos(angle).astype("f4"), numpy.sin(angle).astype("f4")
        first, second = x[..., :half], x[..., half:]
        return numpy.concatenate(
            [first * cosine - second * sine, second * cosine + first * sine], -1)

    def attention(self, x, prefix):
        tokens = len(x)

        def split(name, heads):
            y = x @ self.weights[f"{prefix}self_attn.{name}.weight"].T
            return y.reshape(tokens, heads, self.head_dim).transpose(1, 0, 2)

        q = self.rotated(split("q_proj", self.heads))
        k = self.rotated(split("k_proj", self.kv_heads)).repeat(self.heads // self.kv_heads, 0)
        v = split("v_proj", self.kv_heads).repeat(self.heads // self.kv_heads, 0)
        scores = q @ k.transpose(0, 2, 1) / numpy.sqrt(self.head_dim)
        scores += numpy.triu(numpy.full((tokens, tokens), -1e30, "f4"), 1)
        weights = numpy.exp(scores - scores.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        mixed = (weights @ v).transpose(1, 0, 2).reshape(tokens, -1)
        return mixed @ self.weights[f"{prefix}self_attn.o_proj.weight"].T

    def log_probabilities(self, ids):
        """[tokens, vocab]: of what follows each token."""
        x = self.weights["model.embed_tokens.weight"][ids]
        for layer in range(self.config["num_hidden_layers"]):
            prefix = f"model.layers.{layer}."
            x = x + self.attention(self.norm(x, prefix + "input_layernorm.weight"), prefix)
            y = self.norm(x, prefix + "post_attention_layernorm.weight")
            gate = y @ self.weights[prefix + "mlp.gate_proj.weight"].T
            up = y @ self.weights[prefix + "mlp.up_proj.weight"].T
            x = x + (gate / (1 + numpy.exp(-gate)) * up) @ self.weights[
                prefix + "mlp.down_proj.weight"].T
        head = self.weights.get("lm_head.weight", self.weights["model.embed_tokens.weight"])
        logits = (self.norm(x, "model.norm.weight") @ head.T).astype(numpy.float64)
        logits -= logits.max(-1, keepdims=True)
        return logits - numpy.log(numpy.exp(logits).sum(-1, keepdims=True))


def log_likelihood(model, tokenizer, context, continuation):
    bare = context.rstrip()
    whole = tokenizer.EncodeAsIds(context + continuation)
    scored = len(whole) - len(tokenizer.EncodeAsIds(bare))
    ids = [tokenizer.bos_id(), *whole]
    ids = ids[-(max(model.config["max_position_embeddings"], scored) + 1):]
    predictions = model.log_probabilities(numpy.array(ids[:-1]))
    return sum(predictions[t - 1, ids[t]] for t in range(len(ids) - scored, len(ids)))


def pairs_of(question):
    """(context, continuation, answer) of each choice."""
    if "choices" in question:
        return [(question["query"], " " + choice, choice) for choice in question["choices"]]
    end = question["continuation"]
    return [(context, " " + end, end) for context in question["context_options"]]


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("tasks", type=Path, nargs="+")
    parser.add_argument("--questions", type=int, help="first questions of each; all when not given")
    arguments = parser.parse_args()
    model = Llama(arguments.model)
    tokenizer = sentencepiece.SentencePieceProcessor()
    tokenizer.Load(str(arguments.model / "tokenizer.model"))
    for path in arguments.tasks:
        lines = path.read_text("utf-8").splitlines()[:arguments.questions]
        right, right_by_length = 0, 0
        for question in map(json.loads, lines):
            pairs = pairs_of(question)
            scores = numpy.array([log_likelihood(model, tokenizer, context, continuation)
                                  for context, continuation, _ in pairs])
            lengths = numpy.array([len(answer.encode()) for _, _, answer in pairs])
            right += numpy.argmax(scores) == question["gold"]
            right_by_length += numpy.argmax(scores / lengths) == question["gold"]
        print(f"{path.stem} questions {len(lines)} acc {right / len(lines):.4f} "
              f"acc_norm {right_by_length / len(lines):.4f}", flush=True)


if __name__ == "__main__":
    main()
