//! Text encoders: the models of candle-transformers behind one common interface.
//!
//! DistilBERT is BERT with other names and without token types, and it is loaded as a BERT: candle-transformers' own
//! DistilBERT uses the tanh approximation of GELU, which is wrong by a thousandth. RoBERTa and XLM-RoBERTa are one
//! model. Its positions begin after the padding's id, and padding within a text gets no position.

use candle_core::{Result, Shape, Tensor};
use candle_nn::{Activation, VarBuilder};
use candle_transformers::models::bert::{self, BertModel};
use candle_transformers::models::modernbert::{self, ModernBert};
use candle_transformers::models::nomic_bert::{self, NomicBertModel};
use candle_transformers::models::xlm_roberta::{self, XLMRobertaModel};
use recipe::TextOutput;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::checkpoint::{Architecture, Config};
use crate::weights::translated;

/// Returns the states `(text, token, hidden)` of the last layer for token ids `(text, token)` and a mask, which is 1
/// where a text has a token and 0 after its end.
pub(crate) type TextModel = Box<dyn Fn(&Tensor, &Tensor) -> Result<Tensor> + Send + Sync>;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum TextArchitecture {
    Bert,
    #[serde(alias = "xlm-roberta")]
    Roberta,
    DistilBert,
    ModernBert,
    #[serde(rename = "nomic_bert")]
    NomicBert,
}

impl Architecture for TextArchitecture {
    type Output = TextOutput;
    const USUAL: &str = "bert";

    fn defaults(self) -> Value {
        match self {
            TextArchitecture::Bert => json!({}),
            TextArchitecture::Roberta => json!({ "pad_token_id": 1 }),
            TextArchitecture::DistilBert => json!({ "num_hidden_layers": 6, "type_vocab_size": 1 }),
            TextArchitecture::ModernBert => json!({
                "num_hidden_layers": 22, "intermediate_size": 1152, "max_position_embeddings": 8192,
                "layer_norm_eps": 1e-5, "pad_token_id": 50283, "local_attention": 128, "global_rope_theta": 160e3,
                "local_rope_theta": 10e3,
            }),
            TextArchitecture::NomicBert => json!({ "max_position_embeddings": 2048, "hidden_act": "swiglu" }),
        }
    }

    fn probe(self) -> &'static str {
        match self {
            TextArchitecture::ModernBert => "embeddings.tok_embeddings.weight",
            _ => "embeddings.word_embeddings.weight",
        }
    }

    fn outputs(self) -> &'static [TextOutput] {
        match self {
            TextArchitecture::Bert | TextArchitecture::Roberta => {
                &[TextOutput::Mean, TextOutput::Cls, TextOutput::Pooler]
            }
            _ => &[TextOutput::Mean, TextOutput::Cls],
        }
    }
}

impl Config<TextArchitecture> {
    pub(crate) fn max_tokens(&self) -> usize {
        let positions = self.size("max_position_embeddings");
        match self.architecture {
            TextArchitecture::Roberta => positions.saturating_sub(self.size("pad_token_id") + 1),
            _ => positions,
        }
    }

    pub(crate) fn model(&self, weights: VarBuilder<'static>) -> Result<TextModel> {
        Ok(match self.architecture {
            TextArchitecture::Bert => self.bert(weights)?,
            TextArchitecture::DistilBert => self.bert(translated(weights, of_distilbert))?,
            TextArchitecture::Roberta => {
                self.require("position_embedding_type", &["absolute".into()])?;
                self.require("is_decoder", &[false.into()])?;
                let model = XLMRobertaModel::new(&self.of::<xlm_roberta::Config>()?, weights)?;
                Box::new(move |ids, mask| model.forward(ids, mask, &ids.zeros_like()?, None, None, None))
            }
            TextArchitecture::ModernBert => self.modernbert(weights)?,
            TextArchitecture::NomicBert => {
                self.require("hidden_act", &["swiglu".into(), "silu".into()])?;
                self.require("rotary_emb_fraction", &[1.into(), 1.0.into()])?;
                self.require_plain_rotations()?;
                let model = NomicBertModel::load(weights, &self.of::<nomic_bert::Config>()?)?;
                Box::new(move |ids, mask| model.forward(ids, None, Some(mask)))
            }
        })
    }

