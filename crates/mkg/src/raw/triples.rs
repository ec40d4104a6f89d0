//! Triple files in their three formats.
//!
//! The format is decided once, from all files of a dataset and the lists of its keys. Three whole numbers on a line may
//! be ids or keys, and only OpenKE's files show the order of their columns, by their first line. Files that can be read
//! in two ways are refused: the recipe's `import.format` decides.

use recipe::TripleFormat;
use stage::{Error, Result};

use super::columns;
use super::keys::Listings;
use super::lines::Lines;
use crate::Triple;

/// The remedy for files that can be read in two ways.
const SET: &str = "set `import.format` to \"named\" (keys), \"ids\" (head relation tail) or \"openke\" (head tail relation), \
    or use --format";

/// The format of all `files`: the requested one, or the only one that fits them.
pub(super) fn decide(asked: TripleFormat, files: &[&Lines], listings: &Listings) -> Result<TripleFormat> {
    files.iter().try_for_each(|file| refuse_header(file, listings))?;
    refuse_numbered_columns(files)?;
    if asked != TripleFormat::Auto {
        return Ok(asked);
    }
    let Some(numbers) = files.iter().find(|file| is_of_numbers(file)) else { return Ok(TripleFormat::Named) };
    let counted = files.iter().find(|file| file.count_line().is_some());
    let uncounted = files.iter().find(|file| file.count_line().is_none() && file.first().is_some());
    if let (Some(counted), Some(uncounted)) = (counted, uncounted) {
        let other = counted.path().display();
        let message = format!("no count line, as {other} has one: the files are in different formats");
        return Err(uncounted.error(1, message).hint(SET));
    }
    require_maps(numbers, listings)?;
    if counted.is_some() {
        return Ok(TripleFormat::Openke);
    }
    if let Some(file) = files.iter().find(|file| is_named_like_openke(file)) {
        let hint = "OpenKE's files have one; `import.format = \"ids\"` reads `head relation tail` without it";
        return Err(file.error(1, "expected a count line, as the file's name is one of OpenKE").hint(hint));
    }
    ids_or_keys(files, listings)
}

/// Refuses a header as first line, unless files list its words as keys.
fn refuse_header(lines: &Lines, Listings { entities, relations }: &Listings) -> Result<()> {
    let Some((number, line)) = lines.numbered().next() else { return Ok(()) };
    let is_listed = columns::keys(line).is_ok_and(|[head, relation, tail]| {
        let keys = [entities.keys.id(head), relations.keys.id(relation), entities.keys.id(tail)];
        !entities.open && !relations.open && keys.iter().all(Option::is_some)
    });
    if is_listed || !columns::is_header(line) {
        return Ok(());
    }
    let hint =
        "triple files have no header, and columns in the order head, relation, tail: take the line out";
    Err(lines.error(number, format!("a header, not a triple: `{line:.60}`")).hint(hint))
}

/// Refuses the header that pandas writes for unnamed columns.
fn refuse_numbered_columns(files: &[&Lines]) -> Result<()> {
    let numbers = |file: &Lines| {
        file.first().is_some_and(|line| columns::three(line).is_ok_and(|of| of == ["0", "1", "2"]))
    };
    match files {
        [first, _, ..] if files.iter().all(|file| numbers(file)) => {
            let error = first.error(1, "all splits begin with `0 1 2`: numbers of columns, not a triple");
            Err(error.hint(format!("write them without a header: in pandas {}", columns::TO_CSV)))
        }
        _ => Ok(()),
    }
}

/// Refuses whole numbers without a list of the keys: they may be ids, or keys that are numbers.
fn require_maps(file: &Lines, Listings { entities, relations }: &Listings) -> Result<()> {
    for (listing, example) in [(entities, "entity2id.txt"), (relations, "relation2id.txt")] {
        if listing.open {
            let what = listing.called;
            let message = format!("holds whole numbers, but no file lists the {what}");
            return Err(Error::missing(message).at(file.path()).hint(format!(
                "if they are ids, set `import.{what}` or add {example}; if the keys are numbers, set \
                 `import.format = \"named\"` (--format named)"
            )));
        }
    }
    Ok(())
}

