"""The tables and the figure of docs/findings/shipped-heads.md, from what other commands have written to build/heads.

    python -m benchmarks.heads                  # margins of every head
    python -m benchmarks.shipped.recogniser     # features of the recogniser
    python -m benchmarks.shipped.page           # prints the tables, draws docs/findings/shipped-heads.svg

How often a Chinese character is used comes from the word list of the package wordfreq 3.1.1 (Apache-2.0), which is
downloaded like the heads: each word's share of a large corpus, added up over the words that hold the character.
"""

import argparse
import gzip
import json
import zipfile
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import rankdata, spearmanr

import gnc
from benchmarks.heads import SOURCES, Source, fetch

WORDS = Source("wordfreq==3.1.1", lambda package: None)
PARTS = 10  # of the characters, by how often they are used
MEASURED = ("gnc1_rank", "gnc1_quotient", "cdnv", "duality", "minimum", "margin_q05", "margin_q50", "ncc_agreement")
NUMBERED = {  # the head's name on the page
    "polyphone": "Mandarin readings",
    "morphology": "Russian tags",
    "spanish": "Spanish tags",
    "tags": "Czech tags",
    "lemmas": "Czech lemma rules",
    "ocr": "Chinese characters",
    "ocr5": "characters, five scripts",
    "captcha": "captcha characters",
    "birds": "bird species",
    "whisper": "speech tokens, English",
    "multilingual": "speech tokens, 99 languages",
}


def read_facts(folder: Path, name: str, kind: str = "") -> dict[str, Any] | None:
    """What `gnc margins --json` said of a head; None where it was not asked."""
    place = folder / f"{name}{kind}.json"
    return json.loads(place.read_text()) if place.exists() else None


def character_shares(folder: Path) -> dict[str, float]:
    """Of each Chinese character its occurrences per word of text."""
    import msgpack

    packed = zipfile.ZipFile(fetch(WORDS, folder)).read("wordfreq/data/large_zh.msgpack.gz")
    _, *bins = msgpack.unpackb(gzip.decompress(packed))  # bin i: words of frequency 10^(-i / 100)
    shares: defaultdict[str, float] = defaultdict(float)
    for index, words in enumerate(bins):
        for word in words:
            for character in word:
                shares[character] += 10 ** (-index / 100)
    return shares


def fallen_groups(facts: dict[str, Any]) -> list[list[int]]:
    """Rows that are the same, and rows that chains of cosines above .999 join; a group may have a row of another."""
    return sorted([*facts["near_duplicates"], *facts["duplicates"]], key=len, reverse=True)


def chance_rarer(some: np.ndarray, others: np.ndarray) -> float:
    """The probability that one of `some` is below one of `others`, equal ones counted half."""
    ranks = rankdata(np.concatenate([others, some]))[: len(others)]
    return float((ranks.sum() - len(others) * (len(others) + 1) / 2) / (len(some) * len(others)))


def table(rows: Iterable[Iterable[object]]) -> str:
    first, *rest = [[str(cell) for cell in row] for row in rows]
    return "\n".join("| " + " | ".join(row) + " |" for row in (first, ["---"] * len(first), *rest))


def number(value: float | None, digits: int = 3) -> str:
    return "" if value is None else f"{value:.{digits}g}" if abs(value) < 0.01 or abs(value) >= 1000 else f"{value:.3f}"


def print_heads(folder: Path) -> None:
    """One line per head: as shipped, its distinct rows, and less the mean."""
    measured = "identical rows", "fallen rows (groups)", "minimum", "median", "random rows", "best known", "score"
    spread = "d x cos^2, as shipped", "centred", "Welch"
    lines: list[list[object]] = [["head", "K", "d", *measured, "centred: minimum", "centred: median", *spread]]
    for name, title in NUMBERED.items():
        shipped = read_facts(folder, name)
        if shipped is None:
            continue
        distinct = read_facts(folder, name, "-distinct") or shipped
        centred = read_facts(folder, name, "-distinct-centred") or read_facts(folder, name, "-centred") or {}
        groups = fallen_groups(shipped)
        lines.append([
            title, *(shipped[fact] for fact in ("rows_in_file", "feature_dim")),
            sum(map(len, shipped["duplicates"])), f"{len({k for group in groups for k in group})} ({len(groups)})",
            number(distinct["margin_min_upper"]), number(distinct["margin_q50"]), number(shipped["random_margin"]),
            number(shipped["reference_margin_lower"]), number(distinct["margin_score"]), number(centred.get("margin_min_upper")),
            number(centred.get("margin_q50")), number(shipped["mean_squared_cosine_times_dim"]),
            number(shipped["centred_mean_squared_cosine_times_dim"]), number(shipped["welch_floor"]),
        ])  # fmt: skip
    print("\n## Heads\n", table(lines), sep="\n")


