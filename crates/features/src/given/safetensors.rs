//! `.safetensors`.

use safetensors::{Dtype, SafeTensors};
use stage::{Error, Result};

use super::npy::integer;
use super::tensors::{Labels, Number, Order, Tensors};

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
                let error = Error::data(format!("tensor `{name}` holds {other}, not F16, BF16, F32 or F64"));
                return Err(error.hint("save it with .float()"));
            }
        };
        Ok(number.read(tensor.data(), Order::LittleEndian))
    }

    fn labels(&mut self, count: usize) -> Result<Vec<(String, Labels)>> {
        let size = |dtype: Dtype| match dtype {
            Dtype::U8 | Dtype::I8 => Some(1),
            Dtype::U16 | Dtype::I16 => Some(2),
            Dtype::U32 | Dtype::I32 => Some(4),
            Dtype::U64 | Dtype::I64 => Some(8),
            _ => None,
        };
        let mut labels = Vec::new();
        for (name, tensor) in self.0.iter().filter(|(_, tensor)| tensor.shape() == [count]) {
            let Some(size) = size(tensor.dtype()) else { continue };
            let signed = matches!(tensor.dtype(), Dtype::I8 | Dtype::I16 | Dtype::I32 | Dtype::I64);
            let numbers = tensor.data().chunks_exact(size).map(|bytes| integer(bytes, signed)).collect();
            labels.push((name.to_owned(), Labels::Numbers(numbers)));
        }
        Ok(labels)
    }
}