/// Tells whether at least half of the lines hold three whole numbers.
fn is_of_numbers(file: &Lines) -> bool {
    let lines = file.numbered().skip(usize::from(file.count_line().is_some()));
    let are_numbers = |line| columns::three(line).is_ok_and(|cells| cells.into_iter().all(is_number));
    let (numbers, others): (Vec<_>, Vec<_>) = lines.partition(|(_, line)| are_numbers(line));
    !numbers.is_empty() && numbers.len() >= others.len()
}

pub(super) fn is_number(cell: &str) -> bool {
    !cell.is_empty() && cell.bytes().all(|byte| byte.is_ascii_digit())
}

fn is_named_like_openke(file: &Lines) -> bool {
    file.path().file_stem().is_some_and(|stem| stem.to_string_lossy().ends_with("2id"))
}

/// The way to read lines without a count line: ids or keys.
fn ids_or_keys(files: &[&Lines], Listings { entities, relations }: &Listings) -> Result<TripleFormat> {
    let listings = [entities, relations, entities];
    // The first line with different triples by id and by key, the first line that is not ids, and the first not keys.
    let (mut contested, mut no_ids, mut no_keys, mut any_keys) = (None, None, None, false);
    for file in files {
        for (number, line) in file.numbered() {
            let cells = columns::three(line).unwrap_or_default();
            let ids = [0, 1, 2].map(|i| listings[i].id_in(cells[i]));
            let keys = [0, 1, 2].map(|i| listings[i].keys.id(cells[i]));
            let (are_ids, are_keys) = (ids.iter().all(Option::is_some), keys.iter().all(Option::is_some));
            any_keys |= are_keys;
            let told = |what| file.error(number, format!("`{line:.60}` {what}"));
            if !are_ids {
                no_ids.get_or_insert_with(|| told("are no ids of the maps"));
            }
            if !are_keys {
                no_keys.get_or_insert_with(|| told("are no keys of the maps"));
            }
            if are_ids && are_keys && ids != keys {
                contested.get_or_insert_with(|| told("is one triple by id and another by key"));
            }
        }
    }
    match (contested, no_ids, no_keys) {
        (Some(contested), None, _) => Err(contested.hint(SET)),
        (_, Some(_), None) => Ok(TripleFormat::Named),
        (_, Some(no_ids), Some(no_keys)) if any_keys => {
            let message = format!("the triples are neither all ids nor all keys: {no_ids}; {no_keys}");
            Err(Error::data(message).hint(SET))
        }
        // If lines are not ids, the reader reports the first wrong line.
        _ => Ok(TripleFormat::Ids),
    }
}

/// Reads the triples of all lines, in order and with repetitions. Adds keys that no file lists to the listings.
pub(super) fn read_triples(
    lines: &Lines,
    format: TripleFormat,
    listings: &mut Listings,
) -> Result<Vec<Triple>> {
    let triples = match format {
        _ if lines.first().is_none() => Vec::new(),
        TripleFormat::Openke if lines.count_line().is_none() => {
            let hint = "without one the format is `ids` (head relation tail) or `named`";
            return Err(lines.error(1, "expected a count line").hint(hint));
        }
        TripleFormat::Openke => by_id(lines, lines.body()?, ["head", "tail", "relation"], listings)?,
        TripleFormat::Ids => by_id(lines, lines.numbered(), ["head", "relation", "tail"], listings)?,
        TripleFormat::Named | TripleFormat::Auto => by_key(lines, listings)?,
    };
    if triples.is_empty() {
        return Err(Error::data("holds no triples").at(lines.path()));
    }
    Ok(triples)
}

