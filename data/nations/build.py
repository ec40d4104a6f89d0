#!/usr/bin/env python3
"""Builds the `nations` knowledge graph from its source tables.

Reads   countries.tsv others.tsv subregions.tsv memberships.tsv images/*.png
Writes  entities.tsv relations.tsv train.tsv valid.tsv test.tsv

    python3 build.py           check the sources, write the graph, print counts
    python3 build.py --check   check the sources only

Needs nothing but the standard library. The output depends only on the
sources and on SEED: the split orders facts by a hash, not by a random
generator, so every version of Python writes the same files.
"""

import hashlib
import os
import re
import sys
from collections import Counter

SEED = "nations-1"
VALID_SHARE = 0.10
TEST_SHARE = 0.10

HERE = os.path.dirname(os.path.abspath(__file__))

COUNTRY_COLUMNS = [
    "key", "name", "capital", "subregion", "currency", "languages", "borders",
    "seas", "sea_neighbours", "government", "drives_on", "description",
]
OTHER_COLUMNS = ["key", "name", "kind", "description"]

# column of countries.tsv, relation, kind of the tail, at least, at most
COLUMNS = [
    ("capital", "capital", "city", 1, 1),
    ("subregion", "subregion", "subregion", 1, 1),
    ("borders", "borders", "country", 0, None),
    ("sea_neighbours", "sea_neighbour", "country", 0, None),
    ("seas", "coast_on", "sea", 0, None),
    ("currency", "currency", "currency", 1, None),
    ("languages", "official_language", "language", 1, None),
    ("government", "government", "government", 1, 1),
    ("drives_on", "drives_on", "driving_side", 1, 1),
]

# in the order in which they are written
RELATIONS = [
    ("capital", "capital"),
    ("subregion", "lies in subregion"),
    ("part_of", "is part of"),
    ("borders", "borders"),
    ("sea_neighbour", "is sea neighbour of"),
    ("coast_on", "has coast on"),
    ("currency", "currency"),
    ("official_language", "official language"),
    ("member_of", "is member of"),
    ("government", "form of government"),
    ("drives_on", "drives on"),
]
SYMMETRIC = {"borders", "sea_neighbour"}

# a city state has no capital apart from itself
NO_CAPITAL = {"Vatican_City"}

KINDS = ["country", "city", "region", "subregion", "sea", "currency",
         "language", "organisation", "government", "driving_side"]

errors = []


def error(message):
    errors.append(message)


def read_table(name, columns):
    """The rows of a tab-separated table with the given header, as dicts."""
    with open(os.path.join(HERE, name), encoding="utf-8", newline="") as f:
        lines = f.read().split("\n")
    if lines and lines[-1] == "":
        lines.pop()
    if not lines or lines[0].split("\t") != columns:
        sys.exit("%s: the header is not %s" % (name, " ".join(columns)))
    rows = []
    for number, line in enumerate(lines[1:], 2):
        cells = line.split("\t")
        if len(cells) != len(columns):
            error("%s:%d: %d cells, not %d" % (name, number, len(cells), len(columns)))
            continue
        for cell in cells:
            if cell != cell.strip() or "\r" in cell:
                error("%s:%d: stray white space in %r" % (name, number, cell))
        rows.append(dict(zip(columns, cells)))
    return rows


def values(cell):
    return cell.split(";") if cell else []


def check_key(where, key):
    if not key or not key.isascii() or any(c.isspace() or c == ";" for c in key):
        error("%s: bad key %r" % (where, key))


