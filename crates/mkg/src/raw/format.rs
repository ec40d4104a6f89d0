//! The format of a dataset's triples: decided once, from all its files and what lists its keys.
//!
//! Three whole numbers on a line may be ids or keys, and in which order the columns are shows in the first line of
//! OpenKE's files alone. What can be read in two ways is refused: the recipe's `import.format` decides.

use recipe::TripleFormat;
use stage::{Error, Result};

use super::columns;
use super::lines::Lines;
use super::vocabulary::Listing;

/// The format of all `files`: the one that is asked for, or the one that they can be read in.
///
/// # Errors
/// [`stage::Kind::Data`] for files with a header, in several formats, or that can be read in two ways;
/// [`stage::Kind::Missing`] for what may be ids of maps that are not there.
pub(super) fn decide(
    asked: TripleFormat,
    files: &[&Lines],
    entities: &Listing,
    relations: &Listing,
) -> Result<TripleFormat> {
    files.iter().try_for_each(|file| refuse_header(file, entities, relations))?;
    if asked != TripleFormat::Auto {
        return Ok(asked);
    }
    let Some(numbers) = files.iter().find(|file| is_of_numbers(file)) else { return Ok(TripleFormat::Named) };
    let counted = files.iter().find(|file| file.count_line().is_some());
    let uncounted = files.iter().find(|file| file.count_line().is_none());
    if let (Some(counted), Some(uncounted)) = (counted, uncounted) {
        let other = counted.path().display();
        let message = format!("no count line, as {other} has one: the files are in different formats");
        return Err(uncounted.error(1, message).hint(SET));
    }
    if entities.open || relations.open {
        return Err(no_map(numbers, entities.open));
    }
    if counted.is_some() {
        return Ok(TripleFormat::Openke);
    }
    if let Some(file) = files.iter().find(|file| is_named_like_openke(file)) {
        let hint = "OpenKE's files have one; `import.format = \"ids\"` reads `head relation tail` without it";
        return Err(file.error(1, "expected a count line, as the file's name is one of OpenKE").hint(hint));
    }
    Readings::of(files, entities, relations).decide()
}

/// Refuses a first line that names the columns, unless files list its words as keys.
fn refuse_header(lines: &Lines, entities: &Listing, relations: &Listing) -> Result<()> {
    let Some((number, line)) = lines.numbered().next() else { return Ok(()) };
    let listed = |[head, relation, tail]: [&str; 3]| {
        let keys = [entities.keys.id(head), relations.keys.id(relation), entities.keys.id(tail)];
        !entities.open && !relations.open && keys.iter().all(Option::is_some)
    };
    if !columns::is_header(line) || columns::keys(line).is_ok_and(listed) {
        return Ok(());
    }
    let hint =
        "triple files have no header, and columns in the order head, relation, tail: take the line out";
    Err(lines.error(number, format!("a header, not a triple: `{line:.60}`")).hint(hint))
}

/// The remedy where files can be read in two ways.
const SET: &str = "set `import.format` to \"named\" (keys), \"ids\" (head relation tail) or \"openke\" (head tail relation), \
    or use --format";

/// The error of ids without a map of them, or keys that are numbers.
pub(super) fn no_map(file: &Lines, entities: bool) -> Error {
    let (what, example) =
        if entities { ("entities", "entity2id.txt") } else { ("relations", "relation2id.txt") };
    let error = Error::missing(format!("holds whole numbers, but no file lists the {what}")).at(file.path());
    error.hint(format!(
        "if they are ids, set `import.{what}` or add {example}; if the keys are numbers, set `import.format = \"named\"` \
         (--format named)"
    ))
}

/// Returns whether at least half of the lines hold three whole numbers.
fn is_of_numbers(file: &Lines) -> bool {
    let lines = file.numbered().skip(usize::from(file.count_line().is_some()));
    let (mut all, mut numbers) = (0, 0);
    for (_, line) in lines {
        all += 1;
        numbers += usize::from(cells(line).is_some_and(|cells| cells.into_iter().all(is_number)));
    }
    all > 0 && 2 * numbers >= all
}

fn cells(line: &str) -> Option<[&str; 3]> {
    columns::three(line).ok()
}

/// Returns whether a cell is digits alone.
pub(super) fn is_number(cell: &str) -> bool {
    !cell.is_empty() && cell.bytes().all(|byte| byte.is_ascii_digit())
}

fn is_named_like_openke(file: &Lines) -> bool {
    file.path().file_stem().is_some_and(|stem| stem.to_string_lossy().ends_with("2id"))
}

/// The ways in which lines without a count line can be read.
#[derive(Default)]
struct Readings {
    lines: usize,
    /// Lines that are ids of the maps.
    by_id: usize,
    /// Lines that are keys of the maps.
    by_key: usize,
    /// The first line that is another triple by key than by id.
    contested: Option<Error>,
    /// The first lines that are no ids, and no keys.
    no_ids: Option<Error>,
    no_keys: Option<Error>,
}

impl Readings {
    fn of(files: &[&Lines], entities: &Listing, relations: &Listing) -> Readings {
        let mut readings = Readings::default();
        for file in files {
            for (number, line) in file.numbered() {
                readings.add(file, number, line, [entities, relations, entities]);
            }
        }
        readings
    }

    fn add(&mut self, file: &Lines, number: u64, line: &str, listings: [&Listing; 3]) {
        self.lines += 1;
        let cells = cells(line).unwrap_or_default();
        let id = |i: usize| cells[i].parse().ok().filter(|id| is_number(cells[i]) && listings[i].has(*id));
        let ids = [0, 1, 2].map(id);
        let keys = [0, 1, 2].map(|i| listings[i].keys.id(cells[i]));
        let (are_ids, are_keys) = (ids.iter().all(Option::is_some), keys.iter().all(Option::is_some));
        self.by_id += usize::from(are_ids);
        self.by_key += usize::from(are_keys);
        let said = |what: &str| file.error(number, format!("`{line:.60}` {what}"));
        if !are_ids {
            self.no_ids.get_or_insert_with(|| said("are no ids of the maps"));
        }
        if !are_keys {
            self.no_keys.get_or_insert_with(|| said("are no keys of the maps"));
        }
        if are_ids && are_keys && ids != keys {
            self.contested.get_or_insert_with(|| said("is one triple by id and another by key"));
        }
    }

    fn decide(self) -> Result<TripleFormat> {
        let (ids, keys) = (self.by_id == self.lines, self.by_key == self.lines);
        match (self.contested, self.no_ids, self.no_keys) {
            (Some(contested), ..) if ids => Err(contested.hint(SET)),
            (_, Some(_), _) if keys => Ok(TripleFormat::Named),
            (_, Some(no_ids), Some(no_keys)) if self.by_key > 0 => {
                let message = format!("the triples are neither all ids nor all keys: {no_ids}; {no_keys}");
                Err(Error::data(message).hint(SET))
            }
            // Where lines are no ids, the reader says what is wrong with the first.
            _ => Ok(TripleFormat::Ids),
        }
    }
}
