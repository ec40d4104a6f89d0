//! Texts per second of a BERT checkpoint on this machine:
//!
//! ```text
//! cargo run -p dsom-features --example throughput -- MODEL_DIR TEXTS [BATCH [THREADS [LIMIT]]]
//! ```
//!
//! TEXTS has one text per line, `key<TAB>text` or the text alone.

use candle_core::Device;
use dsom_features::bert::{TextEncoder, tokenizer};
use dsom_features::shard::Shard;
use dsom_features::text::TextWork;
use dsom_features::tokens::Tokens;
use std::path::Path;
use std::time::Instant;

fn main() -> stage::Result<()> {
    dsom_features::parallel::one_thread_per_operation();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |i: usize, default: usize| arguments.get(i).and_then(|n| n.parse().ok()).unwrap_or(default);
    let [model, texts, ..] = arguments.as_slice() else {
        return Err(stage::Error::usage("expected MODEL_DIR TEXTS [BATCH [THREADS [LIMIT]]]"));
    };
    let text = stage::files::read_text(Path::new(texts))?;
    let lines = text.lines().map(|line| line.split_once('\t').map_or(line, |(_, text)| text).to_owned());
    let texts: Vec<String> = lines.take(number(4, 1000)).collect();
    let encoder = TextEncoder::load(Path::new(model), &Device::Cpu)?;
    let started = Instant::now();
    let tokens = Tokens::new(&texts, &tokenizer(Path::new(model))?, 128)?;
    let tokenised = started.elapsed().as_secs_f64();
    let (batch, threads) = (number(2, 32), number(3, 2));
    let modality = "textual".parse()?;
    let scratch = tempfile::tempdir().map_err(|e| stage::Error::io(std::env::temp_dir(), e))?;
    let started = Instant::now();
    let table = TextWork {
        encoder: &encoder,
        tokens: &tokens,
        batch,
        threads,
        modality: &modality,
        shard: Shard::WHOLE,
        journal: scratch.path().join("journal"),
    }
    .run()?;
    let seconds = started.elapsed().as_secs_f64();
    stage::args::print_line(&format!(
        "{} texts, {} tokens, batch {batch}, threads {threads}: tokenised in {tokenised:.2} s, encoded in {seconds:.2} s, \
         {:.0} texts/s",
        table.count_present(),
        tokens.ids.iter().map(Vec::len).sum::<usize>(),
        table.count_present() as f64 / seconds,
    ));
    Ok(())
}
