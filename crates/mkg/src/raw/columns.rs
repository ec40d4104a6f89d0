//! The columns of a line of keys, and guesses about a line with other columns.

use stage::{Error, Result};

use super::lines::{Lines, trimmed};

/// The call of pandas that writes files as they are read here.
pub(super) const TO_CSV: &str = "to_csv(path, sep=\"\\t\", header=False, index=False)";

/// Separators of files that are not triple files of ours, with their names.
const SEPARATORS: [(char, &str); 3] = [(',', "commas"), (';', "semicolons"), ('|', "bars")];

/// Characters before the first key that do not belong to the key. A tab there is a column.
const BLANK: [char; 2] = [' ', '\u{feff}'];

/// Words for head, relation and tail in headers.
const ROLES: [&str; 3] = [
    "head subject subj source src entity1 entity_1 e1 h s from start node1",
    "relation predicate pred property edge rel link type label r p",
    "tail object obj target tgt dst entity2 entity_2 e2 t o to end node2",
];

fn uneven(line: &str, found: usize) -> Error {
    let error = Error::data(format!("expected 3 columns, found {found}"));
    match hint(line) {
        Some(hint) => error.hint(hint),
        None => error,
    }
}

/// The lines of a file of keys, without comments of N-Triples, and without the final dots if every line has one.
///
/// # Errors
/// [`stage::Kind::Data`] for CSV, and for a line with blanks between its keys if other lines have tabs or are
/// statements of N-Triples: such a line is a comment or has lost its tabs.
pub(super) fn rows(lines: &Lines) -> Result<impl Iterator<Item = (u64, &str)>> {
    refuse_separated(lines)?;
    let tabs = lines.numbered().any(|(_, line)| line.contains('\t'));
    let statements = lines.numbered().any(|(_, line)| is_statement(line));
    // Three keys between tabs are a triple, even if the first key begins with `#`.
    let is_comment = |line: &str| line.starts_with('#') && !(line.contains('\t') && keys(line).is_ok());
    let rows = move || lines.numbered().filter(move |(_, line)| !(statements && is_comment(line)));
    let dotted = rows().all(|(_, line)| [" .", "\t."].iter().any(|end| line.trim_end().ends_with(end)));
    // A line without three keys gets a better message elsewhere.
    let mut odd =
        rows().filter(|(_, line)| !line.contains('\t') && !is_statement(line) && keys(line).is_ok());
    let lacks = if tabs {
        "no tabs between keys, as other lines have them"
    } else {
        "no statement of N-Triples, as other lines are"
    };
    match odd.next().filter(|_| tabs || statements) {
        Some((number, line)) => Err(lines.error(number, format!("{lacks}: `{line:.60}`"))),
        None => Ok(rows().map(move |(number, line)| match line.trim_end().strip_suffix(" .") {
            Some(rest) if dotted && line.contains('\t') => (number, rest),
            _ => (number, line),
        })),
    }
}

/// The three keys of a line, without a dot after them.
pub(super) fn keys(line: &str) -> Result<[&str; 3]> {
    let line = line.trim_start_matches(BLANK).trim_end();
    if is_directive(line) {
        return Err(Error::data("a directive of Turtle, not a triple").hint("write the graph as N-Triples"));
    }
    if let Some(keys) = statement(line) {
        return keys;
    }
    let tabs = line.contains('\t');
    let mut cells: Vec<&str> =
        if tabs { line.split('\t').map(trimmed).collect() } else { line.split_whitespace().collect() };
    if cells.len() == 4 {
        cells.pop_if(|last| *last == ".");
    }
    let filled = cells.iter().filter(|cell| !cell.is_empty()).count();
    match cells[..] {
        [head, relation, tail] if filled == 3 => Ok([head, relation, tail]),
        [_, _, _] => Err(uneven(line, filled)),
        _ => Err(uneven(line, cells.len())),
    }
}

pub(super) fn three(line: &str) -> Result<[&str; 3]> {
    let cells: Vec<&str> = line.split_whitespace().collect();
    cells.as_slice().try_into().map_err(|_| uneven(line, cells.len()))
}

fn is_statement(line: &str) -> bool {
    statement(line.trim_start_matches(BLANK)).is_some()
}

/// Tells whether a line is `@prefix ex: <http://example.org/> .` or a directive in SPARQL's spelling.
fn is_directive(line: &str) -> bool {
    let word = line.split_whitespace().next().unwrap_or_default();
    let sparql = ["prefix", "base"].iter().any(|directive| word.eq_ignore_ascii_case(directive));
    ["@prefix", "@base"].contains(&word) || (sparql && line.contains('<') && !line.contains('\t'))
}

