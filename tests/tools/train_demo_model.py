#!/usr/bin/env python3
"""Makes a demo model from public-domain text: texts, tokenizer, training, model folder.

    python3 tests/tools/train_demo_model.py

makes the held-out texts and the model in tests/data/demo. Other sizes: see --help.
Needs Debian's python3-torch, bible-kjv and bible-kjv-text, and npm.
Runs on one thread; the same machine and seed give the same weights. An interrupted run
continues from its last checkpoint when it is started again with the same options.
"""

import argparse
import hashlib
import json
import math
import os
import time
from pathlib import Path

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"

import torch  # noqa: E402  the thread count must be set first

import byte_bpe  # noqa: E402
import demo_texts  # noqa: E402
import llama_model  # noqa: E402
from hf_folder import write_folder  # noqa: E402

REPOSITORY = Path(__file__).resolve().parents[2]


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    demo = REPOSITORY / "tests/data/demo"
    parser.add_argument("--model", type=Path, default=demo / "models/kjv-sotu-4m",
                        help="the model folder to write")
    parser.add_argument("--datasets", type=Path, default=demo / "datasets",
                        help="the folder for the held-out texts")
    parser.add_argument("--work", type=Path, default=REPOSITORY / "build/demo-model",
                        help="the folder for downloads, token ids and checkpoints")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--intermediate", type=int, default=768)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--kv-heads", type=int, default=2)
    parser.add_argument("--vocab", type=int, default=2048,
                        help="tokens, with the 256 bytes and the two special ones")
    parser.add_argument("--length", type=int, default=256, help="tokens in a training window")
    parser.add_argument("--batch", type=int, default=16, help="windows in a step")
    parser.add_argument("--steps", type=int, default=3600)
    parser.add_argument("--rate", type=float, default=3e-3, help="the highest learning rate")
    parser.add_argument("--warmup", type=int, default=150, help="steps")
    parser.add_argument("--decay", type=float, default=0.1, help="AdamW's weight decay")
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--checkpoint", type=int, default=300, help="steps between checkpoints")
    return parser.parse_args()


def make_tokenizer(work, texts, vocab):
    """The trained tokenizer, kept in the work folder between runs over the same text."""
    text = "".join(texts)
    digest = hashlib.sha256(text.encode("utf-8")).hexdigest()[:16]
    path = work / f"tokenizer-{vocab}-{digest}.json"
    if path.exists():
        return byte_bpe.Tokenizer.from_json(path)
    began = time.monotonic()
    count = vocab - 256 - 2

    def report(done):
        if done % 500 == 0 or done == count:
            print(f"tokenizer: {done} of {count} merges, {time.monotonic() - began:.0f} s",
                  flush=True)

    tokenizer = byte_bpe.Tokenizer(byte_bpe.train_merges(text, count, report))
    path.write_text(json.dumps(tokenizer.to_json()))
    return tokenizer


def token_stream(tokenizer, texts):
    """All training documents in a row, each between the two special tokens."""
    ids = []
    for text in texts:
        ids += [tokenizer.begin, *tokenizer.encode(text), tokenizer.end]
    return torch.tensor(ids, dtype=torch.int64)


def sample_windows(stream, step, arguments, begin):
    """[batch, length + 1] ids; half of the windows have the begin-of-text token in front.

    Windows start everywhere, so the text is cut anew in every epoch. The step seeds the
    choice, so that a run that continues from a checkpoint sees what it would have seen.
    """
    generator = torch.Generator().manual_seed(arguments.seed * 1_000_003 + step)
    size = arguments.length + 1
    starts = torch.randint(len(stream) - size + 1, (arguments.batch,), generator=generator)
    windows = stream[starts[:, None] + torch.arange(size)]
    windows[::2, 0] = begin
    return windows


def rate_at(step, arguments):
    """A linear warm-up, then half a cosine down to a fiftieth."""
    if step < arguments.warmup:
        return arguments.rate * (step + 1) / arguments.warmup
    done = (step - arguments.warmup) / max(1, arguments.steps - arguments.warmup)
    return arguments.rate * (0.02 + 0.98 * (0.5 + 0.5 * math.cos(math.pi * done)))