def by_class(facts: dict[str, Any]) -> np.ndarray:
    """The margin of every class, the middle of its interval."""
    margins = np.full(facts["rows_in_file"], np.nan)
    for one in facts["classes"]:
        margins[one["class"]] = (one["lower"] + one["upper"]) / 2
    return margins


def by_use(values: np.ndarray, used: np.ndarray) -> list[np.ndarray]:
    """The values in PARTS equal parts, of the rarest classes first."""
    return np.array_split(values[used.argsort(kind="stable")], PARTS)


def print_characters(folder: Path) -> None:
    """Of the two recognisers of Chinese: which characters have fallen together, and margins by how often each is used."""
    shares = character_shares(folder)
    for name in ("ocr", "ocr5"):
        facts = read_facts(folder, name)
        if facts is None:
            continue
        names = (folder / f"{name}.txt").read_text().splitlines()
        used = shares_of(names, shares)
        is_listed, is_chinese = used > 0, np.array([is_han(one) for one in names])
        margins, groups = by_class(facts), fallen_groups(facts)
        print(
            f"\n## {NUMBERED[name]}: {len(names)} classes, {is_chinese.sum()} Chinese, {is_listed.sum()} in the word list"
        )
        fallen = np.zeros(len(names), dtype=bool)
        fallen[[k for group in groups for k in group]] = True
        for kind, which in (("fallen", fallen & is_listed), ("others", ~fallen & is_listed)):
            print(f"{kind}: {which.sum()} listed, used {np.median(used[which]):.3g} per word (median)")
        if fallen[is_listed].any():
            chance = chance_rarer(used[fallen & is_listed], used[~fallen & is_listed])
            print(f"a fallen one is rarer with probability {chance:.4f}")
        print("fallen and not listed:", "".join(names[k] for k in (fallen & ~is_listed).nonzero()[0]))
        print("groups:", [(len(group), "".join(names[k] for k in group[:20])) for group in groups[:8]])
        is_measured = is_listed & ~np.isnan(margins)
        for kind, which in (("all that were measured", is_measured), ("not fallen", is_measured & ~fallen)):
            found = spearmanr(margins[which], used[which]).statistic
            parts = [round(float(np.median(part)), 3) for part in by_use(margins[which], used[which])]
            print(f"{kind}: Spearman of margin and use {found:.3f}, medians by use, rarest first: {parts}")


def is_han(name: str) -> bool:
    return len(name) == 1 and "\u4e00" <= name <= "\u9fff"


def shares_of(names: list[str], shares: dict[str, float]) -> np.ndarray:
    """How often each class is used; 0 for what is no Chinese character, or not in the list, as traditional ones."""
    return np.array([shares.get(name, 0.0) if is_han(name) else 0.0 for name in names])


def measure(found: dict[str, np.ndarray], left_out: np.ndarray) -> dict[str, Any]:
    """Collapse of the recogniser without some of its classes: neither their rows nor their pictures."""
    kept = np.setdiff1d(np.arange(len(found["weights"])), left_out)
    place = np.full(len(found["weights"]), -1)
    place[kept] = np.arange(len(kept))
    enters = place[found["labels"]] >= 0
    return dict(
        gnc.measure(
            found["features"][enters],
            place[found["labels"][enters]],
            found["weights"][kept],
            bias=found["bias"][kept],
            columns=MEASURED,
        )
    ) | {
        "classes": len(kept),
        "classes drawn": len(np.unique(found["labels"][enters])),
        "pictures": int(enters.sum()),
        "read right": float((found["read"] == found["labels"])[enters].mean()),
    }


def print_collapse(folder: Path, found: dict[str, np.ndarray]) -> None:
    """The recogniser's features beside its rows, with all classes and without the fallen ones."""
    facts = read_facts(folder, "ocr")
    assert facts is not None
    fallen = np.array([k for group in fallen_groups(facts) for k in group], dtype=int)
    whole, without = measure(found, np.array([], dtype=int)), measure(found, fallen)
    own, right = np.isin(found["labels"], fallen), found["read"] == found["labels"]
    print(f"\nof {own.sum()} pictures of fallen classes {right[own].sum()} are read right")
    print(f"of all {len(own)} pictures {np.isin(found['read'], fallen).sum()} are read as one of a fallen class")
    lines = [["", "all classes", f"without {len(fallen)} fallen"]]
    print(
        "\n## Collapse\n",
        table(lines + [[name, number(whole[name], 5), number(without[name], 5)] for name in whole]),
        sep="\n",
    )


