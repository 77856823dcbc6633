#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The models' names, and their mutants' counterparts. Prints lines like run.sh's.

Each inline and proctype of a model says in a comment beside or before it which functions of src/ perform it, as name(),
or that it is the model's own ("model"). All names in comments of that form must be functions of src/. And `mutants`
lists each mutant of each model with the mutant of the code that breaks the same rule, or why there is none."""
import pathlib
import re
import sys

here = pathlib.Path(__file__).resolve().parent
top = here.parent.parent
failed = 0


def result(good, text):
    global failed
    failed += not good
    print(("ok " if good else "not ok ") + text)


def functions():
    found = set()
    for path in [*top.glob("src/*.c"), *top.glob("src/*.h")]:
        for line in path.read_text().splitlines():
            # At the begin of a line, and no call: a definition or a declaration.
            m = re.match(r"(?:[A-Za-z_][\w \t*]*[ *])([a-z_]\w*)\(", line)
            if m and not line.startswith(("return", "else")):
                found.add(m.group(1))
    return found


def comment_of(lines, i):
    """Beside a line, or right before it."""
    beside = re.findall(r"/\*.*?\*/", lines[i])
    if beside:
        return beside[0]
    at, before = i - 1, []
    while at >= 0 and lines[at].startswith("#"):
        at -= 1
    if at < 0 or not lines[at].rstrip().endswith("*/"):
        return ""
    while at >= 0:
        before.insert(0, lines[at])
        if lines[at].lstrip().startswith("/*"):
            return " ".join(before)
        at -= 1
    return ""


def check_names(path, known):
    text = path.read_text()
    names = {n for c in re.findall(r"/\*.*?\*/", text, re.S) for n in re.findall(r"\b([a-z_]\w*)\(\)", c)}
    missing = sorted(names - known)
    result(not missing and names, f"{path.name}: names {len(names)} functions" +
           (f"; not in src/: {' '.join(missing)}" if missing else ""))
    lines = text.splitlines()
    bare = []
    for i, line in enumerate(lines):
        m = re.match(r"(?:active )?(?:inline|proctype) (\w+)", line)
        if m:
            comment = comment_of(lines, i)
            if not re.search(r"\b[a-z_]\w*\(\)|\bmodel\b", comment):
                bare.append(m.group(1))
    result(not bare, f"{path.name}: each part says who performs it" + (f"; not: {' '.join(bare)}" if bare else ""))


def check_mutants(models):
    listed = {}
    good = True
    for number, line in enumerate((here / "mutants").read_text().splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        model, mutant, code, *why = line.split(None, 3)
        listed.setdefault(model, []).append(mutant)
        if code == "-" and not why:
            result(False, f"mutants:{number}: no reason")
            good = False
        if code != "-" and not (top / "tests/mutants" / f"{code}.patch").is_file():
            result(False, f"mutants:{number}: there is no tests/mutants/{code}.patch")
            good = False
    tried = set(re.findall(r"^\s*caught (\w+)", (here / "run.sh").read_text(), re.M))
    for path in models:
        there = sorted(set(re.findall(r"\bMUTANT_(\w+)", path.read_text())))
        good = sorted(listed.pop(path.stem, [])) == there and good
        if not set(there) <= tried:
            result(False, f"{path.name}: never tried: {' '.join(sorted(set(there) - tried))}")
        result(len(there) >= 3, f"{path.name}: {len(there)} mutants")
    result(good and not listed, "mutants: lists each mutant of each model once, beside mutants of the code that exist")


models = sorted(here.glob("*.pml"))
known = functions()
for model in models:
    check_names(model, known)
check_mutants(models)
sys.exit(failed > 0)
