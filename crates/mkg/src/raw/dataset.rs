//! A whole dataset, read and joined.

use recipe::TripleFormat;
use stage::Result;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;

use super::format::decide;
use super::images::{ImageFile, ImageReport, elsewhere, read_images};
use super::join::{Gathering, TextKind, TextReport};
use super::lines::Lines;
use super::names;
use super::plan::Plan;
use super::triples::read_triples;
use super::vocabulary::Listing;
use crate::{Entity, Relation, Split, Triple, Vocabulary};

/// A published split.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PublishedSplit {
    /// The triples of all lines, in order and with repetitions.
    pub lines: Vec<Triple>,
    /// Each triple once, in the order of its first line.
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
    /// Its name.
    pub name: String,
    /// Entities and relations.
    pub vocabulary: Vocabulary,
    /// The splits: train, test, and valid if it is published.
    pub splits: BTreeMap<Split, PublishedSplit>,
    /// True if a file lists the entities; else their ids are in the order of first appearance.
    pub listed: bool,
    /// Everything odd about the keys, in words.
    pub notes: Vec<String>,
    /// The fate of every text source.
    pub texts: Vec<TextReport>,
    /// The content of the image folder, if there is one.
    pub images: Option<ImageReport>,
    /// All images that belong to an entity, sorted.
    pub image_files: Vec<ImageFile>,
}

impl Dataset {
    /// Reads everything that the plan names.
    pub fn read(plan: &Plan) -> Result<Dataset> {
        let listing = |file: &Option<PathBuf>| match file {
            Some(file) => Listing::read(&plan.path(file)),
            None => Ok(Listing::open()),
        };
        let (mut entities, mut relations) =
            (listing(&plan.import.entities)?, listing(&plan.import.relations)?);
        let mut dataset = Dataset {
            name: plan.import.name.clone().unwrap_or_default(),
            splits: read_splits(plan, &mut entities, &mut relations)?,
            listed: !entities.open,
            ..Dataset::default()
        };
        let twins = [twins("entities", &entities), twins("relations", &relations)];
        dataset.notes.extend(twins.into_iter().flatten());
        dataset.notes.extend(misplaced(&entities, &relations));
        dataset.notes.extend(left_out(plan)?);
        dataset.vocabulary.entities = dataset.entities(plan, &mut entities)?;
        dataset.vocabulary.relations = dataset.relations(plan, &mut relations)?;
        dataset.add_images(plan, &entities)?;
        Ok(dataset)
    }

    /// The triples of a split, each once; none of a split that is not published.
    pub fn triples(&self, split: Split) -> &[Triple] {
        self.splits.get(&split).map_or(&[], |published| &published.triples)
    }

    fn entities(&mut self, plan: &Plan, listing: &mut Listing) -> Result<Vec<Entity>> {
        let names = self.gather(plan, listing, TextKind::Name)?;
        let descriptions = self.gather(plan, listing, TextKind::Description)?;
        let captions = self.gather(plan, listing, TextKind::Caption)?;
        let texts = names.into_iter().zip(descriptions).zip(captions);
        let entity = |(key, ((name, description), caption)): (&String, ((_, _), _))| Entity {
            key: key.clone(),
            name: named(name, key, plan, names::of_entity),
            description,
            caption,
            images: Vec::new(),
        };
        Ok(listing.keys.keys().iter().zip(texts).map(entity).collect())
    }

    fn relations(&mut self, plan: &Plan, listing: &mut Listing) -> Result<Vec<Relation>> {
        let names = self.gather(plan, listing, TextKind::RelationName)?;
        let relation = |(key, name): (&String, _)| Relation {
            key: key.clone(),
            name: named(name, key, plan, names::of_relation),
        };
        Ok(listing.keys.keys().iter().zip(names).map(relation).collect())
    }