fn by_id<'a>(
    lines: &'a Lines,
    rows: impl Iterator<Item = (u64, &'a str)>,
    names: [&str; 3],
    listings: &Listings,
) -> Result<Vec<Triple>> {
    require_maps(lines, listings)?;
    let [entities, relations] = [&listings.entities, &listings.relations].map(|of| of.keys.all.len());
    let mut triples = Vec::new();
    for (number, line) in rows {
        let cells = columns::three(line).map_err(|error| {
            let error = lines.locate(number, error);
            if number == 1 && lines.count_line().is_some() {
                return error.hint("the first line looks like a count: is the format `openke`?");
            }
            error
        })?;
        let mut triple = Triple::new(0, 0, 0);
        for (name, cell) in names.into_iter().zip(cells) {
            let (place, bound) = match name {
                "head" => (&mut triple.head.0, entities),
                "tail" => (&mut triple.tail.0, entities),
                _ => (&mut triple.relation.0, relations),
            };
            *place = cell
                .parse()
                .map_err(|_| lines.error(number, format!("expected the id of the {name}, found `{cell}`")))?;
            let id = *place as usize;
            if id >= bound {
                let error = lines.error(number, format!("{name} {id} is out of range 0..{bound}"));
                return Err(error.hint(range_hint(name, id, entities, relations)));
            }
        }
        triples.push(triple);
    }
    Ok(triples)
}

fn range_hint(name: &str, id: usize, entities: usize, relations: usize) -> String {
    if name == "relation" && (entities..entities + relations).contains(&id) {
        return format!(
            "do relations count on behind the {entities} entities? their ids begin at 0: subtract {entities}"
        );
    }
    if name != "relation" && id == entities {
        return "do the ids begin at 1? they begin at 0 here".to_owned();
    }
    "is the order of the columns right? `openke` is head tail relation, `ids` head relation tail".to_owned()
}

fn by_key(lines: &Lines, Listings { entities, relations }: &mut Listings) -> Result<Vec<Triple>> {
    let triples = columns::rows(lines)?.map(|(number, line)| {
        let triple = columns::keys(line).and_then(|[head, relation, tail]| {
            let head = entities.id("head", head)?;
            let relation =
                relations.id("relation", relation).map_err(|error| match entities.keys.id(relation) {
                    Some(_) => error.hint("it is an entity: are the columns head, relation, tail?"),
                    None => error,
                })?;
            Ok(Triple::new(head, relation, entities.id("tail", tail)?))
        });
        triple.map_err(|error| lines.locate(number, error))
    });
    triples.collect()
}

#[cfg(test)]
mod tests {
    use super::super::keys::{Listing, tests::of_keys};
    use super::*;
    use crate::fixture::{complaint, written};
    use proptest::prelude::*;

    fn listings(entities: &[&str], relations: &[&str]) -> Listings {
        let listing = |called, keys: &[&str]| {
            let mut listing = Listing::read(called, None).unwrap();
            (listing.keys, listing.open) = (of_keys(keys), keys.is_empty());
            listing
        };
        Listings { entities: listing("entities", entities), relations: listing("relations", relations) }
    }

    fn read_with(text: &str, format: TripleFormat, listings: &mut Listings) -> Result<Vec<Triple>> {
        let lines = written(text, Lines::read)?;
        let format = decide(format, &[&lines], listings)?;
        read_triples(&lines, format, listings)
    }

    fn read(text: &str, format: TripleFormat) -> Result<Vec<Triple>> {
        read_with(text, format, &mut listings(&["a", "b", "New York"], &["r", "s"]))
    }

    #[test]
    fn formats_are_detected_and_read_alike() {
        let expected = [Triple::new(0, 1, 2), Triple::new(1, 0, 0)];
        for text in [
            "2\n0 2 1\n\n1 0 0\n",
            "2\r\n0 2 1\r\n1 0 0\r\n",
            "0\t1\t2\n1\t0\t0\n",
            "0 1 2\n1 0 0",
            "a\ts\tNew York\nb\tr\ta\n",
            "a\ts\tNew York\r\nb\tr\ta\r\n",
            "a\ts\tNew York .\nb\tr\ta\t.\n",
        ] {
            assert_eq!(read(text, TripleFormat::Auto).unwrap(), expected, "{text:?}");
        }
        assert_eq!(read("a s b .\nb r a .\n", TripleFormat::Auto).unwrap()[0], Triple::new(0, 1, 1));
        assert_eq!(read("a s b\n", TripleFormat::Named).unwrap(), [Triple::new(0, 1, 1)]);
    }

