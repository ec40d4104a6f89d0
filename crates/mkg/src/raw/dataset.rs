//! A complete dataset, read and joined.

use recipe::TripleFormat;
use stage::Result;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;

use super::columns;
use super::images::{ImageFile, ImageReport, elsewhere, read_images};
use super::join::{PLACEHOLDERS, TextKind, TextReport, gather};
use super::keys::{KeyMap, Listing, Listings, entity_name, look, relation_name};
use super::lines::Lines;
use super::plan::Plan;
use super::triples::{decide, read_triples};
use crate::{Entity, EntityId, Relation, Split, Triple, Vocabulary};

/// A published split.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PublishedSplit {
    /// The triples of all lines, in order and with repetitions.
    pub lines: Vec<Triple>,
    /// Each triple once, in the order of first lines.
    pub triples: Vec<Triple>,
}

impl PublishedSplit {
    pub(super) fn new(lines: Vec<Triple>) -> Self {
        let mut seen = HashSet::with_capacity(lines.len());
        let triples = lines.iter().copied().filter(|triple| seen.insert(*triple)).collect();
        PublishedSplit { lines, triples }
    }
}

/// A dataset as published: entities and relations with their texts and images, and the splits.
#[derive(Clone, Debug, Default)]
pub struct Dataset {
    /// The dataset's name.
    pub name: String,
    /// Entities and relations.
    pub vocabulary: Vocabulary,
    /// The splits: train, test, and valid if it is published.
    pub splits: BTreeMap<Split, PublishedSplit>,
    /// True if a file lists the entities; otherwise their ids follow the order of first appearance.
    pub listed: bool,
    /// All oddities of the keys and files, in words.
    pub notes: Vec<String>,
    /// The results of every text source.
    pub texts: Vec<TextReport>,
    /// The content of the image folder, if there is one.
    pub images: Option<ImageReport>,
    /// All images that belong to an entity, sorted.
    pub image_files: Vec<ImageFile>,
}

impl Dataset {
    /// Reads all files of the plan.
    pub fn read(plan: &Plan) -> Result<Dataset> {
        let list = |called, file: &Option<PathBuf>| {
            Listing::read(called, file.as_ref().map(|file| plan.path(file)).as_deref())
        };
        let entities = list("entities", &plan.import.entities)?;
        let mut listings = Listings { entities, relations: list("relations", &plan.import.relations)? };
        let (splits, first_line) = read_splits(plan, &mut listings)?;
        let Listings { mut entities, mut relations } = listings;
        let name = plan.import.name.clone().unwrap_or_default();
        let notes = [
            first_line,
            twins(&entities),
            twins(&relations),
            unread(&entities),
            unread(&relations),
            misplaced(&entities, &relations),
            missing_values(&entities),
            splits.get(&Split::Train).and_then(|train| glued(train, &entities.keys)),
            plan.left_out()?,
        ];
        let notes = notes.into_iter().flatten().collect();
        let mut dataset = Dataset { name, splits, listed: !entities.open, notes, ..Dataset::default() };
        dataset.vocabulary.entities = dataset.entities(plan, &mut entities)?;
        dataset.vocabulary.relations = dataset.relations(plan, &mut relations)?;
        dataset.add_images(plan, &entities)?;
        Ok(dataset)
    }

    /// The distinct triples of a split; empty for an unpublished split.
    pub fn triples(&self, split: Split) -> &[Triple] {
        self.splits.get(&split).map_or(&[], |published| &published.triples)
    }

    fn entities(&mut self, plan: &Plan, listing: &mut Listing) -> Result<Vec<Entity>> {
        let names = self.gather(plan, listing, TextKind::Name)?;
        let descriptions = self.gather(plan, listing, TextKind::Description)?;
        let captions = self.gather(plan, listing, TextKind::Caption)?;
        let texts = names.into_iter().zip(descriptions).zip(captions);
        let entities = listing.keys.all.iter().zip(texts).map(|(key, ((name, description), caption))| {
            let (key, name) = (key.clone(), named(name, key, plan, entity_name));
            Entity { key, name, description, caption, images: Vec::new() }
        });
        Ok(entities.collect())
    }

    fn relations(&mut self, plan: &Plan, listing: &mut Listing) -> Result<Vec<Relation>> {
        let names = self.gather(plan, listing, TextKind::RelationName)?;
        let relations =
            listing.keys.all.iter().zip(names).map(|(key, name)| Relation {
                key: key.clone(),
                name: named(name, key, plan, relation_name),
            });
        Ok(relations.collect())
    }

    fn gather(&mut self, plan: &Plan, listing: &mut Listing, kind: TextKind) -> Result<Vec<Option<String>>> {
        let import = &plan.import;
        let (sources, table, column) = match kind {
            TextKind::Name => (&import.names, &import.entities, "name"),
            TextKind::Description => (&import.descriptions, &import.entities, "description"),
            TextKind::Caption => (&import.captions, &import.entities, "caption"),
            TextKind::RelationName => (&import.relation_names, &import.relations, "name"),
        };
        let column = table.as_deref().zip(listing.columns.remove(column));
        let (texts, reports) = gather(&plan.root, listing, kind, sources, column)?;
        self.texts.extend(reports);
        Ok(texts)
    }

