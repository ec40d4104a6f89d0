//! A page that answers questions: a model, the graph's names and its known facts in one HTML file.
//!
//! The file works from a disk, without a server. Its script (`ask.js`) does what [`dsom_predict`] does by default, with
//! the same tables as f32, or in half precision if requested. Texts of the dataset are JSON and are shown as text.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use dsom_features::decode::{ImageFolder, decode};
use dsom_predict::{FACTS, NEAR, Session, cell};
use half::f16;
use image::codecs::jpeg::JpegEncoder;
use image::{ExtendedColorType, imageops};
use kge::{Matrix, Model};
use maud::{Markup, PreEscaped, html};
use mkg::{Entity, Query, Triple};
use serde_json::{Value, json};
use stage::manifest::Manifest;
use stage::{Error, Result, Run};
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use training::Data;

use crate::format::grouped;
use crate::page::document;

const SCRIPT: &str = include_str!("ask.js");
const STYLE: &str = include_str!("ask.css");

/// The number of characters shown of a description.
const DESCRIPTION: usize = 300;
/// The pixels of a thumbnail's longer side, twice as many as the page shows it with.
const THUMBNAIL: u32 = 128;
/// The JPEG quality of thumbnails.
const QUALITY: u8 = 75;
/// The largest size of a table in bytes: browsers hold texts of half a gigabyte, and base64 adds a third.
const LARGEST: usize = 256 << 20;

#[derive(clap::Args)]
pub(crate) struct Ask {
    /// Write a page that answers questions instead: the model itself, in one file
    #[arg(long, conflicts_with_all = ["experiment", "tensorboard"])]
    pub(crate) ask: bool,
    /// --ask: a student's folder or a teacher's modality
    #[arg(long, value_name = "NAME", default_value = dsom_evaluate::models::STUDENT, requires = "ask")]
    model: String,
    /// --ask: store the model in half precision: half the file, but answers with nearly equal scores may change places
    #[arg(long, requires = "ask")]
    half: bool,
    /// --ask: show the first image of each entity; DIR if the images have moved
    #[arg(long, value_name = "DIR", num_args = 0..=1, requires = "ask")]
    thumbnails: Option<Option<PathBuf>>,
}

impl Ask {
    /// Returns the page about the run in `root`. It is an error if the model is missing, unfinished, of another graph,
    /// made of several models, or too large for browsers.
    pub(crate) fn page(&self, root: &Path) -> Result<String> {
        let run = Run::new(root);
        let mut task = dsom_predict::task(&run);
        let data = Data::open(&run, &mut task)?;
        let session = Session::open(&run, task, &data, &self.model, false)?;
        let model = session.model()?;
        let graph = Manifest::read(&run.graph())?;
        let name = graph.summary["name"].as_str().unwrap_or("a graph");
        let thumbnails = self.thumbnails(&run, &graph, &data.vocabulary.entities)?;
        let held = [
            ("graph", self.words(model, &data, &thumbnails).to_string().replace('<', "\\u003c")),
            ("train", triples(train(&data))),
            ("valid", triples(data.valid.iter().copied())),
            ("entities", self.table(&model.entity)?),
            ("relations", self.table(&model.relation)?),
            ("core", self.table(&model.core)?),
        ];
        let body = html! {
            (frame(name, &self.about(model, &data)))
            // This content is data for the script to read, not a program.
            @for (id, content) in held { script id=(id) type="text/plain" { (PreEscaped(content)) } }
            script { (PreEscaped(SCRIPT)) }
        };
        Ok(document(&format!("Ask {name}"), STYLE, &body))
    }

    fn about(&self, model: &Model<f32>, data: &Data) -> String {
        let facts = train(data).chain(data.valid.iter().copied()).collect::<HashSet<_>>().len();
        let precision = if self.half { ", in half precision" } else { "" };
        format!(
            "Answers of the model {} ({} of rank {}{precision}) for {} entities and {} relations; {} facts are known from train \
             and valid. Everything is in this file: nothing is sent, no network is needed.",
            self.model,
            model.backbone,
            model.rank(),
            grouped(data.entities()),
            grouped(data.relations()),
            grouped(facts),
        )
    }

    /// The numbers of a table in base64.
    fn table(&self, table: &Matrix<f32>) -> Result<String> {
        let values = table.values().iter();
        let bytes: Vec<u8> = if self.half {
            values.flat_map(|value| f16::from_f32(*value).to_le_bytes()).collect()
        } else {
            values.flat_map(|value| value.to_le_bytes()).collect()
        };
        require_room(bytes.len())?;
        Ok(STANDARD.encode(bytes))
    }

    /// The graph's names, and the properties of the model that the script needs.
    fn words(&self, model: &Model<f32>, data: &Data, thumbnails: &[Option<String>]) -> Value {
        let entities = data.vocabulary.entities.iter().zip(thumbnails);
        let entities = entities.map(|(entity, image)| {
            json!([cell(&entity.key), entity.name.as_deref().map(cell), description(entity), image])
        });
        let relations = data.vocabulary.relations.iter();
        json!({
            "backbone": model.backbone.word(),
            "half": self.half,
            "embedding": 2 * model.rank(),
            "facts": FACTS,
            "near": NEAR,
            "entities": entities.collect::<Vec<_>>(),
            "relations": relations.map(|r| json!([cell(&r.key), r.name.as_deref().map(cell)])).collect::<Vec<_>>(),
        })
    }