def load_entities(countries, others):
    """Key -> (name, kind, description), countries first, checked."""
    entities = {}
    rows = [("countries.tsv", row, "country") for row in countries]
    rows += [("others.tsv", row, row["kind"]) for row in others]
    for where, row, kind in rows:
        key = row["key"]
        check_key(where, key)
        if key in entities:
            error("%s: duplicate key %s" % (where, key))
            continue
        if kind not in KINDS or (kind == "country") != (where == "countries.tsv"):
            error("%s: %s has the kind %r" % (where, key, kind))
        if not row["name"]:
            error("%s: %s has no name" % (where, key))
        if not row["description"]:
            error("%s: %s has no description" % (where, key))
        entities[key] = (row["name"], kind, row["description"])
    seen = {}
    for key, (name, kind, _) in entities.items():
        if (name, kind) in seen:
            error("%s and %s share the name %r and the kind %s" % (seen[name, kind], key, name, kind))
        seen[name, kind] = key
    return entities


def collect_facts(countries, subregions, memberships, entities):
    """The facts in a fixed order, checked."""
    facts = []

    def add(head, relation, tail, head_kind, tail_kind, where):
        for key, kind in ((head, head_kind), (tail, tail_kind)):
            if key not in entities:
                error("%s: unknown %s %r (%s %s %s)" % (where, kind, key, head, relation, tail))
                return
            if entities[key][1] != kind:
                error("%s: %s is a %s, not a %s (%s %s %s)"
                      % (where, key, entities[key][1], kind, head, relation, tail))
                return
        if head == tail:
            error("%s: %s %s itself" % (where, head, relation))
            return
        facts.append((head, relation, tail))

    for column, relation, kind, least, most in COLUMNS:
        for row in countries:
            tails = values(row[column])
            if column == "capital" and row["key"] in NO_CAPITAL and not tails:
                continue
            if len(tails) < least or (most is not None and len(tails) > most):
                error("countries.tsv: %s has %d values in %s" % (row["key"], len(tails), column))
            for tail in tails:
                add(row["key"], relation, tail, "country", kind, "countries.tsv")
        if relation == "subregion":
            for row in subregions:
                add(row["subregion"], "part_of", row["region"], "subregion", "region", "subregions.tsv")
    organisations = set()
    for row in memberships:
        if row["organisation"] in organisations:
            error("memberships.tsv: %s has two lines" % row["organisation"])
        organisations.add(row["organisation"])
        for member in values(row["members"]):
            add(member, "member_of", row["organisation"], "country", "organisation", "memberships.tsv")

    for fact, count in Counter(facts).items():
        if count > 1:
            error("the fact %s %s %s is given %d times" % (fact + (count,)))
    known = set(facts)
    for head, relation, tail in facts:
        if relation in SYMMETRIC and (tail, relation, head) not in known:
            error("%s %s %s, but not the other way round" % (head, relation, tail))
        if relation == "sea_neighbour" and (head, "borders", tail) in known:
            error("%s and %s both border and are sea neighbours" % (head, tail))
    coast = {head for head, relation, _ in facts if relation == "coast_on"}
    for row in countries:
        if row["sea_neighbours"] and row["key"] not in coast:
            error("%s has sea neighbours but no coast" % row["key"])
    order = {relation: number for number, (relation, _) in enumerate(RELATIONS)}
    facts.sort(key=lambda fact: (order[fact[1]], fact[0], fact[2]))
    return facts


def drop_unused(entities, facts):
    """Leaves out the entities that no country leads to, and their facts."""
    used = {key for key, (_, kind, _) in entities.items() if kind == "country"}
    grown = True
    while grown:
        reached = {tail for head, _, tail in facts if head in used} - used
        used |= reached
        grown = bool(reached)
    for key, (_, kind, _) in entities.items():
        if key not in used:
            print("dropped, no country uses it: %s (%s)" % (key, kind))
    facts = [fact for fact in facts if fact[0] in used and fact[2] in used]
    return {key: entities[key] for key in entities if key in used}, facts


