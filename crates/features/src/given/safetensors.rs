//! `.safetensors`.

use safetensors::{Dtype, SafeTensors};
use stage::{Error, Result};

use super::tensors::{Number, Tensors};

/// A whole file in memory.
pub(super) struct Safetensors<'a>(SafeTensors<'a>);

impl<'a> Safetensors<'a> {
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self> {
        let file = SafeTensors::deserialize(bytes);
        Ok(Safetensors(file.map_err(|e| Error::data("not a whole safetensors file").because(e))?))
    }
}

impl Tensors for Safetensors<'_> {
    fn list(&self) -> Vec<(String, Vec<usize>)> {
        let mut list: Vec<(String, Vec<usize>)> =
            self.0.iter().map(|(name, tensor)| (name.to_owned(), tensor.shape().to_vec())).collect();
        list.sort();
        list
    }

    fn read(&mut self, name: &str) -> Result<Vec<f32>> {
        let tensor =
            self.0.tensor(name).map_err(|e| Error::data(format!("no tensor `{name}`")).because(e))?;
        let number = match tensor.dtype() {
            Dtype::F16 => Number::F16,
            Dtype::BF16 => Number::Bf16,
            Dtype::F32 => Number::F32,
            Dtype::F64 => Number::F64,
            other => {
                return Err(Error::data(format!("tensor `{name}` holds {other}, not F16, BF16, F32 or F64")));
            }
        };
        Ok(number.read(tensor.data()))
    }
}