    /// Refuses scaled rotary positions, of all layers or of some.
    fn require_plain_rotations(&self) -> Result<()> {
        let of_all = self.value("rope_parameters");
        let of_some = of_all.as_object().into_iter().flat_map(|parts| parts.values());
        let mut kinds = of_some.chain([of_all]).map(|part| &part["rope_type"]);
        match kinds.find(|kind| !kind.is_null() && *kind != "default") {
            Some(kind) => candle_core::bail!("config.json: rope_type {kind} is not supported"),
            None => Ok(()),
        }
    }

    fn bert(&self, weights: VarBuilder<'static>) -> Result<TextModel> {
        self.require("is_decoder", &[false.into()])?;
        let known = match self.activation()? {
            Activation::Gelu => "gelu",
            Activation::NewGelu | Activation::GeluPytorchTanh => "geluapproximate",
            Activation::Relu => "relu",
            other => candle_core::bail!("config.json: hidden_act {other:?} is not supported"),
        };
        let config: bert::Config = self.clone().with("hidden_act", known).of()?;
        let model = BertModel::load(weights, &config)?;
        Ok(Box::new(move |ids, mask| model.forward(ids, &ids.zeros_like()?, Some(mask))))
    }

    fn modernbert(&self, weights: VarBuilder<'static>) -> Result<TextModel> {
        self.require("hidden_act", &["gelu".into()])?;
        self.require_plain_rotations()?;
        for bias in ["attention_bias", "mlp_bias", "norm_bias"] {
            self.require(bias, &[false.into()])?;
        }
        // Only the first layer has no norm, but the model accepts any layer without one.
        for layer in 1..self.size("num_hidden_layers") {
            weights.get(self.size("hidden_size"), &format!("layers.{layer}.attn_norm.weight"))?;
        }
        let every = self.global_every();
        let types = self.value("layer_types").as_array().into_iter().flatten().enumerate();
        if types.clone().any(|(layer, kind)| (kind == "full_attention") != layer.is_multiple_of(every)) {
            candle_core::bail!("config.json: layer_types are in no regular order");
        }
        let config: modernbert::Config = self.clone().with("global_attn_every_n_layers", every).of()?;
        let model = ModernBert::load(translated(weights, of_modernbert), &config)?;
        Ok(Box::new(move |ids, mask| model.forward(ids, mask)))
    }

    /// The distance between layers that see the whole text. Newer configurations name the kind of each layer instead.
    fn global_every(&self) -> usize {
        let stated = self.size("global_attn_every_n_layers");
        let types = self.value("layer_types").as_array().map(Vec::as_slice).unwrap_or_default();
        let second = types.iter().skip(1).position(|kind| kind == "full_attention").map(|layer| layer + 1);
        match (stated, types.is_empty()) {
            (0, true) => 3,
            (0, false) => second.unwrap_or(types.len()),
            (stated, _) => stated,
        }
    }
}

/// The tensor of DistilBERT that has another name in BERT.
fn of_distilbert(weights: &VarBuilder, shape: &Shape, name: &str) -> Result<Tensor> {
    if name == "embeddings.token_type_embeddings.weight" {
        return Tensor::zeros(shape, weights.dtype(), weights.device());
    }
    let names = [
        ("encoder.layer", "transformer.layer"),
        ("attention.self.query", "attention.q_lin"),
        ("attention.self.key", "attention.k_lin"),
        ("attention.self.value", "attention.v_lin"),
        ("attention.output.dense", "attention.out_lin"),
        ("attention.output.LayerNorm", "sa_layer_norm"),
        ("intermediate.dense", "ffn.lin1"),
        ("output.dense", "ffn.lin2"),
        ("output.LayerNorm", "output_layer_norm"),
    ];
    let own = names.iter().fold(name.to_owned(), |name, (bert, own)| name.replace(bert, own));
    weights.get(shape, &own)
}

/// The tensor of ModernBERT. The model asks for the names of a checkpoint with a head.
fn of_modernbert(weights: &VarBuilder, shape: &Shape, name: &str) -> Result<Tensor> {
    weights.get(shape, name.trim_start_matches("model."))
}