/// The keys of a statement `subject predicate object .`, perhaps with a comment; `None` for any other line.
fn statement(line: &str) -> Option<Result<[&str; 3]>> {
    let (subject, rest) = resource(line)?;
    let (predicate, rest) = resource(rest)?;
    if rest.starts_with('"') {
        let message = format!("`{rest:.40}` is a literal, not an entity");
        return Some(Err(Error::data(message).hint("leave lines with literals out of the triple files")));
    }
    let (object, rest) = resource(rest)?;
    match rest.strip_prefix('.').map_or(rest, str::trim_start) {
        end if end.is_empty() || end.starts_with('#') => Some(Ok([subject, predicate, object])),
        more if more.starts_with([';', ',']) => {
            let message = format!("`{more:.1}` after a triple: Turtle, not N-Triples");
            Some(Err(Error::data(message).hint("write the graph as N-Triples, one triple a line")))
        }
        more if resource(more).is_some() => {
            let error = Error::data("a fourth term: N-Quads, not N-Triples");
            Some(Err(error
                .hint("leave out what is no part of a triple: a graph's name behind it, or an id before it")))
        }
        _ => None,
    }
}

/// An address with its angle brackets, or a blank node, at the front of a text, and the text after it.
fn resource(text: &str) -> Option<(&str, &str)> {
    let end = match text.strip_prefix('<') {
        Some(address) => {
            let end = address.find(|c: char| matches!(c, '<' | '>') || c.is_whitespace())?;
            address[end..].starts_with('>').then_some(end + 2)?
        }
        None => {
            let label = text.split(char::is_whitespace).next().filter(|label| label.starts_with("_:"))?;
            label.trim_end_matches('.').len()
        }
    };
    let (resource, rest) = text.split_at(end);
    Some((resource, rest.trim_start()))
}

pub(super) fn is_header(line: &str) -> bool {
    let separators: &[char] = if line.contains('\t') { &['\t'] } else { &[',', ';', '|', ' '] };
    let cells: Vec<String> = line.split(separators).map(bare).filter(|cell| !cell.is_empty()).collect();
    !line.starts_with(['{', '['])
        && (3..=6).contains(&cells.len())
        && ROLES.iter().all(|role| cells.iter().any(|cell| role.split(' ').any(|word| is_word(cell, word))))
}

/// A cell in lower case, without the quotes, brackets and marks around it.
fn bare(cell: &str) -> String {
    cell.trim_matches(|c: char| !c.is_alphanumeric()).to_lowercase().replace(' ', "_")
}

/// Tells whether a cell is `word` or begins with it and a mark: `relation` or `relation_type`.
fn is_word(cell: &str, word: &str) -> bool {
    let rest = cell.strip_prefix(word);
    rest.is_some_and(|rest| rest.is_empty() || (word.len() > 2 && rest.starts_with(['_', '-', '.'])))
}

/// A guess about a line with wrong columns: a header, CSV, or a count.
pub(super) fn hint(line: &str) -> Option<String> {
    let cells = line.split('\t').count();
    if is_header(line) {
        return Some("is it a header? triple files have none: take it out".to_owned());
    }
    if let Some(hint) = separated(line, 3) {
        return Some(hint);
    }
    if trimmed(line).parse::<u64>().is_ok() {
        return Some("is it a count line? only OpenKE's files of ids have one".to_owned());
    }
    match cells {
        1 => Some("keys that hold spaces need tabs between them".to_owned()),
        4.. => {
            Some("is there an index, a score or a time too many? a triple is head, relation, tail".to_owned())
        }
        _ => None,
    }
}

/// A guess about a line without tabs that should have `columns` columns: JSON or CSV.
pub(super) fn separated(line: &str, columns: usize) -> Option<String> {
    if line.starts_with(['{', '[']) {
        return Some("is it JSON? write columns, with tabs between them".to_owned());
    }
    let fits = |separator| {
        line.split(separator).count() >= columns || line.starts_with('"') && line.contains(separator)
    };
    let separator = SEPARATORS.iter().find(|(separator, _)| fits(*separator) && !line.contains('\t'));
    separator
        .map(|(_, name)| format!("is it CSV, with {name} and perhaps quotes? write tabs: in pandas {TO_CSV}"))
}

