// Compares our tokenizer with the Rust tokenizers library over mixed text of a fixed seed: prose, code,
// random Unicode, and special tokens among all of them.
// Usage: node parity.mjs ENCODE_TEXTS WORK_FOLDER TEXT_FILE MODEL_FOLDER...
// Each model folder's tokenizer.json is compared as it is and in variants that use other parts of
// the format. Shows the first mismatches of each and exits 1 if there was any.

import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { createRequire } from 'node:module';

const [program, work, textFile, ...folders] = process.argv.slice(2);
const { Tokenizer } = createRequire(path.join(work, 'package.json'))('@anush008/tokenizers');

// xorshift32: the same texts in every run.
let state = 20240607;
function random(below) {
  state ^= state << 13;
  state ^= state >>> 17;
  state ^= state << 5;
  return (state >>> 0) % below;
}
const pick = (list) => list[random(list.length)];
const repeat = (count, make) => Array.from({ length: count }, make).join('');

const RANGES = [[0x20, 0x7e], [0x20, 0x7e], [0xa0, 0x17f], [0x180, 0x24f], [0x300, 0x36f], [0x370, 0x3ff],
  [0x400, 0x4ff], [0x5d0, 0x5ea], [0x600, 0x6ff], [0x900, 0x97f], [0xe00, 0xe7f], [0x1100, 0x11ff],
  [0x1e00, 0x1eff], [0x2000, 0x206f], [0x2070, 0x20cf], [0x2150, 0x218f], [0x2460, 0x24ff], [0x3000, 0x30ff],
  [0x4e00, 0x9fff], [0xac00, 0xd7a3], [0xe000, 0xe010], [0xf900, 0xfaff], [0xfb00, 0xfb06], [0xfe00, 0xfe0f],
  [0xff00, 0xffef], [0x10400, 0x1044f], [0x1d400, 0x1d7ff], [0x1f300, 0x1f6ff], [0xe0100, 0xe01ef], [1, 0x1f]];
const SPACES = [' ', ' ', ' ', '  ', '   ', '\n', '\n\n', '\r\n', '\t', '\u00a0', '\u2003', '\u3000',
  '\u0085', '\u180e', '\u2028', '\u200b', '\ufeff', '\v', '\f', ' \n ', '\u1680', '\u202f'];
const PIECES = ["'s", "'LL", "I'VE", "'\u017f", "don't", 'word', 'Word', 'WORD', '123', '4567', '٣٤', 'Ⅷ', '½', '_', '...',
  '!?', '#include <x>', 'e\u0301', 'é', 'ÅΩ', '한글', '한글'.normalize('NFD'), '漢字', '👩‍👩‍👧', '▁', '▁▁', '\u0000',
  'ﬁ', 'ß', 'İ', 'K', 'ſt', '\ufffd', '<0x41>', 'a'.repeat(50), '=='.repeat(20)];

function randomCharacter() {
  const [low, high] = pick(RANGES);
  return String.fromCodePoint(low + random(high - low + 1));
}

function corpus(specials) {
  const prose = fs.readFileSync(textFile, 'utf8');
  const code = fs.readFileSync(process.argv[1], 'utf8');
  const texts = ['', ' ', '\n', 'a', ...SPACES, ...PIECES, ...specials, ...SPACES.map((s) => `a${s}b`),
    ...SPACES.map((s) => `${s}${s}x`), ' '.repeat(300), 'ab'.repeat(5000), `${' '.repeat(40)}x\n`.repeat(20)];
  for (let i = 0; i < 600; ++i) {
    const begin = random(prose.length - 400);
    texts.push(prose.slice(begin, begin + 1 + random(400)));
  }
  for (let i = 0; i < 300; ++i) {
    const begin = random(code.length - 200);
    texts.push(code.slice(begin, begin + 1 + random(200)));
  }
  for (let i = 0; i < 3000; ++i) texts.push(repeat(1 + random(40), randomCharacter));
  const makers = [randomCharacter, () => pick(SPACES), () => pick(PIECES),
    () => (specials.length ? pick(specials) : 'x')];
  for (let i = 0; i < 3000; ++i) texts.push(repeat(1 + random(12), () => pick(makers)()));
  texts.push(prose.slice(0, 30000));
  return texts.map((text) => text.toWellFormed());
}

