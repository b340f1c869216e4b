#!/usr/bin/python3
"""Writes a Llama checkpoint of a given size, quickly, and two datasets of token ids for it.

Usage: generate_checkpoint.py FOLDER GIGABYTES [HIDDEN]
FOLDER/model gets F16 weights in shards of about 1 GB, FOLDER/calibration and FOLDER/evaluation ids.
The values are tiles of Gaussian numbers repeated from places that differ by tensor: enough for a
quantizer to have work, and written at the disk's speed. The vocabulary is small, so that nearly all
bytes are decoder blocks.
"""
import json
import pathlib
import struct
import sys

import numpy

VOCAB = 512
SHARD_BYTES = 1 << 30


def tensors_of(hidden, blocks):
    """(name, shape) in model order."""
    intermediate = hidden * 11 // 4
    yield "model.embed_tokens.weight", (VOCAB, hidden)
    for block in range(blocks):
        prefix = f"model.layers.{block}."
        yield prefix + "input_layernorm.weight", (hidden,)
        for name in ("q", "k", "v", "o"):
            yield f"{prefix}self_attn.{name}_proj.weight", (hidden, hidden)
        yield prefix + "post_attention_layernorm.weight", (hidden,)
        for name in ("gate", "up"):
            yield f"{prefix}mlp.{name}_proj.weight", (intermediate, hidden)
        yield prefix + "mlp.down_proj.weight", (hidden, intermediate)
    yield "model.norm.weight", (hidden,)
    yield "lm_head.weight", (VOCAB, hidden)


def write_tensor(file, tile, serial, shape):
    count = int(numpy.prod(shape))
    if len(shape) == 1:
        file.write(numpy.ones(count, numpy.float16).tobytes())
        return
    start = serial * 7919 % (tile.size // 2)
    while count > 0:
        piece = tile[start:start + count]
        file.write(piece.data)
        count -= piece.size
        start = 0


def write_shard(path, tile, tensors):
    """tensors: (serial, name, shape)."""
    header, offset = {"__metadata__": {"format": "pt"}}, 0
    for _, name, shape in tensors:
        end = offset + 2 * int(numpy.prod(shape))
        header[name] = {"dtype": "F16", "shape": list(shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb", buffering=1 << 22) as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for serial, _, shape in tensors:
            write_tensor(file, tile, serial, shape)


def write_model(folder, hidden, blocks):
    folder.mkdir(parents=True, exist_ok=True)
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
              "hidden_size": hidden, "intermediate_size": hidden * 11 // 4,
              "num_hidden_layers": blocks, "num_attention_heads": hidden // 64,
              "num_key_value_heads": hidden // 64, "vocab_size": VOCAB,
              "max_position_embeddings": 2048, "rms_norm_eps": 1e-5,
              "tie_word_embeddings": False, "torch_dtype": "float16"}
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    random = numpy.random.default_rng(1)
    # Small enough that the residual stream of hundreds of blocks stays finite.
    tile = (random.standard_normal(1 << 24, numpy.float32) * 0.02).astype(numpy.float16)
    shards, size = [[]], 0
    for serial, (name, shape) in enumerate(tensors_of(hidden, blocks)):
        size += 2 * int(numpy.prod(shape))
        if size > SHARD_BYTES and shards[-1]:
            shards.append([])
            size = 2 * int(numpy.prod(shape))
        shards[-1].append((serial, name, shape))
    weight_map, total = {}, 0
    for number, tensors in enumerate(shards, start=1):
        file = f"model-{number:05}-of-{len(shards):05}.safetensors"
        write_shard(folder / file, tile, tensors)
        weight_map.update({name: file for _, name, _ in tensors})
        total += sum(2 * int(numpy.prod(shape)) for _, _, shape in tensors)
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return total


def write_ids(folder, count, seed):
    folder.mkdir(parents=True, exist_ok=True)
    ids = numpy.random.default_rng(seed).integers(0, VOCAB, count)
    (folder / "random.ids").write_text(" ".join(map(str, ids)) + "\n")


def main():
    folder, gigabytes = pathlib.Path(sys.argv[1]), float(sys.argv[2])
    hidden = int(sys.argv[3]) if len(sys.argv) > 3 else 1024
    block_bytes = 2 * hidden * hidden * (4 + 3 * 11 / 4)
    blocks = max(2, round(gigabytes * 1e9 / block_bytes))
    total = write_model(folder / "model", hidden, blocks)
    write_ids(folder / "calibration", 64 * 128, 2)
    write_ids(folder / "evaluation", 8 * 128, 3)
    print(f"{blocks} blocks of {block_bytes / 1e6:.1f} MB, {total / 1e9:.2f} GB of weights")


if __name__ == "__main__":
    main()