/// Refuses a file without tabs if all lines have the same number of fields, three or more, between commas, semicolons
/// or bars: splitting at blanks would give wrong keys.
fn refuse_separated(lines: &Lines) -> Result<()> {
    if lines.numbered().any(|(_, line)| line.contains('\t')) {
        return Ok(());
    }
    let separator = SEPARATORS.iter().find(|(separator, _)| {
        let mut counts = lines.numbered().map(|(_, line)| count_fields(line, *separator));
        let first = counts.next().unwrap_or(0);
        first > 2 && counts.all(|count| count == first)
    });
    let (Some((_, name)), Some((number, line))) = (separator, lines.numbered().next()) else { return Ok(()) };
    let message = format!("the fields are separated by {name}, not tabs");
    Err(lines.error(number, message).hint(separated(line, 3).unwrap_or_default()))
}

/// The number of fields between separators; separators within quotes do not count.
fn count_fields(line: &str, separator: char) -> usize {
    let mut quoted = false;
    let separators = line.chars().filter(|c| {
        quoted ^= *c == '"';
        *c == separator && !quoted
    });
    1 + separators.count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{complaint, written};

    fn read(line: &str) -> Result<[&str; 3], String> {
        keys(line).map_err(|error| format!("{error} | {}", error.hint_text().unwrap_or_default()))
    }

    #[test]
    fn statements_of_n_triples_are_read_however_they_end() {
        for line in
            ["<a> <r> <b> .", "<a> <r> <b>.", "<a>\t<r>\t<b>\t.", "<a> <r> <b>", "<a><r><b>. # so it is"]
        {
            assert_eq!(read(line).unwrap(), ["<a>", "<r>", "<b>"], "{line}");
        }
        assert_eq!(read("_:x <r> _:y.").unwrap(), ["_:x", "<r>", "_:y"]);
        assert_eq!(read("<http://a b>\t<r>\tNew York .").unwrap(), ["<http://a b>", "<r>", "New York ."]);
        assert_eq!(read("<3\tlikes\tcats").unwrap(), ["<3", "likes", "cats"]);
    }

    #[test]
    fn what_is_no_triple_is_said_in_words() {
        for (line, says) in [
            ("<a>\t<r>\t\"a text\"@en .", "is a literal"),
            ("<a> <r> \"1984\"^^<http://x/year> .", "is a literal"),
            ("PREFIX ex: <http://example.org/>", "a directive of Turtle"),
            ("@prefix ex: <http://example.org/> .", "a directive of Turtle"),
            ("<a> <r> <b> ;", "Turtle, not N-Triples"),
            ("<a> <r> <b> <g> .", "N-Quads"),
            ("\"New York\",\"near\",\"b\"", "CSV, with commas"),
            ("a;near;b", "semicolons"),
            ("a\tr\tb\t1.0", "found 4 | is there an index, a score or a time"),
            ("New York near b", "found 4 | keys that hold spaces need tabs"),
            ("\thead\trelation\ttail", "header"),
        ] {
            let said = read(line).unwrap_err();
            assert!(said.contains(says), "{line}: {said}");
        }
    }

    #[test]
    fn headers_are_known_by_their_words() {
        for (line, expected) in [
            ("head\trelation\ttail", true),
            ("Subject,Predicate,Object", true),
            ("\ttail\thead\trelation_type", true),
            ("\"h\" \"r\" \"t\"", true),
            ("head\tis_part_of\tbody", false),
            ("a\tr\tb", false),
            ("source\trelation\trelation", false),
            ("Target\tsells\tSubject", false),
        ] {
            assert_eq!(is_header(line), expected, "{line}");
        }
    }

    #[test]
    fn all_lines_of_a_file_are_of_one_form() {
        for (text, says) in [
            ("# so it\na\tr\tb\n", "line 1: no tabs between keys"),
            ("a\tr\tb\n<<<<<<< our branch\n", "line 2: no tabs between keys"),
            ("<a> <r> <b> .\nx:a <r> <b>.\n", "line 2: no statement of N-Triples"),
            ("<a> <r> <b> .\n<a <r> <b>.\n", "line 2: no statement of N-Triples"),
            ("<a> a <b>.\n<a> <r> <b> .\n", "line 1: no statement of N-Triples"),
        ] {
            let lines = written(text, Lines::read).unwrap();
            assert!(complaint(rows(&lines).map(|_| ())).starts_with(says), "{text}");
        }
        for text in [
            "<a>\t<r>\t<b>\n<a> <r> <c> .\n",
            "# so\n<a> <r> <b> .\n",
            "# r b\nb r a\n",
            " _:ё r b\n",
            "\u{a0}_:ё r b\n",
        ] {
            assert!(rows(&written(text, Lines::read).unwrap()).is_ok(), "{text}");
        }
    }
}