    fn add_images(&mut self, plan: &Plan, entities: &Listing) -> Result<()> {
        let Some(folder) = &plan.import.images else {
            let note = elsewhere(&plan.root);
            self.images = note.map(|note| ImageReport { notes: vec![note], ..ImageReport::default() });
            return Ok(());
        };
        let (images, report) = read_images(&plan.path(folder), &entities.keys, &self.vocabulary.entities)?;
        self.images = Some(report);
        for (entity, files) in self.vocabulary.entities.iter_mut().zip(images) {
            entity.images = files.iter().map(|file| file.path.clone()).collect();
            self.image_files.extend(files);
        }
        self.image_files.sort_by(|a, b| a.path.cmp(&b.path));
        self.image_files.dedup();
        Ok(())
    }
}

fn read_splits(
    plan: &Plan,
    listings: &mut Listings,
) -> Result<(BTreeMap<Split, PublishedSplit>, Option<String>)> {
    let mut files = Vec::new();
    for split in Split::ALL {
        if let Some(file) = plan.split(split) {
            files.push((split, Lines::read(&plan.path(file))?));
        }
    }
    let lines: Vec<&Lines> = files.iter().map(|(_, lines)| lines).collect();
    let format = decide(plan.import.format, &lines, listings)?;
    let mut splits = BTreeMap::new();
    for (split, lines) in &files {
        let triples = read_triples(lines, format, listings)?;
        splits.insert(*split, PublishedSplit::new(triples));
    }
    let note = match format {
        TripleFormat::Named => lonely_first_lines(&files, &splits)?.or(header_within(&files, &splits)?),
        _ => None,
    };
    Ok((splits, note))
}

/// A note about a table whose columns beside the keys are all unread.
fn unread(Listing { called, columns, .. }: &Listing) -> Option<String> {
    let read = ["name", "description", "caption"];
    let is_read = columns.keys().any(|column| read.contains(&column.as_str()));
    let mut others: Vec<&str> = columns.keys().map(String::as_str).collect();
    others.sort_unstable();
    (!is_read && !others.is_empty()).then(|| {
        let (others, read) = (others.join(", "), read.join(", "));
        format!("the table of {called} has the columns {others}, of which none is read: texts are in {read}")
    })
}

/// A note about keys that look the same but differ in bytes.
fn twins(Listing { called, keys, .. }: &Listing) -> Option<String> {
    // Two keys can look the same only if one of them is not ASCII.
    let odd: HashSet<String> = keys.all.iter().filter(|key| !key.is_ascii()).map(|key| look(key)).collect();
    let mut looks: HashMap<String, &str> = HashMap::new();
    let looking = keys.all.iter().map(|key| (look(key), key)).filter(|(look, _)| odd.contains(look));
    let pairs = looking.filter_map(|(look, key)| Some((looks.insert(look, key)?, key)));
    let pairs: Vec<(&str, &String)> = pairs.collect();
    let (count, (one, other)) = (pairs.len(), pairs.first()?);
    let (one, other) = (one.escape_default(), other.escape_default());
    Some(format!(
        "{count} keys of {called} look like another's in other bytes, such as `{one}` and `{other}`: they are taken as different"
    ))
}

/// A note about a split's first line whose keys are on no other line: it may be a header with unknown words. An error
/// if all splits begin with this line.
fn lonely_first_lines(
    files: &[(Split, Lines)],
    splits: &BTreeMap<Split, PublishedSplit>,
) -> Result<Option<String>> {
    let lonely = files.iter().find(|(split, _)| is_lonely(&splits[split].lines[0], splits));
    let Some((split, lines)) = lonely else { return Ok(None) };
    let (number, line) = columns::rows(lines)?.next().unwrap_or_default();
    if splits.values().all(|other| other.lines[0] == splits[split].lines[0]) {
        let message =
            "all splits begin with this line, and nothing of it stands on another: a header, not a triple";
        return Err(lines.error(number, message).hint("triple files have no header: take the line out"));
    }
    Ok(Some(format!(
        "nothing of the first line of {split}, `{line:.60}`, stands on another: is it a header?"
    )))
}

/// Tells whether no other triple has a key of this triple.
fn is_lonely(triple: &Triple, splits: &BTreeMap<Split, PublishedSplit>) -> bool {
    let others = || splits.values().flat_map(|split| &split.lines).filter(|other| *other != triple);
    let met = others().any(|other| {
        let ends = [other.head, other.tail];
        other.relation == triple.relation || ends.contains(&triple.head) || ends.contains(&triple.tail)
    });
    !met && others().next().is_some()
}

/// A note about a header after the first line.
fn header_within(
    files: &[(Split, Lines)],
    splits: &BTreeMap<Split, PublishedSplit>,
) -> Result<Option<String>> {
    for (split, lines) in files {
        let mut rows = columns::rows(lines)?.zip(&splits[split].lines).skip(1);
        let header = rows.find(|((_, line), triple)| columns::is_header(line) && is_lonely(triple, splits));
        if let Some(((number, line), _)) = header {
            let said = "is it the header of one of several files that were put together?";
            return Ok(Some(format!("line {number} of {split} is `{line}`: {said}")));
        }
    }
    Ok(None)
}

