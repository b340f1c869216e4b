"""A small trainer and encoder for byte-level byte-pair encodings.

Writes a Hugging Face tokenizer.json: model BPE over the byte-level alphabet, a pre-tokenizer
that splits by a regular expression and then maps bytes to printable characters, and a
post-processor that puts the begin-of-text token in front.
"""

import heapq
import json
import re
import unicodedata
from collections import Counter, defaultdict

BEGIN = "<|begin_of_text|>"
END = "<|end_of_text|>"

# How text is cut into words before bytes are merged: the form that Llama 3's tokenizer uses.
SPLIT_PATTERN = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
                 r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")


def byte_alphabet():
    """The printable character for each byte: itself where printable, else one from U+0100 up."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    characters = {byte: chr(byte) for byte in printable}
    for byte in range(256):
        if byte not in characters:
            characters[byte] = chr(0x100 + len(characters) - len(printable))
    return [characters[byte] for byte in range(256)]


def compile_split_pattern(text):
    """SPLIT_PATTERN for Python's re, which lacks \\p{L} and \\p{N}: over the text's characters."""
    classes = {"L": [], "N": []}
    for character in sorted(set(text)):
        group = unicodedata.category(character)[0]
        if group in classes:
            classes[group].append(re.escape(character))
    # A class may not be empty; U+FFFF is not a character, so it never matches text.
    letters, numbers = ("".join(classes[group]) or "\uffff" for group in "LN")
    pattern = SPLIT_PATTERN.replace(r"\p{L}\p{N}]", letters + numbers + "]")
    pattern = pattern.replace(r"\p{L}", f"[{letters}]").replace(r"\p{N}", f"[{numbers}]")
    return re.compile(pattern)


def count_words(text):
    return Counter(compile_split_pattern(text).findall(text))


def train_merges(text, count, report=lambda done: None):
    """The `count` most useful merges, as pairs of byte strings, most frequent pair first."""
    words = []
    frequencies = []
    for word, frequency in sorted(count_words(text).items()):
        words.append([bytes([b]) for b in word.encode("utf-8")])
        frequencies.append(frequency)
    pair_counts = Counter()
    where = defaultdict(set)
    for index, symbols in enumerate(words):
        for pair in zip(symbols, symbols[1:]):
            pair_counts[pair] += frequencies[index]
            where[pair].add(index)
    # A heap with stale entries: an entry counts only while it agrees with pair_counts.
    heap = [(-n, pair) for pair, n in pair_counts.items()]
    heapq.heapify(heap)
    merges = []
    made = set()
    while len(merges) < count and heap:
        negative, pair = heapq.heappop(heap)
        # Two ways to make one token would leave a gap in the ids: the first one wins.
        if pair_counts[pair] != -negative or negative == 0 or pair[0] + pair[1] in made:
            continue
        merges.append(pair)
        made.add(pair[0] + pair[1])
        changed = set()
        for index in where.pop(pair):
            symbols, frequency = words[index], frequencies[index]
            for old in zip(symbols, symbols[1:]):
                pair_counts[old] -= frequency
                changed.add(old)
            symbols = words[index] = merge_pair(symbols, pair)
            for new in zip(symbols, symbols[1:]):
                pair_counts[new] += frequency
                where[new].add(index)
                changed.add(new)
        pair_counts[pair] = 0
        for other in changed - {pair}:
            if pair_counts[other] > 0:
                heapq.heappush(heap, (-pair_counts[other], other))
        report(len(merges))
    if len(merges) < count:
        raise SystemExit(f"the text allows {len(merges)} merges only, {count} were asked for")
    return merges


def merge_pair(symbols, pair):
    merged = []
    i = 0
    while i < len(symbols):
        if i + 1 < len(symbols) and symbols[i] == pair[0] and symbols[i + 1] == pair[1]:
            merged.append(pair[0] + pair[1])
            i += 2
        else:
            merged.append(symbols[i])
            i += 1
    return merged


class Tokenizer:
    """Ids: the 256 bytes in the order of their characters, the merges, then BEGIN and END."""

    def __init__(self, merges):
        alphabet = byte_alphabet()
        self.merges = merges
        self.tokens = sorted((bytes([b]) for b in range(256)), key=lambda b: alphabet[b[0]])
        self.tokens += [left + right for left, right in merges]
        self.ids = {token: number for number, token in enumerate(self.tokens)}
        if len(self.ids) != len(self.tokens):
            raise SystemExit("two merges make the same token")
        self.ranks = {pair: rank for rank, pair in enumerate(merges)}
        self.begin = len(self.tokens)
        self.end = self.begin + 1
        self.size = self.begin + 2
        self.cache = {}

    def encode_word(self, word):
        known = self.cache.get(word)
        if known is not None:
            return known
        symbols = [bytes([b]) for b in word.encode("utf-8")]
        while len(symbols) > 1:
            pair = min(zip(symbols, symbols[1:]), key=lambda p: self.ranks.get(p, len(self.ranks)))
            if pair not in self.ranks:
                break
            symbols = merge_pair(symbols, pair)
        known = self.cache[word] = [self.ids[symbol] for symbol in symbols]
        return known

    def encode(self, text):
        """Token ids of plain text; no begin-of-text token, and no special token is looked for."""
        ids = []
        for word in compile_split_pattern(text).findall(text):
            ids.extend(self.encode_word(word))
        return ids

    def decode(self, ids):
        known = (self.tokens[i] for i in ids if i < self.begin)
        return b"".join(known).decode("utf-8", "replace")

    def to_json(self):
        alphabet = byte_alphabet()

        def shown(token):
            return "".join(alphabet[b] for b in token)

        def special(number, content):
            return {"id": number, "content": content, "single_word": False, "lstrip": False,
                    "rstrip": False, "normalized": False, "special": True}

        def byte_level(add_prefix_space):
            return {"type": "ByteLevel", "add_prefix_space": add_prefix_space,
                    "trim_offsets": True, "use_regex": False}

        begin = {"SpecialToken": {"id": BEGIN, "type_id": 0}}
        return {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [special(self.begin, BEGIN), special(self.end, END)],
            "normalizer": None,
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": SPLIT_PATTERN},
                 "behavior": "Isolated", "invert": False},
                byte_level(False)]},
            "post_processor": {
                "type": "TemplateProcessing",
                "single": [begin, {"Sequence": {"id": "A", "type_id": 0}}],
                "pair": [begin, {"Sequence": {"id": "A", "type_id": 0}},
                         {"SpecialToken": {"id": BEGIN, "type_id": 1}},
                         {"Sequence": {"id": "B", "type_id": 1}}],
                "special_tokens": {BEGIN: {"id": BEGIN, "ids": [self.begin], "tokens": [BEGIN]}},
            },
            "decoder": {**byte_level(True), "use_regex": True},
            "model": {
                "type": "BPE",
                "dropout": None,
                "unk_token": None,
                "continuing_subword_prefix": None,
                "end_of_word_suffix": None,
                "fuse_unk": False,
                "byte_fallback": False,
                "ignore_merges": False,
                "vocab": {shown(token): number for number, token in enumerate(self.tokens)},
                "merges": [f"{shown(left)} {shown(right)}" for left, right in self.merges],
            },
        }

    @classmethod
    def from_json(cls, path):
        """Reads back a tokenizer.json that to_json made."""
        model = json.loads(path.read_text(encoding="utf-8"))["model"]
        byte_of = {character: byte for byte, character in enumerate(byte_alphabet())}
        merges = []
        for line in model["merges"]:
            left, right = line.split(" ")
            merges.append((bytes(byte_of[c] for c in left), bytes(byte_of[c] for c in right)))
        return cls(merges)