def make_optimizer(weights, arguments):
    matrices = [w for w in weights.values() if w.dim() > 1]
    vectors = [w for w in weights.values() if w.dim() == 1]
    return torch.optim.AdamW([{"params": matrices, "weight_decay": arguments.decay},
                              {"params": vectors, "weight_decay": 0.0}],
                             lr=arguments.rate, betas=(0.9, 0.95), eps=1e-8)


def save_checkpoint(path, options, step, weights, optimizer):
    """Written aside first, so that an interruption leaves the former checkpoint whole."""
    aside = path.with_suffix(".part")
    torch.save({"options": options, "step": step, "optimizer": optimizer.state_dict(),
                "weights": {name: w.detach() for name, w in weights.items()}}, aside)
    aside.replace(path)


def train(shape, stream, held_out, tokenizer, arguments):
    """Trains from the last checkpoint of these options, or from the start."""
    options = {key: value for key, value in vars(arguments).items()
               if key not in ("model", "datasets", "work", "checkpoint")}
    path = arguments.work / (arguments.model.name + ".checkpoint")
    weights = llama_model.initial_weights(shape, arguments.seed)
    optimizer = make_optimizer(weights, arguments)
    first = 0
    if path.exists():
        saved = torch.load(path)
        if saved["options"] == options:
            for name, weight in saved["weights"].items():
                weights[name].copy_(weight)
            optimizer.load_state_dict(saved["optimizer"])
            first = saved["step"]
            print(f"continuing after step {first}")
    for weight in weights.values():
        weight.requires_grad_()
    per_step = arguments.batch * arguments.length
    began = time.monotonic()
    recent = []
    for step in range(first, arguments.steps):
        for group in optimizer.param_groups:
            group["lr"] = rate_at(step, arguments)
        torch.manual_seed(arguments.seed * 1_000_003 + step)
        windows = sample_windows(stream, step, arguments, tokenizer.begin)
        loss = llama_model.loss(shape, weights, windows, dropout=arguments.dropout)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights.values(), 1.0)
        optimizer.step()
        recent.append(loss.item())
        done = step + 1
        if done % 20 == 0 or done == arguments.steps:
            spent = time.monotonic() - began
            rate = (done - first) / spent
            print(f"step {done} of {arguments.steps}  loss {sum(recent) / len(recent):.4f}  "
                  f"{rate * per_step:.0f} tokens/s  "
                  f"{(arguments.steps - done) / rate / 60:.1f} min left", flush=True)
            recent = []
        if done % arguments.checkpoint == 0 or done == arguments.steps:
            save_checkpoint(path, options, done, weights, optimizer)
            write_folder(arguments.model, shape, weights, tokenizer)
            for name, ids in held_out.items():
                value = llama_model.perplexity(shape, weights, ids, windows=32,
                                               dtype=torch.bfloat16)
                print(f"step {done}  perplexity of {name}, 32 windows: {value:.3f}", flush=True)


def main():
    arguments = parse_arguments()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    shape = llama_model.Shape(arguments.layers, arguments.hidden, arguments.intermediate,
                              arguments.heads, arguments.kv_heads, arguments.vocab,
                              arguments.length)
    texts = demo_texts.prepare_texts(arguments.work, arguments.datasets)
    tokenizer = make_tokenizer(arguments.work, texts, arguments.vocab)
    stream = token_stream(tokenizer, texts)
    # Progress is measured on calibration text: evaluation text stays unseen.
    held_out = {name: tokenizer.encode((arguments.datasets / name / "text.txt").read_text("utf-8"))
                for name in ("kjv-calibration", "sotu-calibration")}
    seen = arguments.steps * arguments.batch * arguments.length / len(stream)
    print(f"{shape.parameter_count()} parameters, {len(stream)} training tokens, "
          f"{arguments.steps} steps over {seen:.1f} epochs", flush=True)
    train(shape, stream, held_out, tokenizer, arguments)
    print(f"wrote {arguments.model}")


if __name__ == "__main__":
    main()
