//! Answers from a model of a run: by name, one question or many at a time, explained; scores of triples; export.
//!
//! Train and valid are what is known here; the test split is not opened.

mod answer;
pub mod command;
mod export;
mod output;
mod question;
mod why;

pub use output::cell;
pub use why::{FACTS, NEAR};

use dsom_evaluate::models::{Catalogue, ModelName, Models};
use kge::Model;
use mkg::Triple;
use stage::manifest::Manifest;
use stage::task::Task;
use stage::{Error, Result, Run};
use training::Data;

use answer::Reply;
use question::Question;

/// Number of unknown entities or relations that are named one by one.
const NAMED: usize = 5;

/// A model that is asked, and what it was trained on.
pub struct Session<'a> {
    data: &'a Data,
    task: Task,
    run: Run,
    models: Models,
    /// True if train has an entity.
    entities: Vec<bool>,
    /// True if train has a relation, and a fact of it from an entity to itself.
    relations: Vec<bool>,
    loops: Vec<bool>,
}

/// A task of this program. Nothing is written: it is there to check inputs against their stages' manifests.
pub fn task(run: &Run) -> Task {
    Task::new(run, "dsom-predict", run.root().to_owned(), &(), 0)
}

impl<'a> Session<'a> {
    /// Opens the model called `model`, and the finished teachers behind it if they are asked `why`.
    ///
    /// # Errors
    /// If it is not there, not finished, damaged, or was trained on another graph.
    pub fn open(run: &Run, mut task: Task, data: &'a Data, model: &str, why: bool) -> Result<Session<'a>> {
        let catalogue = Catalogue::of(run)?;
        let mut names = catalogue.choose(&[model.to_owned()])?;
        if why {
            names.extend(run.finished("teachers")?.into_iter().map(ModelName::Teacher));
        }
        for name in &names {
            let mut folders = catalogue.parts(name)?;
            if let ModelName::Ensemble(folder) = name {
                folders.push(run.ensemble(folder));
            }
            for folder in folders {
                Manifest::read(&folder)?.require_same_graph(run, &folder)?;
            }
        }
        let models = catalogue.open(&names, &mut task, &data.vocabulary)?;
        task.verify()?;
        let mut entities = vec![false; data.entities()];
        let [mut relations, mut loops] = [(); 2].map(|()| vec![false; data.relations()]);
        for (i, query) in data.queries.queries().iter().enumerate() {
            let relation = query.relation.base(data.relations()).0.index();
            entities[query.head.index()] = true;
            relations[relation] = true;
            loops[relation] |= data.queries.tails(i).binary_search(&query.head).is_ok();
        }
        Ok(Session { data, task, run: run.clone(), models, entities, relations, loops })
    }

    /// The model itself.
    ///
    /// # Errors
    /// If it is a combination of several, which has no embeddings of its own.
    pub fn model(&self) -> Result<&Model<f32>> {
        match self.models.models(0).as_slice() {
            [model] => Ok(model),
            several => {
                let message = format!("`{}` is made of {} models", self.models.names()[0], several.len());
                Err(Error::usage(message).hint("name a student or one teacher with --model"))
            }
        }
    }

    /// Warns of entities and relations that train knows nothing of: those asked about, and those among the answers.
    fn warn(&self, questions: &[Question], replies: &[Reply]) {
        let basis = match &self.models.names()[0] {
            ModelName::Student(_) => "initial values",
            ModelName::Teacher(modality) if modality.is_structural() => "initial values",
            _ => "initial values, or from features alone",
        };
        let asked = self.untrained(questions);
        for label in asked.iter().take(NAMED) {
            tracing::warn!("`{label}` is in no training triple: what is said of it is a guess from {basis}");
        }
        if asked.len() > NAMED {
            tracing::warn!("and so are {} others", asked.len() - NAMED);
        }
        let mut guessed = 0;
        for Reply { question, answers, .. } in replies {
            guessed += answers.iter().filter(|answer| !self.is_trained(*question, answer.triple)).count();
        }
        if guessed > 0 {
            tracing::warn!(
                "{guessed} of the answers are in no training triple: their scores are guesses from {basis}"
            );
        }
    }

    /// Tells whether what answers a question is in any training triple.
    fn is_trained(&self, question: Question, triple: Triple) -> bool {
        match question.asked() {
            _ if question.is_whole() => true,
            "relation" => self.relations[triple.relation.index()],
            _ => self.entities[question.sides(triple)[1].index()],
        }
    }

    /// The labels of what is asked about and not in train, each once.
    fn untrained(&self, questions: &[Question]) -> Vec<&str> {
        let mut labels = Vec::new();
        for Question { head, relation, tail } in questions {
            // An entity that the graph does not have is not meant.
            let entities = [head, tail].into_iter().flatten();
            let entities = entities.filter(|id| self.entities.get(id.index()) == Some(&false));
            let relation = relation.filter(|id| !self.relations[id.index()]);
            labels.extend(entities.map(|id| self.data.vocabulary.entities[id.index()].label()));
            labels.extend(relation.map(|id| self.data.vocabulary.relations[id.index()].label()));
        }
        labels.sort_unstable();
        labels.dedup();
        labels
    }
}
