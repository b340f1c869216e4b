#!/usr/bin/python3
"""Reads a GPTQ v2 folder with nothing but struct, json and numpy, from the layout's description alone:

  <p>.qweight  I32 [K*b/32, N]  codes along K: a little-endian bit stream per column
  <p>.qzeros   I32 [K/g, N*b/32]  zero points along N: a little-endian bit stream per row
  <p>.scales   F16 [K/g, N];  <p>.g_idx I32 [K];  W[n, k] = scale[g, n] * (code[k, n] - zero[g, n])

Usage: unpack_gptq.py FOLDER > weights.bin
Writes, for each quantized projection in order of its name, W as float32 [N, K] row by row. Bit width and
group size are taken from quantization_config and its `dynamic` exceptions."""
import json
import re
import struct
import sys

import numpy


def read_safetensors(path):
    with open(path, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
        area = file.read()
    types = {"I32": "<u4", "F16": "<f2", "BF16": "<u2", "F32": "<f4"}
    tensors = {}
    for name, entry in header.items():
        if name != "__metadata__":
            begin, end = entry["data_offsets"]
            tensors[name] = numpy.frombuffer(area[begin:end], types[entry["dtype"]]).reshape(entry["shape"])
    return tensors


def stream(words, bits, count):
    """The first `count` fields of `bits` bits of one sequence of 32-bit words."""
    whole = int.from_bytes(words.astype("<u4").tobytes(), "little")
    return [(whole >> (bits * i)) & ((1 << bits) - 1) for i in range(count)]


def grid_of(config, name):
    for pattern, override in config.get("dynamic", {}).items():
        if re.match(pattern[2:] if pattern[:2] in ("+:", "-:") else pattern, name):
            return {**config, **override}
    return config


def main():
    folder = sys.argv[1]
    with open(folder + "/config.json") as file:
        config = json.load(file)["quantization_config"]
    tensors = read_safetensors(folder + "/model.safetensors")
    for name in sorted(n[: -len(".qweight")] for n in tensors if n.endswith(".qweight")):
        bits = grid_of(config, name)["bits"]
        groups, outputs = tensors[name + ".scales"].shape
        group_of = tensors[name + ".g_idx"].astype(int)
        codes = numpy.array([stream(column, bits, len(group_of)) for column in tensors[name + ".qweight"].T])
        zeros = numpy.array([stream(row, bits, outputs) for row in tensors[name + ".qzeros"]])
        scales = tensors[name + ".scales"].astype(numpy.float32)
        size = grid_of(config, name)["group_size"]
        expected_groups = 1 if size == -1 else len(group_of) // size
        assert groups == expected_groups, f"{name}: {groups} groups, the config says {expected_groups}"
        weight = scales.T[:, group_of] * (codes - zeros.T[:, group_of]).astype(numpy.float32)
        sys.stdout.buffer.write(weight.astype("<f4").tobytes())


main()
