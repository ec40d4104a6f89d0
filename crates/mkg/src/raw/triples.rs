//! Triple files in their three formats.

use recipe::TripleFormat;
use stage::{Error, Result};

use super::columns;
use super::format::no_map;
use super::lines::Lines;
use super::names::unlike;
use super::vocabulary::Listing;
use crate::Triple;

/// Reads the triples of all lines, in order and with repetitions. Keys that no file lists are added to `entities` and
/// `relations`.
pub(super) fn read_triples(
    lines: &Lines,
    format: TripleFormat,
    entities: &mut Listing,
    relations: &mut Listing,
) -> Result<Vec<Triple>> {
    let triples = match format {
        TripleFormat::Openke if lines.count_line().is_none() => {
            return Err(lines
                .error(1, "expected a count line")
                .hint("without one the format is `ids` (head relation tail) or `named`"));
        }
        TripleFormat::Openke => {
            let ids = Ids::new(lines, ["head", "tail", "relation"], entities, relations)?;
            let triple = |[head, tail, relation]: [u32; 3]| Triple::new(head, relation, tail);
            let rows = lines.body()?.map(|(number, line)| ids.row(number, line).map(triple));
            rows.collect::<Result<Vec<_>>>()?
        }
        TripleFormat::Ids => {
            let ids = Ids::new(lines, ["head", "relation", "tail"], entities, relations)?;
            let triple = |[head, relation, tail]: [u32; 3]| Triple::new(head, relation, tail);
            let rows = lines.numbered().map(|(number, line)| ids.row(number, line).map(triple));
            rows.collect::<Result<_>>()?
        }
        TripleFormat::Named | TripleFormat::Auto => named(lines, entities, relations)?,
    };
    if triples.is_empty() {
        return Err(Error::data("holds no triples").at(lines.path()));
    }
    Ok(triples)
}