    /// The texts of one kind: the sources in order, then the column of the table that lists the keys.
    fn gather(&mut self, plan: &Plan, listing: &mut Listing, kind: TextKind) -> Result<Vec<Option<String>>> {
        let import = &plan.import;
        let (sources, table, column) = match kind {
            TextKind::Name => (&import.names, &import.entities, "name"),
            TextKind::Description => (&import.descriptions, &import.entities, "description"),
            TextKind::Caption => (&import.captions, &import.entities, "caption"),
            TextKind::RelationName => (&import.relation_names, &import.relations, "name"),
        };
        let column = listing.take(column);
        let mut gathering = Gathering::new(&plan.root, &listing.keys, kind);
        sources.iter().try_for_each(|source| gathering.add(source))?;
        if let (Some(column), Some(table)) = (column, table) {
            gathering.add_column(table, column);
        }
        self.texts.append(&mut gathering.reports);
        Ok(gathering.texts)
    }

    fn add_images(&mut self, plan: &Plan, entities: &Listing) -> Result<()> {
        let Some(folder) = &plan.import.images else {
            self.images =
                elsewhere(&plan.root).map(|note| ImageReport { notes: vec![note], ..ImageReport::default() });
            return Ok(());
        };
        let images = read_images(&plan.path(folder), &entities.keys, &self.vocabulary.entities)?;
        self.images = Some(images.report);
        for (entity, files) in self.vocabulary.entities.iter_mut().zip(images.files) {
            entity.images = files.iter().map(|file| file.path.clone()).collect();
            self.image_files.extend(files);
        }
        self.image_files.sort_by(|a, b| a.path.cmp(&b.path));
        self.image_files.dedup();
        Ok(())
    }
}

/// Reads the triples of every split that there is.
fn read_splits(
    plan: &Plan,
    entities: &mut Listing,
    relations: &mut Listing,
) -> Result<BTreeMap<Split, PublishedSplit>> {
    let there = Split::ALL.into_iter().filter_map(|split| Some((split, plan.split(split)?)));
    let files = there.map(|(split, file)| Ok((split, Lines::read(&plan.path(file))?)));
    let files = files.collect::<Result<Vec<_>>>()?;
    let lines: Vec<&Lines> = files.iter().map(|(_, lines)| lines).collect();
    let format = decide(plan.import.format, &lines, entities, relations)?;
    let read = |(split, lines): &(Split, Lines)| {
        Ok((*split, PublishedSplit::new(read_triples(lines, format, entities, relations)?)))
    };
    let splits = files.iter().map(read).collect::<Result<BTreeMap<_, _>>>()?;
    if format == TripleFormat::Named {
        refuse_shared_header(lines[0], &splits)?;
    }
    Ok(splits)
}

/// A sentence about keys that look the same in other bytes.
fn twins(called: &str, listing: &Listing) -> Option<String> {
    let keys = listing.keys.keys();
    // Only where one of two is not ASCII can they look the same.
    let odd: HashSet<String> =
        keys.iter().filter(|key| !key.is_ascii()).map(|key| names::look(key)).collect();
    let mut looks: HashMap<String, &str> = HashMap::new();
    let looking = keys.iter().map(|key| (names::look(key), key)).filter(|(look, _)| odd.contains(look));
    let pairs = looking.filter_map(|(look, key)| Some((looks.insert(look, key)?, key)));
    let pairs: Vec<(&str, &String)> = pairs.collect();
    let (count, (one, other)) = (pairs.len(), pairs.first()?);
    let (one, other) = (one.escape_default(), other.escape_default());
    Some(format!(
        "{count} keys of {called} look like another's in other bytes, such as `{one}` and `{other}`: they are taken as different"
    ))
}

