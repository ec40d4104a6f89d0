"""Asks the page of `dsom-report --ask` in Chromium what dsom-predict is asked, and compares: a hundred questions for heads and
tails, with known answers and without, and the facts of some explanations. Answers may change places only where their scores
are even but for rounding. Walks through the page by keyboard alone, and looks at it as browser.py does.

Usage: ask.py OUT PROGRAMS RUN [--model NAME] [--half]
"""

import argparse
import json
import pathlib
import random
import subprocess

from browser import Browser, chromium, look

# Relative to the largest score of an answer: rounding of sums in f32, and of tables in half precision.
ROUNDING = {False: 2e-6, True: 1e-3}
# Questions whose explanations are compared.
WHYS = 8
# Fills in the form as a person does, and reads the answers.
ASK = """(key, relation, place, known) => {
  const box = $('entity'), tell = (field, name) => field.dispatchEvent(new Event(name, {bubbles: true}));
  box.focus();
  box.value = key;
  tell(box, 'input');
  box.dispatchEvent(new KeyboardEvent('keydown', {key: 'Enter', bubbles: true}));
  $('relation').value = relation;
  $('question').elements.place.value = place;
  $('known').checked = known;
  tell($('relation'), 'change');
  return [...$('rows').rows].map(row => {
    const [, name, score, probability] = [...row.cells];
    const tags = [...name.querySelectorAll('.tag')].map(tag => tag.textContent);
    return {key: name.querySelector('.key').textContent || name.querySelector('bdi').textContent, score: Number(score.textContent),
      probability: parseFloat(probability.textContent), known: tags.includes('known')};
  });
}"""
# The facts that resemble each answer.
WHY = """(key, relation, place) => {
  const entity = entities.findIndex(each => each[0] === key), query = relation + (place === 'head' ? relations.length : 0);
  const keys = (head, tail) => [entities[head][0], relations[relation][0], entities[tail][0]];
  return answer(entity, query, false).answers.map(({id}) => factsOf(entity, query, id).map(
    ({from, to}) => place === 'head' ? keys(to, from) : keys(from, to)));
}"""
# Pairs of known facts, and of entities and relations by chance.
QUESTIONS = """(seeds => seeds.map(([first, second], i) => {
  const fact = Math.floor(first * train.length / 3) * 3, place = i % 4 < 2 ? 'tail' : 'head';
  const entity = i % 2 ? Math.floor(first * entities.length) : train[fact + (place === 'tail' ? 0 : 2)];
  const relation = i % 2 ? Math.floor(second * relations.length) : train[fact + 1];
  return {key: entities[entity][0], relation, word: relations[relation][0], place};
}))"""

# Seconds until the page is whole, and of an answer on average.
TIMES = """(() => {
  const whole = performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd, started = performance.now();
  for (let i = 0; i < 20; i++) answer(i, 0, false);
  return [whole / 1000, (performance.now() - started) / 20000];
})()"""


def explained(arguments: argparse.Namespace, question: dict) -> list[list[list[str]]]:
    words = [question["key"], question["word"], "?"] if question["place"] == "tail" else ["?", question["word"], question["key"]]
    call = [arguments.programs / "dsom-predict", "--run", arguments.run, "--model", arguments.model, "--why", "--json", "--", *words]
    output = subprocess.run(call, check=True, capture_output=True, text=True).stdout
    return [json.loads(line)["why"]["facts"] for line in output.splitlines()]


def predicted(arguments: argparse.Namespace, questions: list[dict], known: bool) -> list[list[dict]]:
    lines = [
        {"head": q["key"], "relation": q["word"], "tail": None} if q["place"] == "tail" else
        {"head": None, "relation": q["word"], "tail": q["key"]} for q in questions
    ]
    path = arguments.out / "questions.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    call = [arguments.programs / "dsom-predict", "--run", arguments.run, "--model", arguments.model, "--questions", path, "--json"]
    output = subprocess.run(call + ["--include-known"] * known, check=True, capture_output=True, text=True).stdout
    answers = [[] for _ in questions]
    for row in map(json.loads, output.splitlines()):
        row["key"] = row[f"{row['asked']}_key"]
        answers[row["question"] - 1].append(row)
    return answers