    /// The address of each entity's thumbnail; none if no image of the entity can be decoded.
    fn thumbnails(&self, run: &Run, graph: &Manifest, entities: &[Entity]) -> Result<Vec<Option<String>>> {
        let Some(moved) = &self.thumbnails else { return Ok(vec![None; entities.len()]) };
        let named = graph.summary["images_root"].as_str().map(|root| run.graph().join(root));
        let Some(folder) = moved.clone().or(named).filter(|folder| folder.is_dir()) else {
            let error = Error::missing("the graph's images are not there").at(run.graph());
            return Err(error.hint("give their folder as --thumbnails DIR, or leave --thumbnails out"));
        };
        let folder = ImageFolder::open(&folder)?;
        entities.iter().map(|entity| thumbnail(&folder, entity)).collect()
    }
}

fn require_room(bytes: usize) -> Result<()> {
    if bytes <= LARGEST {
        return Ok(());
    }
    let (size, most) = (bytes.div_ceil(1 << 20), LARGEST >> 20);
    let error = Error::usage(format!("a table of the model has {size} MiB, a page holds {most} MiB"));
    Err(error.hint("use --half, or a student of a lower rank"))
}

fn thumbnail(folder: &ImageFolder, entity: &Entity) -> Result<Option<String>> {
    for path in &entity.images {
        let Some(image) = folder.read(path)?.ok().and_then(|bytes| decode(&bytes).ok()) else { continue };
        let longer = image.width().max(image.height());
        let [width, height] =
            [image.width(), image.height()].map(|length| (length * THUMBNAIL.min(longer) / longer).max(1));
        let small = imageops::thumbnail(&image, width, height);
        let mut jpeg = Vec::new();
        JpegEncoder::new_with_quality(&mut jpeg, QUALITY)
            .encode(&small, width, height, ExtendedColorType::Rgb8)
            .map_err(|e| Error::data("cannot make a thumbnail").at(path).because(e))?;
        return Ok(Some(format!("data:image/jpeg;base64,{}", STANDARD.encode(jpeg))));
    }
    Ok(None)
}

/// The beginning of an entity's description.
fn description(entity: &Entity) -> Option<String> {
    let text = entity.description.as_deref()?;
    match text.char_indices().nth(DESCRIPTION) {
        Some((end, _)) => Some(cell(&text[..end]) + "…"),
        None => Some(cell(text)),
    }
}

fn train(data: &Data) -> impl Iterator<Item = Triple> {
    let queries = data.queries.queries().iter().enumerate();
    let forward = queries.filter(|(_, query)| query.relation.index() < data.relations());
    forward.flat_map(|(i, &Query { head, relation })| {
        data.queries.tails(i).iter().map(move |&tail| Triple { head, relation, tail })
    })
}

/// Heads, relations and tails as u32 in base64.
fn triples(triples: impl Iterator<Item = Triple>) -> String {
    let ids = triples.flat_map(|Triple { head, relation, tail }| [head.0, relation.0, tail.0]);
    STANDARD.encode(ids.flat_map(u32::to_le_bytes).collect::<Vec<u8>>())
}

/// The page before the script fills it.
fn frame(name: &str, about: &str) -> Markup {
    html! {
        main.ask {
            header { p.kicker { "Ask" } h1 { (name) } p.soft { (about) } }
            noscript { p.notice { "This page answers by a script: allow it for this file." } }
            form #question {
                div.entity {
                    label for="entity" { "Entity" }
                    input #entity type="text" role="combobox" aria-autocomplete="list" aria-expanded="false"
                        aria-controls="found" aria-describedby="hint" autocomplete="off" autocapitalize="none" spellcheck="false";
                    ul #found role="listbox" aria-label="Entities" hidden {}
                    p #hint .soft role="status" { "Type a part of a name or a key." }
                }
                div { label for="relation" { "Relation" } select #relation {} }
                fieldset {
                    legend { "Question" }
                    label { input type="radio" name="place" value="tail" checked; span #tail {} }
                    label { input type="radio" name="place" value="head"; span #head {} }
                }
                label { input #known type="checkbox"; span { "List known answers too, marked" } }
            }
            div #about {}
            section #answers hidden {
                h2 #asked {}
                p #notes .soft {}
                table aria-labelledby="asked" {
                    thead { tr { th.n scope="col" { "Rank" } th scope="col" { "Answer" } th.n scope="col" { "Score" } th.n scope="col" { "Probability" } } }
                    tbody #rows {}
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_browser_holds_is_refused() {
        assert!(require_room(LARGEST).is_ok());
        let error = require_room(LARGEST + 1).unwrap_err();
        assert_eq!(error.to_string(), "a table of the model has 257 MiB, a page holds 256 MiB");
    }

    #[test]
    fn a_long_description_is_cut_between_characters() {
        let described = |text: String| description(&Entity { description: Some(text), ..Entity::default() });
        assert_eq!(described("č".repeat(DESCRIPTION + 1)), Some("č".repeat(DESCRIPTION) + "…"));
        assert_eq!(described("\u{202e}x".to_owned()).as_deref(), Some("\\u202ex"));
    }
}