function variantsOf(original) {
  const make = (name, change) => {
    const copy = structuredClone(original);
    change(copy);
    return [name, copy];
  };
  const hasByteLevel = JSON.stringify(original.pre_tokenizer ?? null).includes('ByteLevel');
  const variants = [make('as it is', () => {}),
    make('merges as pairs, ignore_merges', (t) => {
      t.model.ignore_merges = true;
      t.model.merges = t.model.merges.map((m) => (typeof m === 'string' ? m.split(' ') : m));
    }),
    make('added tokens that strip, stand alone or are normalized', (t) => {
      const flags = [{ lstrip: true }, { rstrip: true }, { single_word: true },
        { normalized: true }, { lstrip: true, rstrip: true, normalized: true },
        { single_word: true, lstrip: true, rstrip: true }];
      let next = Math.max(Object.keys(t.model.vocab).length, ...t.added_tokens.map((a) => a.id + 1));
      ['<one>', '<two>', 'word', 'the e\u0301', '<|x|>', '<|x|><one>', ' of', 'of the'].forEach((content, i) => {
        t.added_tokens.push({ id: t.model.vocab[content] ?? next++, content, single_word: false,
          lstrip: false, rstrip: false, normalized: false, special: i % 2 === 0, ...flags[i % flags.length] });
      });
      if (hasByteLevel) t.normalizer = { type: 'NFC' };
    })];
  if (hasByteLevel) {
    for (const prefix of [false, true]) {
      variants.push(make(`ByteLevel with its own regex, prefix space ${prefix}`, (t) => {
        t.pre_tokenizer = { type: 'ByteLevel', add_prefix_space: prefix, trim_offsets: true, use_regex: true };
      }));
    }
    variants.push(make('Split by a text, then ByteLevel', (t) => {
      t.pre_tokenizer = { type: 'Sequence', pretokenizers: [
        { type: 'Split', pattern: { String: 'e' }, behavior: 'Isolated', invert: false },
        { type: 'Split', pattern: { Regex: '\\p{N}{1,3}|[^\\s\\p{L}]+' }, behavior: 'Isolated', invert: false },
        { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: false }] };
    }));
  } else {
    for (const scheme of ['always', 'first', 'never']) {
      for (const split of [false, true]) {
        variants.push(make(`Metaspace ${scheme}, split ${split}`, (t) => {
          t.normalizer = null;
          t.pre_tokenizer = { type: 'Metaspace', replacement: '▁', prepend_scheme: scheme, split };
          for (const token of t.added_tokens) token.normalized = false;
        }));
      }
    }
    variants.push(make('no byte fallback, unknown tokens fused', (t) => {
      t.model.byte_fallback = false;
      t.model.fuse_unk = true;
    }), make('no byte fallback, unknown tokens apart', (t) => {
      t.model.byte_fallback = false;
      t.model.fuse_unk = false;
    }));
  }
  return variants;
}

async function compare(label, tokenizer, folder) {
  fs.rmSync(folder, { recursive: true, force: true });
  fs.mkdirSync(folder, { recursive: true });
  fs.writeFileSync(path.join(folder, 'tokenizer.json'), JSON.stringify(tokenizer));
  const judge = Tokenizer.fromString(JSON.stringify(tokenizer));
  const texts = corpus(tokenizer.added_tokens.slice(0, 20).map((token) => token.content));
  const run = spawnSync(program, [folder], {
    input: texts.map((text) => JSON.stringify(text)).join('\n') + '\n', encoding: 'utf8', maxBuffer: 1 << 30 });
  if (run.status !== 0) throw new Error(`${label}: ${run.stderr}`);
  const ours = run.stdout.trimEnd().split('\n');
  if (ours.length !== texts.length) throw new Error(`${label}: ${ours.length} answers to ${texts.length} texts`);
  let mismatches = 0;
  let tokens = 0;
  for (const [i, text] of texts.entries()) {
    const encodings = [];
    for (const addSpecialTokens of [true, false]) {
      encodings.push((await judge.encode(text, null, { addSpecialTokens })).getIds());
    }
    tokens += encodings[0].length;
    const theirs = encodings.map((ids) => JSON.stringify(ids)).join(' ');
    if (theirs !== ours[i] && ++mismatches <= 5) {
      console.log(`${label}: ${JSON.stringify(text.slice(0, 300))}\n  theirs ${theirs.slice(0, 600)}\n  ours   ${ours[i].slice(0, 600)}`);
    }
  }
  console.log(`${label}: ${texts.length} texts, ${tokens} tokens, ${mismatches} mismatches`);
  return mismatches;
}

let failed = 0;
for (const folder of folders) {
  const original = JSON.parse(fs.readFileSync(path.join(folder, 'tokenizer.json'), 'utf8'));
  original.truncation = null;
  original.padding = null;
  for (const [name, variant] of variantsOf(original)) {
    failed += (await compare(`${path.basename(folder)}, ${name}`, variant, path.join(work, 'variant'))) > 0 ? 1 : 0;
  }
}
process.exit(failed > 0 ? 1 : 0);
