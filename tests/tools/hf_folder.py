"""Writes and reads the model folders that Hugging Face tools use."""

import json
import struct

import torch

from byte_bpe import BEGIN, END
from llama_model import Shape

# The names that safetensors headers use.
DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def write_json(path, value, indent=2):
    path.write_text(json.dumps(value, indent=indent, ensure_ascii=False) + "\n", encoding="utf-8")


def tensor_bytes(tensor):
    """Little-endian bytes; through int16, as numpy has no bfloat16."""
    plain = tensor.contiguous()
    if plain.element_size() == 2:
        return plain.view(torch.int16).numpy().astype("<i2").tobytes()
    return plain.numpy().astype("<f4").tobytes()


def write_safetensors(path, tensors, metadata):
    """Tensors lie in the file by falling element size, then by name, without gaps."""
    names = {dtype: name for name, dtype in DTYPES.items()}
    order = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    header = {"__metadata__": metadata}
    offset = 0
    for name in order:
        tensor = tensors[name]
        size = tensor.numel() * tensor.element_size()
        header[name] = {"dtype": names[tensor.dtype], "shape": list(tensor.shape),
                        "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header, separators=(",", ":")).encode("utf-8")
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name in order:
            file.write(tensor_bytes(tensors[name]))


def read_safetensors(path):
    """All tensors as float32."""
    with open(path, "rb") as file:
        header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
        data = bytearray(file.read())
    tensors = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        begin, end = entry["data_offsets"]
        dtype = DTYPES[entry["dtype"]]
        count = (end - begin) // torch.empty(0, dtype=dtype).element_size()
        flat = torch.frombuffer(data, dtype=dtype, count=count, offset=begin)
        tensors[name] = flat.view(entry["shape"]).float()
    return tensors


def model_config(shape, tokenizer):
    return {
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": tokenizer.begin,
        "eos_token_id": tokenizer.end,
        "head_dim": shape.head_dim,
        "hidden_act": "silu",
        "hidden_size": shape.hidden,
        "initializer_range": 0.02,
        "intermediate_size": shape.intermediate,
        "max_position_embeddings": shape.length,
        "mlp_bias": False,
        "model_type": "llama",
        "num_attention_heads": shape.heads,
        "num_hidden_layers": shape.layers,
        "num_key_value_heads": shape.kv_heads,
        "pretraining_tp": 1,
        "rms_norm_eps": shape.norm_eps,
        "rope_scaling": None,
        "rope_theta": shape.rope_theta,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.46.0",
        "use_cache": True,
        "vocab_size": shape.vocab,
    }


def write_folder(folder, shape, weights, tokenizer):
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "config.json", model_config(shape, tokenizer))
    write_json(folder / "generation_config.json", {
        "_from_model_config": True,
        "bos_token_id": tokenizer.begin,
        "eos_token_id": tokenizer.end,
        "transformers_version": "4.46.0",
    })
    write_json(folder / "tokenizer.json", tokenizer.to_json())
    special = {token["content"]: token for token in tokenizer.to_json()["added_tokens"]}
    write_json(folder / "tokenizer_config.json", {
        "added_tokens_decoder": {
            str(token["id"]): {key: value for key, value in token.items() if key != "id"}
            for token in special.values()},
        "bos_token": BEGIN,
        "clean_up_tokenization_spaces": False,
        "eos_token": END,
        "model_input_names": ["input_ids", "attention_mask"],
        "model_max_length": shape.length,
        "tokenizer_class": "PreTrainedTokenizerFast",
    })
    write_json(folder / "special_tokens_map.json", {"bos_token": BEGIN, "eos_token": END})
    stored = {name: weight.detach().to(torch.bfloat16) for name, weight in weights.items()}
    write_safetensors(folder / "model.safetensors", stored, {"format": "pt"})


def read_folder(folder):
    """The shape and the float32 weights of a folder that write_folder made."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    shape = Shape(layers=config["num_hidden_layers"], hidden=config["hidden_size"],
                  intermediate=config["intermediate_size"], heads=config["num_attention_heads"],
                  kv_heads=config["num_key_value_heads"], vocab=config["vocab_size"],
                  length=config["max_position_embeddings"], rope_theta=config["rope_theta"],
                  norm_eps=config["rms_norm_eps"])
    weights = read_safetensors(folder / "model.safetensors")
    wanted = {name: list(size) for name, size in shape.weight_shapes().items()}
    if {name: list(weight.shape) for name, weight in weights.items()} != wanted:
        raise SystemExit(f"{folder}: the tensors are not those that config.json describes")
    return shape, weights