    #[test]
    fn a_dot_may_be_a_key() {
        for text in ["... r .\n... r . .\n", "...\tr\t.\n"] {
            let triples = read_with(text, TripleFormat::Auto, &mut listings(&["...", "."], &["r"])).unwrap();
            assert!(triples.iter().all(|triple| *triple == Triple::new(0, 0, 1)), "{text}");
        }
    }

    #[test]
    fn without_a_map_keys_are_numbered_as_they_appear() {
        let mut open = listings(&[], &[]);
        let mut read = |text, format| read_with(text, format, &mut open);
        let triples = read("z\tr\ty\nx\tq\tz\n", TripleFormat::Auto).unwrap();
        assert_eq!(triples, [Triple::new(0, 0, 1), Triple::new(2, 1, 0)]);
        assert_eq!(read("0 0 0\n", TripleFormat::Ids).unwrap_err().kind(), stage::Kind::Missing);
        assert_eq!(read("0 0 0\n", TripleFormat::Named).unwrap(), [Triple::new(3, 2, 3)]);
        assert_eq!(open.entities.keys.all, ["z", "y", "x", "0"]);
    }

    #[test]
    fn wrong_lines_are_refused_with_their_number() {
        use TripleFormat::{Auto, Ids, Openke};
        for (text, format, says) in [
            ("0 1 2\n0 1 3\n", Auto, "line 2: tail 3 is out of range 0..3"),
            ("0 1 2\n0 r 2\n", Auto, "line 2: expected the id of the relation, found `r`"),
            ("0 1 2\n0 1 -2\n", Auto, "line 2: expected the id of the tail, found `-2`"),
            ("1\n0 1 1\n", Ids, "line 1: expected 3 columns, found 1"),
            ("0 1 1\n", Openke, "line 1: expected a count line"),
            ("a t b\n", Auto, "line 1: relation `t` is not among the relations"),
            ("New York r b\n", Auto, "line 1: expected 3 columns, found 4"),
            ("a\t\tb\n", Auto, "line 1: expected 3 columns, found 2"),
            ("", Auto, "holds no triples"),
            ("head relation tail\n0 1 1\n", Auto, "line 1: a header, not a triple: `head relation tail`"),
            ("a,r,b\nb,s,a\n", Auto, "line 1: the fields are separated by commas, not tabs"),
            ("a;r;b\nb;s;a\n", Auto, "line 1: the fields are separated by semicolons, not tabs"),
            ("\"a\",\"r\",\"b\"\n", Auto, "line 1: the fields are separated by commas, not tabs"),
            ("New York,s,the a\nb,s,a\n", Auto, "line 1: the fields are separated by commas, not tabs"),
            ("a,\"r, or so\",b\nb,r,a\n", Auto, "line 1: the fields are separated by commas, not tabs"),
        ] {
            assert_eq!(complaint(read(text, format)), says);
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused_never_a_panic(text in "([ab0-3.r\t \r\n]|New York){0,60}") {
            let _ = read(&text, TripleFormat::Auto);
            let _ = read(&text, TripleFormat::Openke);
        }

        #[test]
        fn triples_survive_every_format(rows in prop::collection::vec((0u32..3, 0u32..2, 0u32..3), 1..30)) {
            let triples: Vec<Triple> = rows.iter().map(|(h, r, t)| Triple::new(*h, *r, *t)).collect();
            let (entity, relation) = (["a", "b", "New York"], ["r", "s"]);
            let (mut openke, mut ids, mut named) = (format!("{}\n", rows.len()), String::new(), String::new());
            for triple in &triples {
                let (h, r, t) = (triple.head.index(), triple.relation.index(), triple.tail.index());
                openke += &format!("{h} {t} {r}\n");
                ids += &format!("{h}\t{r}\t{t}\r\n");
                named += &format!("{}\t{}\t{}\n", entity[h], relation[r], entity[t]);
            }
            for text in [openke, ids, named] {
                prop_assert_eq!(&read(&text, TripleFormat::Auto).unwrap(), &triples);
            }
        }
    }
}