def draw(folder: Path, found: dict[str, np.ndarray], file: Path) -> None:
    """Left: margins of each head beside random rows and the best code. Right: margin and reading by use of a character."""
    import matplotlib.pyplot as plt
    from matplotlib.lines import Line2D

    from analysis.figures.style import CATEGORIES, INK, MUTED, RULE

    figure, (left, right) = plt.subplots(1, 2, figsize=(10.4, 4.4), width_ratios=(1.25, 1), layout="constrained")
    heads = [
        (name, facts)
        for name in NUMBERED
        if (facts := read_facts(folder, name, "-distinct") or read_facts(folder, name))
    ]
    for y, (_, facts) in enumerate(reversed(heads)):
        if facts["margin_q05"] is not None:
            left.plot([facts["margin_q05"], facts["margin_q95"]], [y, y], color=CATEGORIES[0], lw=5, alpha=0.35)
            left.plot(facts["margin_q50"], y, "o", color=CATEGORIES[0])
        left.plot(facts["margin_min_upper"], y, "x", color=CATEGORIES[1])
        for value, mark in ((facts["random_margin"], "|"), (facts["reference_margin_lower"], "D")):
            if value is not None:
                left.plot(value, y, mark, color=INK, ms=14 if mark == "|" else 5, mfc="none")
    left.set_yticks(
        range(len(heads)),
        [f"{NUMBERED[name]}  {f['rows_in_file']:,} x {f['feature_dim']}" for name, f in reversed(heads)],
    )
    left.set_xlabel("one-vs-rest margin of unit rows")
    marks = (("o", CATEGORIES[0], "median, 5 to 95 % of classes"), ("x", CATEGORIES[1], "smallest"),
             ("|", INK, "smallest of random rows"), ("D", INK, "best code known"))  # fmt: skip
    handles = [Line2D([], [], marker=mark, color=colour, ls="", mfc="none" if mark == "D" else colour, label=text)
               for mark, colour, text in marks]  # fmt: skip
    figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    shares, facts = character_shares(folder), read_facts(folder, "ocr")
    assert facts is not None
    names, margins = (folder / "ocr.txt").read_text().splitlines(), by_class(facts)
    used = shares_of(names, shares)
    chinese, used = used.nonzero()[0], used[used > 0]
    parts, x = by_use(margins[chinese], used), np.arange(PARTS)
    low, middle, high = (np.array([np.quantile(part, q) for part in parts]) for q in (0.05, 0.5, 0.95))
    right.fill_between(x, low, high, color=CATEGORIES[0], alpha=0.2, lw=0)
    right.plot(x, middle, "-o", color=CATEGORIES[0])
    right.text(x[-1], 0.4, "margin: median,\n5 to 95 % of classes", color=CATEGORIES[0], ha="right", va="top")
    right_ones = np.full(len(names), np.nan)
    classes = np.unique(found["labels"])
    sums = np.bincount(found["labels"], found["read"] == found["labels"], len(names))
    right_ones[classes] = sums[classes] / np.bincount(found["labels"], minlength=len(names))[classes]
    right.plot(x, [np.nanmean(part) for part in by_use(right_ones[chinese], used)], "-s", color=CATEGORIES[2])
    right.text(x[-1], 1.01, "pictures read right", color=CATEGORIES[2], ha="right", va="bottom")
    right.set_xticks(x, ["rarest", *[""] * (PARTS - 2), "most used"])
    right.set_xlabel("ten equal parts of the characters, by use")
    right.set_ylim(0, 1.1)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="x" if axes is left else "y", color=RULE)
        axes.tick_params(color=MUTED)
    figure.savefig(file, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--folder", type=Path, default=Path("build/heads"), help="where the other commands wrote; build/heads"
    )
    parser.add_argument("--figure", type=Path, default=Path("docs/findings/shipped-heads.svg"))
    parser.add_argument("--without-collapse", action="store_true", help="leave out what takes a CPU minute")
    options = parser.parse_args()
    assert set(NUMBERED) == set(SOURCES)
    print_heads(options.folder)
    print_characters(options.folder)
    with np.load(options.folder / "recogniser.npz") as stored:
        found = dict(stored)
    draw(options.folder, found, options.figure)
    if not options.without_collapse:
        print_collapse(options.folder, found)


if __name__ == "__main__":
    main()
