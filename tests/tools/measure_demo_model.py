#!/usr/bin/env python3
"""Perplexity of a demo model, as it is and after round-to-nearest quantization.

    python3 tests/tools/measure_demo_model.py

prints a table for the shipped model over the evaluation texts. The text of a file is one
begin-of-text token and the file's tokens, cut into consecutive windows of the length the model
was trained with; the last, incomplete window is dropped. Every token of a window but its first
is predicted. Weights, activations and products are float32.

Round-to-nearest: each run of `group` weights along a row of q, k, v, o, gate, up and down gets
a scale and an integer zero point from its least and greatest weight (asymmetric min-max; the
range always holds zero). The scale is rounded to float16. Embedding and norms stay.
"""

import argparse
import os
from pathlib import Path

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"

import torch  # noqa: E402  the thread count must be set first

from byte_bpe import Tokenizer  # noqa: E402
from hf_folder import read_folder  # noqa: E402
from llama_model import LINEAR_LAYERS, perplexity  # noqa: E402

DEMO = Path(__file__).resolve().parents[2] / "tests/data/demo"


def round_to_nearest(weight, bits, group):
    """The weight after quantization with groups along its rows."""
    rows, columns = weight.shape
    if columns % group:
        raise SystemExit(f"a row of {columns} weights does not divide into groups of {group}")
    grouped = weight.view(rows, columns // group, group)
    low = grouped.amin(dim=-1, keepdim=True).clamp(max=0)
    high = grouped.amax(dim=-1, keepdim=True).clamp(min=0)
    top = 2 ** bits - 1
    scale = ((high - low) / top).half().float().clamp(min=1e-8)
    zero = (-low / scale).round().clamp(0, top)
    codes = (grouped / scale + zero).round().clamp(0, top)
    return ((codes - zero) * scale).view(rows, columns)


def quantized(weights, bits, group):
    return {name: round_to_nearest(weight, bits, group)
            if any(layer in name for layer in LINEAR_LAYERS) else weight
            for name, weight in weights.items()}


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=DEMO / "models/kjv-sotu-4m")
    parser.add_argument("--bits", type=int, nargs="*", default=[4, 3, 2])
    parser.add_argument("--groups", type=int, nargs="*", default=[64, 128])
    parser.add_argument("--windows", type=int, help="windows of each text; all when not given")
    parser.add_argument("texts", type=Path, nargs="*",
                        default=sorted((DEMO / "datasets").glob("*-evaluation/text.txt")))
    return parser.parse_args()


def main():
    arguments = parse_arguments()
    torch.set_num_threads(1)
    shape, weights = read_folder(arguments.model)
    tokenizer = Tokenizer.from_json(arguments.model / "tokenizer.json")
    texts = {path.parent.name: [tokenizer.begin, *tokenizer.encode(path.read_text("utf-8"))]
             for path in arguments.texts}
    count = arguments.windows or max(len(ids) // shape.length for ids in texts.values())
    print(f"{arguments.model.name}: {shape.parameter_count()} parameters; "
          f"windows of {shape.length} tokens, at most {count} of each text")
    print(" | ".join(["| weights          ", *texts]) + " |")
    print("|---" * (len(texts) + 1) + "|")
    rows = [("as trained", weights)]
    rows += [(f"{bits} bits, group {group}", (bits, group))
             for bits in arguments.bits for group in arguments.groups]
    for label, what in rows:
        used = quantized(weights, *what) if isinstance(what, tuple) else what
        values = [perplexity(shape, used, ids, windows=count) for ids in texts.values()]
        print(" | ".join([f"| {label:17}", *(f"{value:.3f}" for value in values)]) + " |",
              flush=True)


if __name__ == "__main__":
    main()
