"""Reads files of safetensors_sample with nothing but Python's json and struct.

Usage: python_reads_safetensors.py SAMPLE_PROGRAM
"""

import json
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

SIZES = {"U8": 1, "BF16": 2, "F16": 2, "I32": 4, "F32": 4, "I64": 8}


def read(path):
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    assert (8 + length) % 8 == 0, "the data area is not aligned"
    text = content[8:8 + length].decode("utf-8")
    assert text[0] == "{"
    return json.loads(text), content[8 + length:]


def main():
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sample.safetensors"
        subprocess.run([sys.argv[1], path], check=True)
        header, data = read(path)
    assert header.pop("__metadata__") == {"format": "pt", "note": "grüße"}, header
    assert sorted(header) == ["bytes", "counts", "half", "weights"], header
    position = 0
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        count = 1
        for dimension in entry["shape"]:
            count *= dimension
        assert begin == position and end - begin == count * SIZES[entry["dtype"]], (name, entry)
        position = end
    assert position == len(data)

    def values(name, code):
        begin, end = header[name]["data_offsets"]
        return list(struct.unpack(f"<{(end - begin) // struct.calcsize(code)}{code}", data[begin:end]))

    assert header["weights"]["shape"] == [2, 3] and header["weights"]["dtype"] == "F32"
    assert values("weights", "f") == [0.5, -1.25, 3.0, struct.unpack("<f", struct.pack("<f", 1.024))[0], -0.0, 65504.0]
    assert header["counts"] == {"dtype": "I64", "shape": [2], "data_offsets": [0, 16]}
    assert values("counts", "q") == [-1, 2**62]
    assert values("half", "e") == [1.0, -2.0, 65504.0]
    assert values("bytes", "B") == [0, 127, 255]
    print("read 4 tensors")


main()
