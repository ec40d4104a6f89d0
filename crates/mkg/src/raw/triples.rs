//! Triple files in their three formats.

use recipe::TripleFormat;
use stage::{Error, Result};
use std::path::Path;

use super::lines::Lines;
use super::vocabulary::Listing;
use crate::Triple;

/// Reads the triples of all lines, in order and with repetitions, and says in which format they were. Keys that no file lists are added to `entities`
/// and `relations`.
pub(super) fn read_triples(
    path: &Path,
    format: TripleFormat,
    entities: &mut Listing,
    relations: &mut Listing,
) -> Result<(TripleFormat, Vec<Triple>)> {
    let lines = Lines::read(path)?;
    let format = if format == TripleFormat::Auto { detect(&lines) } else { format };
    let triples: Result<Vec<Triple>> = match format {
        TripleFormat::Openke if lines.count_line().is_none() => {
            return Err(lines
                .error(1, "expected a count line")
                .hint("without one the format is `ids` (head relation tail) or `named`"));
        }
        TripleFormat::Openke => {
            let ids = Ids::new(path, ["head", "tail", "relation"], entities, relations)?;
            let rows = lines.body()?.map(|(number, line)| ids.row(&lines, number, line));
            rows.map(|row| row.map(|[head, tail, relation]| Triple::new(head, relation, tail))).collect()
        }
        TripleFormat::Ids => {
            let ids = Ids::new(path, ["head", "relation", "tail"], entities, relations)?;
            let rows = lines.numbered().map(|(number, line)| ids.row(&lines, number, line));
            rows.map(|row| row.map(|[head, relation, tail]| Triple::new(head, relation, tail))).collect()
        }
        TripleFormat::Named | TripleFormat::Auto => {
            lines.numbered().map(|(number, line)| named(&lines, number, line, entities, relations)).collect()
        }
    };
    let triples = triples?;
    if triples.is_empty() {
        return Err(Error::data("holds no triples").at(path));
    }
    Ok((format, triples))
}

/// A count line means OpenKE's format, three integers ids, anything else keys.
fn detect(lines: &Lines) -> TripleFormat {
    let first = lines.first().unwrap_or_default();
    let columns: Vec<&str> = first.split_whitespace().collect();
    let integers = columns.iter().all(|column| column.parse::<u32>().is_ok());
    match columns.len() {
        1 if integers => TripleFormat::Openke,
        3 if integers => TripleFormat::Ids,
        _ => TripleFormat::Named,
    }
}

