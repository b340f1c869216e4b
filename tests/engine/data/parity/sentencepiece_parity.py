"""Compares our tokenizer.model reader with libsentencepiece over text of a fixed seed.

Usage: sentencepiece_parity.py ENCODE_TEXTS SENTENCEPIECE_IDS REPOSITORY

Models: three trained here on the demo texts (with byte fallback; without it; with pieces that the
user defined), and that of stories15M under QAAS_SHARED (default ../shared) where present.
"""

import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

FLAGS = ("--model_type=bpe --vocab_size=1500 --normalization_rule_name=identity "
         "--remove_extra_whitespaces=false --minloglevel=2 ")
VARIANTS = {
    "byte fallback": "--byte_fallback=true",
    "no byte fallback, no dummy prefix": "--add_dummy_prefix=false",
    "user-defined pieces": "--byte_fallback=true --user_defined_symbols=<sep>,<sep>x,the,▁of",
}
ODD = [" ", "  ", "    ", "\n", "\t", "\u00a0", "\u2581", "é", "e\u0301", "漢字", "👩‍👧", "<s>", "<unk>", "</s>", "<0x41>",
       "<sep>", "<sep>x", "the", " of", "1234", "...", "aaaa" * 20, "\u0085", "I've", "\u0001"]


def corpus(prose):
    choose = random.Random(20240607)
    texts = ["", " ", "a", " ".join("a" * 300), "ab" * 4000, *ODD, prose[:30000]]
    for _ in range(1500):
        begin = choose.randrange(len(prose) - 300)
        texts.append(prose[begin:begin + choose.randrange(1, 300)])
    for _ in range(1500):
        texts.append("".join(choose.choice(ODD) if choose.random() < 0.5 else
                             chr(choose.choice([choose.randrange(32, 127), choose.randrange(160, 0xD7FF),
                                                choose.randrange(0xE000, 0x20000)]))
                             for _ in range(choose.randrange(1, 30))))
    return texts


def lines(command, texts):
    text = "\n".join(json.dumps(t) for t in texts) + "\n"
    result = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise SystemExit(f"{command}: exit status {result.returncode}: {result.stderr}")
    return result.stdout.splitlines()


def compare(name, model, encode_texts, sentencepiece_ids, texts):
    theirs = lines([sentencepiece_ids, "encode", model], texts)
    ours = [line.split(" ")[-1] for line in lines([encode_texts, model.parent, "plain"], texts)]
    wrong = [i for i, text in enumerate(texts) if theirs[i] != ours[i]]
    for i in wrong[:5]:
        print(f"{texts[i][:200]!r}\n  theirs {theirs[i][:400]}\n  ours   {ours[i][:400]}")
    tokens = sum(len(json.loads(line)) for line in theirs)
    print(f"{name}: {len(texts)} texts, {tokens} tokens, {len(wrong)} mismatches")
    return bool(wrong) or len(ours) != len(texts)


def main():
    encode_texts, sentencepiece_ids, repository = sys.argv[1:]
    demo = Path(repository) / "tests/data/demo/datasets"
    prose = (demo / "sotu-evaluation/text.txt").read_text(encoding="utf-8")
    texts = corpus(prose)
    failed = False
    with tempfile.TemporaryDirectory() as work:
        # The trainer passes over long lines.
        sentences = (demo / "sotu-calibration/text.txt").read_text(encoding="utf-8").replace(". ", ".\n")
        training = Path(work) / "training.txt"
        training.write_text(sentences, encoding="utf-8")
        for name, flags in VARIANTS.items():
            folder = Path(work) / name
            folder.mkdir()
            # The trainer takes its flags as one text, so its paths must hold no blanks.
            prefix = Path(work) / "trained"
            subprocess.run([sentencepiece_ids, "train", training, prefix,
                            FLAGS + flags], check=True)
            Path(f"{prefix}.model").rename(folder / "tokenizer.model")
            failed |= compare(name, folder / "tokenizer.model", encode_texts, sentencepiece_ids, texts)
        shared = Path(os.environ.get("QAAS_SHARED", Path(repository) / ".." / "shared"))
        published = shared / "models/stories15M/tokenizer.model"
        if published.exists():
            folder = Path(work) / "stories15M"
            folder.mkdir()
            (folder / "tokenizer.model").write_bytes(published.read_bytes())
            failed |= compare("stories15M", folder / "tokenizer.model", encode_texts,
                              sentencepiece_ids, texts)
        else:
            print(f"left out: {published} is absent")
    sys.exit(1 if failed else 0)


main()
