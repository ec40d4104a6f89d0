//! One cross-entropy step of a ComplEx model over all entities: our hand-written gradients against candle's
//! automatic differentiation, which computes the same loss of the same batch and takes the same Adagrad step.
//!
//! ```text
//! cargo bench -p dsom-benches --bench training_step -- [ENTITIES [RANK [QUERIES]]]
//! ```
//!
//! The two take turns, and the median of the ratios is what to quote: the machine's own speed cancels.

use candle_core::{D, Device, Tensor, Var};
use dsom_benches::{median, numbers};
use kge::model::normal;
use kge::{CrossEntropy, Embedding, Initial, Matrix, N3, Trainer};
use mkg::{EntityId, Query, QuerySet, RelationId};
use program::print_line;
use rand::SeedableRng;
use std::time::Instant;

const RELATIONS: u32 = 338;
const ROUNDS: usize = 7;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let numbers = numbers();
    let number = |i: usize, default: usize| numbers.get(i).copied().unwrap_or(default);
    let (entities, rank, count) = (number(0, 15_000), number(1, 256), number(2, 1000));
    let queries = questions(entities as u32, count as u32);
    let batch: Vec<u32> = (0..queries.len() as u32).collect();

    let mut generator = rand_chacha::ChaCha8Rng::seed_from_u64(1);
    let entity = normal::<f32>(entities, 2 * rank, 1e-2, &mut generator);
    let relation = normal::<f32>(RELATIONS as usize, 2 * rank, 1e-2, &mut generator);
    let mut theirs = Autograd::new(&entity, &relation, &queries)?;
    let initial = Initial::complex(Embedding::Table(entity), relation);
    let mut ours = Trainer::new(initial, 0.1, N3 { weight: 0.0 });
    let objective = CrossEntropy { queries: &queries };

    let [mut ratios, mut our_seconds, mut their_seconds] = [const { Vec::new() }; 3];
    for round in 0..=ROUNDS {
        let started = Instant::now();
        let (loss, _) = ours.step(&queries, &batch, &objective)?;
        let our_time = started.elapsed().as_secs_f64();
        let started = Instant::now();
        let their_loss = theirs.step()?;
        let their_time = started.elapsed().as_secs_f64();
        assert!((loss.objective - their_loss).abs() < 1e-3 * their_loss, "the two compute the same loss");
        // The first round warms up.
        if round > 0 {
            ratios.push(their_time / our_time);
            our_seconds.push(our_time);
            their_seconds.push(their_time);
        }
    }
    print_line(&format!("{} queries, {entities} entities, rank {rank}, {ROUNDS} rounds", queries.len()));
    print_line(&format!("hand-written gradients    {:8.1} ms", 1e3 * median(our_seconds)));
    print_line(&format!("automatic differentiation {:8.1} ms", 1e3 * median(their_seconds)));
    print_line(&format!("ratio                     {:8.2}", median(ratios)));
    Ok(())
}

fn questions(entities: u32, count: u32) -> QuerySet {
    let pair = |i: u32| {
        let query = Query { head: EntityId(i * 7919 % entities), relation: RelationId(i % RELATIONS) };
        (query, EntityId(i * 104_729 % entities))
    };
    QuerySet::from_pairs((0..count).map(pair).collect())
}

/// The same step, written with candle's tensors.
struct Autograd {
    parameters: [(Var, Tensor); 2],
    heads: Tensor,
    relations: Tensor,
    tails: Tensor,
}

impl Autograd {
    fn new(entity: &Matrix<f32>, relation: &Matrix<f32>, queries: &QuerySet) -> candle_core::Result<Self> {
        let parameter = |m: &Matrix<f32>| {
            let tensor = Tensor::from_slice(m.values(), (m.rows(), m.columns()), &Device::Cpu)?;
            Ok::<_, candle_core::Error>((Var::from_tensor(&tensor)?, tensor.zeros_like()?))
        };
        let column = |get: &dyn Fn(usize) -> u32| {
            Tensor::from_vec((0..queries.len()).map(get).collect::<Vec<u32>>(), queries.len(), &Device::Cpu)
        };
        Ok(Autograd {
            parameters: [parameter(entity)?, parameter(relation)?],
            heads: column(&|i| queries.query(i).head.0)?,
            relations: column(&|i| queries.query(i).relation.0)?,
            tails: column(&|i| queries.tails(i)[0].0)?,
        })
    }

    fn step(&mut self) -> candle_core::Result<f64> {
        let (entity, relation) = (self.parameters[0].0.as_tensor(), self.parameters[1].0.as_tensor());
        let k = entity.dim(1)? / 2;
        let (h, r) = (entity.index_select(&self.heads, 0)?, relation.index_select(&self.relations, 0)?);
        let (h_re, h_im) = (h.narrow(1, 0, k)?, h.narrow(1, k, k)?);
        let (r_re, r_im) = (r.narrow(1, 0, k)?, r.narrow(1, k, k)?);
        let re = ((&h_re * &r_re)? - (&h_im * &r_im)?)?;
        let im = ((&h_re * &r_im)? + (&h_im * &r_re)?)?;
        let scores = Tensor::cat(&[re, im], 1)?.matmul(&entity.t()?)?;
        let log_softmax = candle_nn::ops::log_softmax(&scores, D::Minus1)?;
        let loss = candle_nn::loss::nll(&log_softmax, &self.tails)?;
        let gradients = loss.backward()?;
        for (parameter, squares) in &mut self.parameters {
            let gradient = gradients.get(parameter).expect("every parameter has a gradient");
            *squares = (&*squares + gradient.sqr()?)?;
            let step = ((gradient * 0.1)? / (squares.sqrt()? + 1e-10)?)?;
            parameter.set(&(parameter.as_tensor() - step)?)?;
        }
        Ok(f64::from(loss.to_scalar::<f32>()?))
    }
}