def split(facts):
    """Train, valid and test. A symmetric pair stays together; a fact that is
    the first in hash order to show an entity or a relation goes to train."""
    groups = {}
    for head, relation, tail in facts:
        ends = sorted((head, tail)) if relation in SYMMETRIC else (head, tail)
        groups.setdefault((ends[0], relation, ends[1]), []).append((head, relation, tail))

    def digest(name):
        return hashlib.sha256("\t".join((SEED,) + name).encode("utf-8")).hexdigest()

    wanted = {"valid": round(VALID_SHARE * len(facts)), "test": round(TEST_SHARE * len(facts))}
    parts = {"train": [], "valid": [], "test": []}
    covered = set()
    free = []
    for name in sorted(groups, key=digest):
        head, relation, tail = name
        shown = {("entity", head), ("entity", tail), ("relation", relation)}
        if shown <= covered:
            free.append(groups[name])
        else:
            covered |= shown
            parts["train"] += groups[name]
    for group in free:
        for part in ("valid", "test"):
            if len(parts[part]) + len(group) <= wanted[part]:
                parts[part] += group
                break
        else:
            parts["train"] += group
    order = {fact: number for number, fact in enumerate(facts)}
    for part in parts.values():
        part.sort(key=order.get)
    return parts


def stop_at_errors():
    if errors:
        for message in errors:
            print("error: " + message)
        sys.exit("%d errors, nothing written" % len(errors))


def require_silence(entities, parts):
    """Refuses descriptions that name the other end of a fact of valid or test."""
    for part in ("valid", "test"):
        for head, relation, tail in parts[part]:
            for of, other in ((head, tail), (tail, head)):
                name, description = entities[other][0], entities[of][2]
                if re.search(r"(?<!\w)%s(?!\w)" % re.escape(name), description, re.IGNORECASE):
                    error("the description of %s names %s, but %s has that fact" % (of, other, part))


def write(name, lines):
    with open(os.path.join(HERE, name), "w", encoding="utf-8", newline="\n") as f:
        for line in lines:
            f.write("\t".join(line) + "\n")


def main():
    countries = read_table("countries.tsv", COUNTRY_COLUMNS)
    others = read_table("others.tsv", OTHER_COLUMNS)
    subregions = read_table("subregions.tsv", ["subregion", "region"])
    memberships = read_table("memberships.tsv", ["organisation", "members"])

    entities = load_entities(countries, others)
    keys = {row["key"] for row in countries}
    images = {os.path.splitext(name)[0] for name in os.listdir(os.path.join(HERE, "images"))}
    for key in sorted(keys ^ images):
        error("%s is only in %s" % (key, "countries.tsv" if key in keys else "images"))
    facts = collect_facts(countries, subregions, memberships, entities)
    stop_at_errors()
    entities, facts = drop_unused(entities, facts)

    parts = split(facts)
    require_silence(entities, parts)
    stop_at_errors()
    assert sorted(sum(parts.values(), [])) == sorted(facts)
    shown = {end for head, _, tail in parts["train"] for end in (head, tail)}
    assert shown == set(entities)
    assert {fact[1] for fact in parts["train"]} == {relation for relation, _ in RELATIONS}

    if "--check" not in sys.argv[1:]:
        write("entities.tsv", [tuple(OTHER_COLUMNS)] + [(key,) + entities[key] for key in entities])
        write("relations.tsv", [("key", "name")] + RELATIONS)
        for part, part_facts in parts.items():
            write(part + ".tsv", part_facts)

    print("%-20s %5s" % ("kind", "count"))
    kinds = Counter(kind for _, kind, _ in entities.values())
    for kind in KINDS:
        print("%-20s %5d" % (kind, kinds[kind]))
    print("%-20s %5d" % ("all", len(entities)))
    print()
    print("%-20s %5s %5s %5s %5s" % ("relation", "all", "train", "valid", "test"))
    counts = {part: Counter(fact[1] for fact in parts[part]) for part in parts}
    for relation in [name for name, _ in RELATIONS]:
        row = [counts[part][relation] for part in ("train", "valid", "test")]
        print("%-20s %5d %5d %5d %5d" % ((relation, sum(row)) + tuple(row)))
    row = [len(parts[part]) for part in ("train", "valid", "test")]
    print("%-20s %5d %5d %5d %5d" % (("all", sum(row)) + tuple(row)))


if __name__ == "__main__":
    main()