/// Refuses a first line that all splits share, and whose keys stand on no other line: a header in words of its own.
fn refuse_shared_header(train: &Lines, splits: &BTreeMap<Split, PublishedSplit>) -> Result<()> {
    let first = splits[&Split::Train].lines[0];
    let others = || splits.values().flat_map(|split| &split.lines[1..]);
    let met = |other: &Triple| {
        let ends = [other.head, other.tail];
        other.relation == first.relation || ends.contains(&first.head) || ends.contains(&first.tail)
    };
    let shared = splits.values().all(|split| split.lines[0] == first);
    if !shared || others().next().is_none() || others().any(met) {
        return Ok(());
    }
    let message =
        "all splits begin with this line, and nothing of it stands on another: a header, not a triple";
    Err(train.error(1, message).hint("triple files have no header: take the line out"))
}

fn named(name: Option<String>, key: &str, plan: &Plan, spell: fn(&str) -> String) -> Option<String> {
    name.or_else(|| plan.import.names_from_keys.then(|| spell(key)).filter(|name| !name.is_empty()))
}

/// A word about relations of which most are entities, too.
fn misplaced(entities: &Listing, relations: &Listing) -> Option<String> {
    let (all, entities) = (relations.keys.keys(), entities.keys.keys().iter().collect::<HashSet<_>>());
    let both = all.iter().filter(|key| entities.contains(key)).count();
    (2 * both > all.len()).then(|| {
        format!("{both} of {} relations are entities, too: are the columns head, relation, tail?", all.len())
    })
}

/// A word about files that are named like those of a split and are none of the plan's.
fn left_out(plan: &Plan) -> Result<Option<String>> {
    let names = plan.unread_splits()?;
    Ok((!names.is_empty())
        .then(|| format!("not read: {}; to read one, name it in the recipe's [import]", names.join(", "))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::folder;
    use recipe::Import;

    fn read(dir: &tempfile::TempDir, import: &Import) -> Dataset {
        Dataset::read(&Plan::resolve(dir.path(), import).unwrap()).unwrap()
    }

    #[test]
    fn our_own_tables() {
        let dir = folder(&[
            ("entities.tsv", "key\tname\tkind\tdescription\nfr\tFrance\tx\tA country.\nde\t\tx\t\n"),
            ("relations.tsv", "key\tname\nborders\tborders on\n"),
            ("train.tsv", "fr\tborders\tde\nde\tborders\tfr\nfr\tborders\tde\n"),
            ("test.tsv", "de\tborders\tde\n"),
            ("images/fr/1.png", "x"),
        ]);
        let dataset = read(&dir, &Import { names_from_keys: true, ..Import::default() });
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
    fn an_earlier_source_wins_and_a_later_one_fills() {
        let dir = folder(&[
            ("entity2id.txt", "a 0\nb 1\nunused 2\n"),
            ("relation2id.txt", "r 0\n"),
            ("train.txt", "a r b .\n"),
            ("test.txt", "b r a .\n"),
            ("first.txt", "a\tone\n"),
            ("second.txt", "a\ttwo\nb\tthree\nzzz\tfour\n"),
        ]);
        let import =
            toml::from_str("names = [{ file = 'first.txt' }, { file = 'second.txt', join = 'key' }]")
                .unwrap();
        let dataset = read(&dir, &import);
        let names: Vec<&str> = dataset.vocabulary.entities.iter().map(Entity::label).collect();
        assert_eq!(names, ["one", "three", "unused"]);
        let second = &dataset.texts[1];
        assert_eq!((second.rows, second.unknown, second.found, second.used), (3, 1, 2, 1));
    }

    #[test]
    fn without_maps_the_triples_name_everything() {
        let dir = folder(&[("train", "b\tr\ta\n"), ("valid", "a\tr\tc\n"), ("test", "d\ts\ta\n")]);
        let dataset = read(&dir, &Import::default());
        let keys: Vec<&str> = dataset.vocabulary.entities.iter().map(|entity| entity.key.as_str()).collect();
        assert_eq!(keys, ["b", "a", "c", "d"]);
        assert_eq!(dataset.splits[&Split::Test].triples, [Triple::new(3, 1, 1)]);
    }
}
