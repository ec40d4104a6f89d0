//! Answers from a model of a run, by name: single or many questions, with explanations; scores of triples; export.
//!
//! The known answers are those of train and valid; this program never opens the test split.

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

/// The number of unknown entities or relations that are named one by one.
const NAMED: usize = 5;

/// A model to ask, and the data that it was trained on.
pub struct Session<'a> {
    data: &'a Data,
    task: Task,
    run: Run,
    models: Models,
    /// True for each entity that has a training triple.
    entities: Vec<bool>,
    /// True for each relation that has a training triple; `loops`, for each that has a fact from an entity to itself.
    relations: Vec<bool>,
    loops: Vec<bool>,
}

/// The task of this program. It writes nothing: it only checks inputs against the manifests of their stages.
pub fn task(run: &Run) -> Task {
    Task::new(run, "dsom-predict", run.root().to_owned(), &(), 0)
}

impl<'a> Session<'a> {
    /// Opens the model called `model`, and with `why` the finished teachers behind it.
    ///
    /// # Errors
    /// If the model is missing, unfinished or damaged, or was trained on another graph.
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

    /// The model of the session.
    ///
    /// # Errors
    /// If it combines several models and so has no embeddings of its own.
    pub fn model(&self) -> Result<&Model<f32>> {
        match self.models.models(0).as_slice() {
            [model] => Ok(model),
            several => {
                let message = format!("`{}` is made of {} models", self.models.names()[0], several.len());
                Err(Error::usage(message).hint("name a student or one teacher with --model"))
            }
        }
    }

    /// Warns of entities and relations without a training triple, among those asked about and among the answers.
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

    /// Returns whether the answer to a question is in any training triple.
    fn is_trained(&self, question: Question, triple: Triple) -> bool {
        match question.asked() {
            _ if question.is_whole() => true,
            "relation" => self.relations[triple.relation.index()],
            _ => self.entities[question.sides(triple)[1].index()],
        }
    }

    /// The labels of the entities and relations that are asked about but not in train, without repetition.
    fn untrained(&self, questions: &[Question]) -> Vec<&str> {
        let mut labels = Vec::new();
        for Question { head, relation, tail } in questions {
            // An entity that the graph does not have is not listed here.
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