fn named(name: Option<String>, key: &str, plan: &Plan, spell: fn(&str) -> String) -> Option<String> {
    name.or_else(|| plan.import.names_from_keys.then(|| spell(key)).filter(|name| !name.is_empty()))
}

/// A note about relations: more than half are also entities, or there are more than half as many as entities.
fn misplaced(entities: &Listing, relations: &Listing) -> Option<String> {
    const FEW: usize = 20;
    let (all, others) = (relations.keys.all.len(), entities.keys.all.len());
    let both = relations.keys.all.iter().filter(|key| entities.keys.id(key).is_some()).count();
    let what = if 2 * both > all {
        format!("{both} of {all} relations are entities, too")
    } else if all > FEW && 2 * all > others {
        format!("{all} relations are many for {others} entities")
    } else {
        return None;
    };
    Some(format!("{what}: are the columns head, relation, tail?"))
}

/// A note about an entity whose key is a word for a missing value.
fn missing_values(entities: &Listing) -> Option<String> {
    let word = PLACEHOLDERS.iter().find(|word| entities.keys.id(word).is_some())?;
    Some(format!("one entity is `{word}`: where that is a missing value, leave the triple out"))
}

/// A note about a mark at the end of every tail and of no head.
fn glued(train: &PublishedSplit, keys: &KeyMap) -> Option<String> {
    let end = |id: EntityId| keys.all[id.index()].chars().next_back();
    let mark = end(train.triples.first()?.tail).filter(|mark| ['.', ';', ','].contains(mark))?;
    let is_glued = |triple: &Triple| end(triple.tail) == Some(mark) && end(triple.head) != Some(mark);
    train.triples.iter().all(is_glued).then(|| {
        format!("all tails end in `{mark}`, and no head does: is it part of the keys? put a blank before it, or take it out")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::folder;

    fn read(files: &[(&str, &str)], import: &str) -> Dataset {
        let (dir, import) = (folder(files), toml::from_str(import).unwrap());
        Dataset::read(&Plan::resolve(dir.path(), &import).unwrap()).unwrap()
    }

    #[test]
    fn our_own_tables() {
        let files = [
            ("entities.tsv", "key\tname\tkind\tdescription\nfr\tFrance\tx\tA country.\nde\t\tx\t\n"),
            ("relations.tsv", "key\tname\nborders\tborders on\n"),
            ("train.tsv", "fr\tborders\tde\nde\tborders\tfr\nfr\tborders\tde\n"),
            ("test.tsv", "de\tborders\tde\n"),
            ("images/fr/1.png", "x"),
        ];
        let dataset = read(&files, "names_from_keys = true");
        let entities = &dataset.vocabulary.entities;
        assert_eq!((entities[0].name.as_deref(), entities[1].name.as_deref()), (Some("France"), Some("de")));
        assert_eq!(entities[0].description.as_deref(), Some("A country."));
        assert_eq!(entities[1].description, None);
        assert_eq!(entities[0].images, ["fr/1.png"]);
        assert_eq!(dataset.vocabulary.relations[0].label(), "borders on");
        let train = &dataset.splits[&Split::Train];
        assert_eq!((train.lines.len(), train.triples.len()), (3, 2));
        assert!(!dataset.splits.contains_key(&Split::Valid));
    }

    #[test]
    fn columns_are_read_in_any_case_or_told() {
        let table = |header: &str| {
            let entities = format!("{header}\na\tA\nb\tB\n");
            let split = ("train.tsv", "a\tr\tb\nb\tr\ta\n");
            read(&[("entities.tsv", &entities), split, ("test.tsv", "a\tr\ta\n")], "")
        };
        let dataset = table("key\tName ");
        assert_eq!((dataset.vocabulary.entities[0].label(), dataset.notes.len()), ("A", 0));
        assert!(table("key\tlabel").notes[0].contains("has the columns label, of which none is read"));
    }

    #[test]
    fn an_earlier_source_wins_and_a_later_one_fills() {
        let files = [
            ("entity2id.txt", "a 0\nb 1\nunused 2\n"),
            ("relation2id.txt", "r 0\n"),
            ("train.txt", "a r b .\n"),
            ("test.txt", "b r a .\n"),
            ("first.txt", "a\tone\n"),
            ("second.txt", "a\ttwo\nb\tthree\nzzz\tfour\n"),
        ];
        let import = "names = [{ file = 'first.txt' }, { file = 'second.txt', join = 'key' }]";
        let dataset = read(&files, import);
        let names: Vec<&str> = dataset.vocabulary.entities.iter().map(Entity::label).collect();
        assert_eq!(names, ["one", "three", "unused"]);
        let second = &dataset.texts[1];
        assert_eq!((second.rows, second.unknown, second.found, second.used), (3, 1, 2, 1));
    }
}