/// Reads rows of ids, whose columns are named and bounded.
struct Ids {
    columns: [(&'static str, usize); 3],
}

impl Ids {
    fn new(path: &Path, names: [&'static str; 3], entities: &Listing, relations: &Listing) -> Result<Ids> {
        for (listing, what, example) in
            [(entities, "entities", "entity2id.txt"), (relations, "relations", "relation2id.txt")]
        {
            if listing.open {
                let message = format!("holds ids, but no id map of the {what} was found");
                return Err(Error::missing(message)
                    .at(path)
                    .hint(format!("set `import.{what}`, or add {example}")));
            }
        }
        let bound = |name| if name == "relation" { relations.keys.len() } else { entities.keys.len() };
        Ok(Ids { columns: names.map(|name| (name, bound(name))) })
    }

    fn row(&self, lines: &Lines, number: u64, line: &str) -> Result<[u32; 3]> {
        let columns = three(line.split_whitespace()).map_err(|found| {
            let error = lines.error(number, format!("expected 3 columns, found {found}"));
            if number == 1 && lines.count_line().is_some() {
                return error.hint("the first line looks like a count: is the format `openke`?");
            }
            error
        })?;
        let mut ids = [0; 3];
        for ((id, text), (name, bound)) in ids.iter_mut().zip(columns).zip(self.columns) {
            *id = text
                .parse()
                .map_err(|_| lines.error(number, format!("expected the id of the {name}, found `{text}`")))?;
            if *id as usize >= bound {
                return Err(lines.error(number, format!("{name} {id} is out of range 0..{bound}")).hint(
                    "is the order of the columns right? `openke` is head tail relation, `ids` head relation tail",
                ));
            }
        }
        Ok(ids)
    }
}

fn named(
    lines: &Lines,
    number: u64,
    line: &str,
    entities: &mut Listing,
    relations: &mut Listing,
) -> Result<Triple> {
    let [head, relation, tail] = keys(line).map_err(|found| {
        lines
            .error(number, format!("expected 3 columns, found {found}"))
            .hint("keys that hold spaces need tabs between them")
    })?;
    let mut entity =
        |what: &str, key: &str| entities.id(key).ok_or_else(|| unknown(lines, number, what, key, "entities"));
    let (head, tail) = (entity("head", head)?, entity("tail", tail)?);
    let relation =
        relations.id(relation).ok_or_else(|| unknown(lines, number, "relation", relation, "relations"))?;
    Ok(Triple::new(head, relation, tail))
}

fn unknown(lines: &Lines, number: u64, what: &str, key: &str, listing: &str) -> Error {
    let error = lines.error(number, format!("{what} `{key}` is not among the {listing}"));
    error.hint(format!("is `import.{listing}` the file that belongs to these triples?"))
}

/// The three keys of a line, without the ` .` that ends it in some datasets; else the number of columns.
fn keys(line: &str) -> Result<[&str; 3], usize> {
    let line = line.trim_end();
    if line.contains('\t') {
        let [head, relation, tail] = three_before_dot(line.split('\t').map(str::trim))?;
        return Ok([head, relation, tail.strip_suffix(" .").unwrap_or(tail)]);
    }
    three_before_dot(line.split_whitespace())
}

fn three_before_dot<'a>(columns: impl Iterator<Item = &'a str> + Clone) -> Result<[&'a str; 3], usize> {
    match columns.clone().nth(3) {
        Some(".") if columns.clone().count() == 4 => three(columns.take(3)),
        _ => three(columns),
    }
}

fn three<'a>(columns: impl Iterator<Item = &'a str> + Clone) -> Result<[&'a str; 3], usize> {
    let mut three = [""; 3];
    let filled = columns.clone().filter(|column| !column.is_empty()).count();
    let all = columns.clone().count();
    three.iter_mut().zip(columns).for_each(|(cell, column)| *cell = column);
    if all == 3 && filled == 3 { Ok(three) } else { Err(if all == 3 { filled } else { all }) }
}

#[cfg(test)]
mod tests {
    use super::super::lines::tests::Written;
    use super::*;
    use proptest::prelude::*;

    fn listing(keys: &[&str]) -> Listing {
        let mut listing = Listing::open();
        keys.iter().for_each(|key| assert!(listing.id(key).is_some()));
        listing.open = false;
        listing
    }

    fn read(text: &str, format: TripleFormat) -> Result<Vec<Triple>> {
        let (mut entities, mut relations) = (listing(&["a", "b", "New York"]), listing(&["r", "s"]));
        let read = read_triples(&Written::new(text).path(), format, &mut entities, &mut relations);
        read.map(|(_, triples)| triples)
    }

    fn complaint(text: &str, format: TripleFormat) -> String {
        let error = read(text, format).unwrap_err();
        assert_eq!(error.kind(), stage::Kind::Data);
        error.to_string().split_once("file.txt: ").unwrap().1.to_owned()
    }

