//! BERT: token, position and segment embeddings, and layers with the norm after the residual.

use candle_core::IndexOp;
use candle_nn::{Activation, VarBuilder};
use cuda::encoder::Taken;
use recipe::{Precision, TextOutput};
use serde::Deserialize;
use stage::files::read_bytes;
use stage::{Error, Result};
use tokenizers::Tokenizer;

use crate::checkpoint::{CONFIG, Checkpoint};
use crate::place::Place;
use crate::text::encoder::TextModel;
use crate::transformer::{self, Embedding, Encoder, Head, LayerNorm, Layers, Linear, Norms, Parts, Tokens};

/// What a checkpoint has for texts, beside its configuration and weights.
pub const TOKENIZER: &str = "tokenizer.json";

const NAME: &str = "bert";

/// A BERT from a checkpoint.
pub(crate) struct Bert {
    config: Config,
    encoder: Encoder,
}

/// The part of a `config.json` that decides the numbers; what older ones lack has the default of that time.
#[derive(Deserialize)]
struct Config {
    vocab_size: usize,
    hidden_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    intermediate_size: usize,
    max_position_embeddings: usize,
    #[serde(default = "two")]
    type_vocab_size: usize,
    #[serde(default)]
    hidden_act: Activation,
    #[serde(default = "transformer::default_epsilon")]
    layer_norm_eps: f64,
    position_embedding_type: Option<String>,
}

fn two() -> usize {
    2
}

impl Config {
    /// Checks what would otherwise only be noticed by a panic or a wrong result.
    fn check(&self) -> Result<(), String> {
        let sizes = [
            ("vocab_size", self.vocab_size),
            ("max_position_embeddings", self.max_position_embeddings),
            ("type_vocab_size", self.type_vocab_size),
        ];
        if let Some((name, _)) = sizes.iter().find(|(_, size)| *size == 0) {
            return Err(format!("{name} is 0"));
        }
        match self.position_embedding_type.as_deref() {
            None | Some("absolute") => self.layers(self.num_hidden_layers).check(),
            Some(other) => Err(format!("position embeddings `{other}`, only `absolute` ones are supported")),
        }
    }

    fn layers(&self, count: usize) -> transformer::Config {
        transformer::Config {
            hidden: self.hidden_size,
            layers: count,
            heads: self.num_attention_heads,
            intermediate: self.intermediate_size,
            activation: self.hidden_act,
            epsilon: self.layer_norm_eps,
            attention_bias: true,
            norms: Norms::After,
        }
    }
}

impl Bert {
    /// The encoder of a checkpoint; [`tokenizer`] is its other half.
    ///
    /// # Errors
    /// [`stage::Kind::Data`] where the checkpoint is damaged, of another architecture, or has not the `output` asked for.
    pub(crate) fn load(
        checkpoint: &Checkpoint,
        output: TextOutput,
        place: &Place,
        precision: Precision,
    ) -> Result<Bert> {
        let config: Config = checkpoint.config(NAME)?;
        config.check().map_err(|message| Error::data(message).at(checkpoint.path(CONFIG)))?;
        let weights = checkpoint.weights(NAME, "embeddings.word_embeddings.weight")?;
        if output == TextOutput::Pooler && !weights.body.contains_tensor("pooler.dense.weight") {
            return Err(checkpoint.headless("pooler"));
        }
        let parts = parts(&config, weights.body, output).map_err(|e| checkpoint.damaged(e))?;
        Ok(Bert { encoder: Encoder::new(parts, place, precision)?, config })
    }
}

fn parts(config: &Config, weights: VarBuilder, output: TextOutput) -> candle_core::Result<Parts> {
    let hidden = config.hidden_size;
    let embeddings = weights.pp("embeddings");
    let table = |rows, name| embeddings.get((rows, hidden), &format!("{name}_embeddings.weight"));
    let segments = table(config.type_vocab_size, "token_type")?;
    // The hidden states of the second-last layer are the last ones of an encoder without the last.
    let spared = usize::from(output == TextOutput::SecondLast);
    let layers = config.layers(config.num_hidden_layers.saturating_sub(spared));
    Ok(Parts {
        embedding: Embedding::Words {
            words: table(config.vocab_size, "word")?,
            // With the embedding of the first segment, in which every text is.
            positions: table(config.max_position_embeddings, "position")?.broadcast_add(&segments.i(0)?)?,
            norm: LayerNorm::load(hidden, config.layer_norm_eps, embeddings.pp("LayerNorm"))?,
        },
        layers: Layers::load(&layers, weights.pp("encoder"))?,
        config: layers,
        norm: None,
        taken: match output {
            TextOutput::Mean | TextOutput::SecondLast => Taken::From(0),
            TextOutput::Cls | TextOutput::Pooler => Taken::First,
        },
        head: match output {
            TextOutput::Pooler => Head::Pooler(Linear::load(hidden, hidden, weights.pp("pooler.dense"))?),
            _ => Head::Nothing,
        },
    })
}

impl TextModel for Bert {
    fn width(&self) -> usize {
        self.config.hidden_size
    }

    fn vocabulary(&self) -> usize {
        self.config.vocab_size
    }

    fn max_tokens(&self) -> usize {
        self.config.max_position_embeddings
    }

    fn bytes_per_token(&self, tokens: usize) -> u64 {
        self.config.layers(1).bytes_per_token(tokens)
    }

    fn encoder(&self) -> Option<&Encoder> {
        Some(&self.encoder)
    }

    fn encode(&self, texts: &[&[u32]]) -> Result<Vec<f32>> {
        let lengths: Vec<usize> = texts.iter().map(|text| text.len()).collect();
        self.encoder.encode(Tokens::Words(texts.concat()), &lengths)
    }
}

/// The tokenizer of a checkpoint.
pub fn tokenizer(checkpoint: &Checkpoint) -> Result<Tokenizer> {
    let path = checkpoint.path(TOKENIZER);
    let bytes = read_bytes(&path)?;
    Tokenizer::from_bytes(bytes).map_err(|e| Error::data("not a tokenizer").at(path).because(e))
}
