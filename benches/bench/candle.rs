//! The same encoders by candle-transformers, as its examples use it: what our own layers are measured against.

use candle_core::{DType, Device, IndexOp, Module, Result, Tensor};
use candle_nn::{LayerNorm, VarBuilder};
use candle_transformers::models::{bert, vit};
use std::path::Path;

/// The weights of a checkpoint under `prefix`, where they have one.
fn weights(folder: &Path, prefix: &str) -> Result<VarBuilder<'static>> {
    let bytes = std::fs::read(folder.join("model.safetensors"))?;
    let weights = VarBuilder::from_buffered_safetensors(bytes, DType::F32, &Device::Cpu)?;
    let prefixed = weights.contains_tensor(&format!("{prefix}.embeddings.cls_token"));
    Ok(if prefixed { weights.pp(prefix) } else { weights })
}

/// The class token of a ViT-B/16.
pub(crate) struct Images {
    embeddings: vit::Embeddings,
    encoder: vit::Encoder,
    norm: LayerNorm,
}

impl Images {
    pub(crate) fn load(folder: &Path) -> Result<Images> {
        let (weights, config) = (weights(folder, "vit")?, vit::Config::vit_base_patch16_224());
        Ok(Images {
            embeddings: vit::Embeddings::new(&config, false, weights.pp("embeddings"))?,
            encoder: vit::Encoder::new(&config, weights.pp("encoder"))?,
            norm: candle_nn::layer_norm(config.hidden_size, config.layer_norm_eps, weights.pp("layernorm"))?,
        })
    }

    pub(crate) fn encode(&self, images: &[Vec<f32>]) -> Result<Vec<f32>> {
        let pixels = Tensor::from_vec(images.concat(), (images.len(), 3, 224, 224), &Device::Cpu)?;
        let states = self.encoder.forward(&self.embeddings.forward(&pixels, None, false)?)?;
        self.norm.forward(&states.i((.., 0))?.contiguous()?)?.flatten_all()?.to_vec1()
    }
}

/// The mean over the tokens of a BERT.
pub(crate) struct Texts(bert::BertModel);

impl Texts {
    pub(crate) fn load(folder: &Path) -> Result<Texts> {
        let config = std::fs::read(folder.join("config.json"))?;
        let config = serde_json::from_slice(&config).map_err(candle_core::Error::wrap)?;
        Ok(Texts(bert::BertModel::load(weights(folder, "bert")?, &config)?))
    }

    /// Shorter texts are padded to the longest.
    pub(crate) fn encode(&self, texts: &[Vec<u32>]) -> Result<Vec<f32>> {
        let longest = texts.iter().map(Vec::len).max().unwrap_or(0);
        let padded =
            |text: &Vec<u32>| (0..longest).map(|i| text.get(i).copied().unwrap_or(0)).collect::<Vec<_>>();
        let inside = |text: &Vec<u32>| (0..longest).map(|i| f32::from(i < text.len())).collect::<Vec<_>>();
        let tensor =
            |rows: Vec<Vec<f32>>| Tensor::from_vec(rows.concat(), (texts.len(), longest), &Device::Cpu);
        let ids = texts.iter().map(padded).collect::<Vec<_>>().concat();
        let ids = Tensor::from_vec(ids, (texts.len(), longest), &Device::Cpu)?;
        let mask = tensor(texts.iter().map(inside).collect())?;
        let states = self.0.forward(&ids, &ids.zeros_like()?, Some(&mask))?;
        let sums = mask.unsqueeze(1)?.matmul(&states)?.squeeze(1)?;
        sums.broadcast_div(&mask.sum_keepdim(1)?)?.flatten_all()?.to_vec1()
    }
}