/// Reads rows of ids, whose columns are named and bounded.
struct Ids<'a> {
    lines: &'a Lines,
    columns: [(&'static str, usize); 3],
    entities: usize,
}

impl<'a> Ids<'a> {
    fn new(
        lines: &'a Lines,
        names: [&'static str; 3],
        entities: &Listing,
        relations: &Listing,
    ) -> Result<Ids<'a>> {
        if entities.open || relations.open {
            return Err(no_map(lines, entities.open));
        }
        let bound = |name| if name == "relation" { relations.keys.len() } else { entities.keys.len() };
        Ok(Ids { lines, columns: names.map(|name| (name, bound(name))), entities: entities.keys.len() })
    }

    fn row(&self, number: u64, line: &str) -> Result<[u32; 3]> {
        let cells = columns::three(line).map_err(|error| self.uneven(number, error))?;
        let mut ids = [0; 3];
        for ((id, cell), (name, bound)) in ids.iter_mut().zip(cells).zip(self.columns) {
            *id = cell.parse().map_err(|_| {
                self.lines.error(number, format!("expected the id of the {name}, found `{cell}`"))
            })?;
            if *id as usize >= bound {
                let error = self.lines.error(number, format!("{name} {id} is out of range 0..{bound}"));
                return Err(error.hint(self.range_hint(name, *id as usize, bound)));
            }
        }
        Ok(ids)
    }

    fn uneven(&self, number: u64, error: Error) -> Error {
        let error = self.lines.locate(number, error);
        if number == 1 && self.lines.count_line().is_some() {
            return error.hint("the first line looks like a count: is the format `openke`?");
        }
        error
    }

    fn range_hint(&self, name: &str, id: usize, bound: usize) -> String {
        let entities = self.entities;
        if name == "relation" && (entities..entities + bound).contains(&id) {
            return format!(
                "do relations count on behind the {entities} entities? their ids begin at 0: subtract {entities}"
            );
        }
        if name != "relation" && id == bound {
            return "do the ids begin at 1? they begin at 0 here".to_owned();
        }
        "is the order of the columns right? `openke` is head tail relation, `ids` head relation tail"
            .to_owned()
    }
}

fn named(lines: &Lines, entities: &mut Listing, relations: &mut Listing) -> Result<Vec<Triple>> {
    columns::refuse_separated(lines)?;
    let statements = lines.numbered().find(|(_, line)| !line.starts_with('#'));
    let statements = statements.is_some_and(|(_, line)| columns::is_statement(line));
    let mut triples = Vec::new();
    for (number, line) in lines.numbered().filter(|(_, line)| !(statements && line.starts_with('#'))) {
        let [head, relation, tail] = columns::keys(line).map_err(|error| lines.locate(number, error))?;
        let find = |(what, key): (&str, &str), called: &str, listing: &mut Listing| {
            find(key, listing).map_err(|hint| {
                let hint = format!("{hint}; is `import.{called}` the file that belongs to these triples?");
                lines.error(number, format!("{what} `{key}` is not among the {called}")).hint(hint)
            })
        };
        let head = find(("head", head), "entities", entities)?;
        let relation = find(("relation", relation), "relations", relations)?;
        let tail = find(("tail", tail), "entities", entities)?;
        triples.push(Triple::new(head, relation, tail));
    }
    Ok(triples)
}

/// The id of a key, or what the keys are that there are.
fn find(key: &str, listing: &mut Listing) -> Result<u32, String> {
    listing.id(key).ok_or_else(|| unlike(key, listing.keys.iter()))
}

#[cfg(test)]
mod tests {
    use super::super::format::decide;
    use super::super::keys::tests::of_keys;
    use super::*;
    use crate::fixture::{self, Written};
    use proptest::prelude::*;

    fn listing(keys: &[&str]) -> Listing {
        let mut listing = Listing::default();
        listing.keys = of_keys(keys);
        listing
    }

    fn read_with(
        text: &str,
        format: TripleFormat,
        entities: &mut Listing,
        relations: &mut Listing,
    ) -> Result<Vec<Triple>> {
        let lines = Lines::read(&Written::new(text).path())?;
        let format = decide(format, &[&lines], entities, relations)?;
        read_triples(&lines, format, entities, relations)
    }

    fn read(text: &str, format: TripleFormat) -> Result<Vec<Triple>> {
        read_with(text, format, &mut listing(&["a", "b", "New York"]), &mut listing(&["r", "s"]))
    }

    fn complaint(text: &str, format: TripleFormat) -> String {
        fixture::complaint(read(text, format))
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
        let (mut entities, mut relations) = (listing(&["...", "."]), listing(&["r"]));
        let text = "... r .\n... r . .\n...\tr\t.\n";
        let triples = read_with(text, TripleFormat::Auto, &mut entities, &mut relations).unwrap();
        assert_eq!(triples, [Triple::new(0, 0, 1); 3]);
    }

    #[test]
    fn without_a_map_keys_are_numbered_as_they_appear() {
        let (mut entities, mut relations) = (Listing::open(), Listing::open());
        let mut read = |text, format| read_with(text, format, &mut entities, &mut relations);
        let triples = read("z\tr\ty\nx\tq\tz\n", TripleFormat::Auto).unwrap();
        assert_eq!(triples, [Triple::new(0, 0, 1), Triple::new(2, 1, 0)]);
        assert_eq!(read("0 0 0\n", TripleFormat::Ids).unwrap_err().kind(), stage::Kind::Missing);
        assert_eq!(read("0 0 0\n", TripleFormat::Named).unwrap(), [Triple::new(3, 2, 3)]);
        assert_eq!(entities.keys.keys(), ["z", "y", "x", "0"]);
    }

    #[test]
    fn wrong_lines_are_refused_with_their_number() {
        use TripleFormat::{Auto, Ids, Openke};
        assert_eq!(complaint("0 1 2\n0 1 3\n", Auto), "line 2: tail 3 is out of range 0..3");
        assert_eq!(complaint("0 1 2\n0 r 2\n", Auto), "line 2: expected the id of the relation, found `r`");
        assert_eq!(complaint("0 1 2\n0 1 -2\n", Auto), "line 2: expected the id of the tail, found `-2`");
        assert_eq!(complaint("1\n0 1 1\n", Ids), "line 1: expected 3 columns, found 1");
        assert_eq!(complaint("0 1 1\n", Openke), "line 1: expected a count line");
        assert_eq!(complaint("a t b\n", Auto), "line 1: relation `t` is not among the relations");
        assert_eq!(complaint("New York r b\n", Auto), "line 1: expected 3 columns, found 4");
        assert_eq!(complaint("a\t\tb\n", Auto), "line 1: expected 3 columns, found 2");
        assert_eq!(complaint("", Auto), "holds no triples");
        assert_eq!(
            complaint("head relation tail\n0 1 1\n0 1 1\n", Auto),
            "line 1: a header, not a triple: `head relation tail`"
        );
        assert_eq!(complaint("a,r,b\nb,s,a\n", Auto), "line 1: the fields are separated by commas, not tabs");
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