    #[test]
    fn formats_are_detected_and_read_alike() {
        let expected = [Triple::new(0, 1, 2), Triple::new(1, 0, 0)];
        for text in [
            "2\n0 2 1\n1 0 0\n",
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
        let (mut entities, mut relations) = (listing(&["...", "."]), listing(&["r"]));
        let file = Written::new("... r .\n... r . .\n...\tr\t.\n");
        let (_, triples) =
            read_triples(&file.path(), TripleFormat::Auto, &mut entities, &mut relations).unwrap();
        assert_eq!(triples, [Triple::new(0, 0, 1); 3]);
    }

    #[test]
    fn integers_can_be_keys_if_the_recipe_says_so() {
        let (mut entities, mut relations) = (listing(&["7", "05"]), listing(&["3"]));
        let file = Written::new("7 3 05\n");
        let (_, triples) =
            read_triples(&file.path(), TripleFormat::Named, &mut entities, &mut relations).unwrap();
        assert_eq!(triples, [Triple::new(0, 0, 1)]);
    }

    #[test]
    fn without_a_map_keys_are_numbered_as_they_appear() {
        let (mut entities, mut relations) = (Listing::open(), Listing::open());
        let file = Written::new("z\tr\ty\nx\tq\tz\n");
        let (_, triples) =
            read_triples(&file.path(), TripleFormat::Auto, &mut entities, &mut relations).unwrap();
        assert_eq!(triples, [Triple::new(0, 0, 1), Triple::new(2, 1, 0)]);
        assert_eq!(entities.keys.keys(), ["z", "y", "x"]);
        let ids =
            read_triples(&Written::new("0 0 0\n").path(), TripleFormat::Auto, &mut entities, &mut relations);
        assert_eq!(ids.unwrap_err().kind(), stage::Kind::Missing);
    }

    #[test]
    fn wrong_lines_are_refused_with_their_number() {
        use TripleFormat::{Auto, Ids, Openke};
        assert_eq!(complaint("0 1 2\n0 1\n", Auto), "line 2: expected 3 columns, found 2");
        assert_eq!(complaint("0 1 2\n\n0 1 2\n", Auto), "line 2: expected 3 columns, found 0");
        assert_eq!(complaint("0 1 2\n0 1 3\n", Auto), "line 2: tail 3 is out of range 0..3");
        assert_eq!(complaint("1\n0 1 2\n", Auto), "line 2: relation 2 is out of range 0..2");
        assert_eq!(complaint("0 1 2\n0 r 2\n", Auto), "line 2: expected the id of the relation, found `r`");
        assert_eq!(complaint("0 1 2\n0 1 -2\n", Auto), "line 2: expected the id of the tail, found `-2`");
        assert_eq!(complaint("2\n0 1 1\n", Auto), "line 1: the count line says 2, but 1 lines follow");
        assert_eq!(complaint("1\n0 1 1\n", Ids), "line 1: expected 3 columns, found 1");
        assert_eq!(complaint("0 1 1\n", Openke), "line 1: expected a count line");
        assert_eq!(complaint("a r b\na r c\n", Auto), "line 2: tail `c` is not among the entities");
        assert_eq!(complaint("a t b\n", Auto), "line 1: relation `t` is not among the relations");
        assert_eq!(complaint("New York r b\n", Auto), "line 1: expected 3 columns, found 4");
        assert_eq!(complaint("a\t\tb\n", Auto), "line 1: expected 3 columns, found 2");
        assert_eq!(complaint("", Auto), "holds no triples");
        assert_eq!(complaint("0\n", Auto), "holds no triples");
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
            let lines = |line: &dyn Fn(&(u32, u32, u32)) -> String| rows.iter().map(line).collect::<String>();
            let openke = format!("{}\n{}", rows.len(), lines(&|(h, r, t)| format!("{h} {t} {r}\n")));
            let ids = lines(&|(h, r, t)| format!("{h}\t{r}\t{t}\r\n"));
            let named = lines(&|(h, r, t)| {
                format!("{}\t{}\t{}\n", entity[*h as usize], relation[*r as usize], entity[*t as usize])
            });
            for text in [openke, ids, named] {
                prop_assert_eq!(&read(&text, TripleFormat::Auto).unwrap(), &triples);
            }
        }
    }
}