def compare(page: list[dict], program: list[dict], rounding: float, question: dict) -> int:
    """The number of places that hold another answer than the program's."""
    assert len(page) == len(program), f"{question}: {len(page)} answers, the program has {len(program)}"
    even = rounding * max(abs(row["score"]) for row in program)
    scores, swapped = {row["key"]: row["score"] for row in program}, 0
    for shown, row in zip(page, program):
        swapped += shown["key"] != row["key"]
        apart = abs(scores.get(shown["key"], program[-1]["score"]) - row["score"])
        assert apart <= even, f"{question}: {shown}, the program has {row}"
        assert abs(shown["score"] - row["score"]) <= even + 1e-4, f"{question}: {shown}, the program has {row}"
        if shown["key"] == row["key"]:
            assert shown["known"] == row["known"], f"{question}: {shown}, the program has {row}"
            far = abs(shown["probability"] - 100 * row["probability"])
            assert far <= 0.0051 + 4 * even * shown["probability"], f"{question}: {shown}, the program has {row}"
    return swapped


def press(browser: Browser, *keys: str) -> None:
    codes = {"Tab": 9, "Enter": 13, "ArrowDown": 40, "Escape": 27, " ": 32}
    for key in keys:
        text = {"Enter": "\r", " ": " "}.get(key, "")
        for kind in ["keyDown", "keyUp"]:
            more = {"text": text} if text and kind == "keyDown" else {}
            browser.call("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=codes[key], **more)


def walk(browser: Browser, word: str) -> None:
    """Asks by keyboard alone, and opens the first explanation."""
    press(browser, "Tab")
    assert browser.value("document.activeElement.id") == "entity"
    browser.call("Input.insertText", text=word)
    state = "(e => [e.getAttribute('aria-expanded'), $(e.getAttribute('aria-activedescendant') ?? '')?.ariaSelected])($('entity'))"
    assert browser.value(state) == ["true", None]
    press(browser, "ArrowDown")
    assert browser.value(state) == ["true", "true"]
    press(browser, "Escape")
    assert browser.value(state) == ["false", None]
    press(browser, "ArrowDown", "ArrowDown", "Enter")
    assert browser.value(state) == ["false", None] and browser.value("!$('answers').hidden")
    press(browser, "Tab")
    assert browser.value("document.activeElement.id") == "relation"
    press(browser, "Tab", "Tab", "Tab", "Enter")
    opened = "new Promise(then => setTimeout(then, 200)).then(() => document.activeElement.nextSibling?.textContent ?? '')"
    assert len(browser.value(opened)) > 9, "no explanation"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ["out", "programs", "run"]:
        parser.add_argument(name, type=pathlib.Path)
    parser.add_argument("--model", default="student")
    parser.add_argument("--half", action="store_true")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    page = arguments.run / f"ask-{arguments.model}{'-half' * arguments.half}.html"
    call = [arguments.programs / "dsom-report", "--run", arguments.run, "--quiet", "--ask", "--model", arguments.model, "--out", page]
    subprocess.run(call + ["--half"] * arguments.half, check=True)
    with chromium() as browser:
        browser.open(page.resolve().as_uri())
        loaded, answered = browser.value(TIMES)
        chance = random.Random(0)
        seeds = [[chance.random(), chance.random()] for _ in range(100)]
        questions = browser.value(f"{QUESTIONS}({json.dumps(seeds)})")
        walk(browser, questions[0]["key"][:3])
        swapped = 0
        for known in [False, True]:
            for question, program in zip(questions, predicted(arguments, questions, known)):
                words = [question["key"], str(question["relation"]), question["place"], known]
                shown = browser.value(f"({ASK})(...{json.dumps(words)})")
                swapped += compare(shown, program, ROUNDING[arguments.half], question)
        for question in questions[:WHYS * (not arguments.half)]:
            shown = browser.value(f"({WHY})(...{json.dumps([question['key'], question['relation'], question['place']])})")
            assert shown == explained(arguments, question), f"{question}: other facts than the program's"
        look(browser, page, arguments.out)
    size = page.stat().st_size / 2**20
    print(f"{page}: {size:.1f} MiB, open after {loaded:.2f} s, an answer takes {answered:.3f} s")
    print(f"{page}: 200 lists as dsom-predict's; of 2,000 places {swapped} hold another answer of an even score")


if __name__ == "__main__":
    main()
