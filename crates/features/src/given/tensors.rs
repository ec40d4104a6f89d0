//! A file of named tensors, whatever its format, becomes rows.

use half::{bf16, f16};
use stage::{Error, Result};
use std::borrow::Cow;

/// How a number is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Number {
    F16,
    Bf16,
    F32,
    F64,
}

/// Which byte of a number comes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Order {
    #[default]
    LittleEndian,
    BigEndian,
}

impl Order {
    /// The bytes of numbers of `size` bytes each, the lowest first.
    pub(super) fn little(self, bytes: &[u8], size: usize) -> Cow<'_, [u8]> {
        match self {
            Order::LittleEndian => bytes.into(),
            Order::BigEndian => {
                bytes.chunks_exact(size).flat_map(|number| number.iter().rev()).copied().collect()
            }
        }
    }
}

impl Number {
    /// Bytes per number.
    pub(super) fn size(self) -> usize {
        match self {
            Number::F16 | Number::Bf16 => 2,
            Number::F32 => 4,
            Number::F64 => 8,
        }
    }

    /// The numbers in `bytes`, a whole number of them.
    pub(super) fn read(self, bytes: &[u8], order: Order) -> Vec<f32> {
        let bytes = order.little(bytes, self.size());
        match self {
            Number::F16 => bytes.as_chunks().0.iter().map(|b| f16::from_le_bytes(*b).to_f32()).collect(),
            Number::Bf16 => bytes.as_chunks().0.iter().map(|b| bf16::from_le_bytes(*b).to_f32()).collect(),
            Number::F32 => bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
            Number::F64 => bytes.as_chunks().0.iter().map(|b| f64::from_le_bytes(*b) as f32).collect(),
        }
    }
}

/// What stands beside a matrix, one for each of its rows, and may say whose they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Labels {
    Texts(Vec<String>),
    Numbers(Vec<i64>),
    /// Something that is not read.
    Unread(&'static str),
}

impl Labels {
    /// How many there are; what is not read is not counted.
    pub(super) fn len(&self) -> usize {
        match self {
            Labels::Texts(texts) => texts.len(),
            Labels::Numbers(numbers) => numbers.len(),
            Labels::Unread(_) => 0,
        }
    }

    /// Whether they say nothing about the order of the rows: ids that count up, or a mask of zeros and ones.
    fn say_nothing(&self) -> bool {
        match self {
            Labels::Numbers(numbers) => {
                (0..).zip(numbers).all(|(i, number)| i == *number)
                    || numbers.iter().all(|n| matches!(n, 0 | 1))
            }
            Labels::Texts(_) | Labels::Unread(_) => false,
        }
    }
}

/// Named tensors of which only the names and shapes have been read.
pub(super) trait Tensors {
    /// Names and shapes, sorted by name.
    fn list(&self) -> Vec<(String, Vec<usize>)>;
    /// The numbers of one of them, its last axis fastest.
    fn read(&mut self, name: &str) -> Result<Vec<f32>>;
    /// What is no floating-point number and has one axis of this many; with its name.
    fn labels(&mut self, count: usize) -> Result<Vec<(String, Labels)>>;
}

/// What a file gives.
#[derive(Clone, Debug, PartialEq)]
pub struct Rows {
    /// The row's entities by key; where it is empty, rows are in an order that somebody else knows.
    pub keys: Vec<String>,
    /// How many rows.
    pub count: usize,
    /// Numbers per row.
    pub width: usize,
    /// `(row, width)`; may hold numbers that are not finite.
    pub values: Vec<f32>,
}

/// Which rows of a file are asked for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wanted<'a> {
    /// The tensor's name; the only one with two axes where it is left out.
    pub tensor: Option<&'a str>,
    /// Whether the recipe names the rows: then nothing that stands beside them is looked at.
    pub keyed: bool,
}

/// The rows of the tensor that is wanted; without its name those of the only one with two axes, or one row from each where
/// all have one axis and are named like entities. Texts that stand beside a matrix, one for each row, are its keys.
pub(super) fn rows(tensors: &mut dyn Tensors, wanted: Wanted) -> Result<Rows> {
    let list = tensors.list();
    let matrices: Vec<&(String, Vec<usize>)> = list.iter().filter(|(_, shape)| shape.len() == 2).collect();
    let is_row = |shape: &[usize]| matches!(shape, [_] | [1, _]);
    match (wanted.tensor, list.as_slice(), matrices.as_slice()) {
        (_, [], _) => Err(Error::data("no tensors at all")),
        (Some(name), ..) => {
            let missing = || Error::data(format!("no tensor `{name}`, but {}", names(&list)));
            let (name, shape) = list.iter().find(|(other, _)| other == name).ok_or_else(missing)?;
            matrix(tensors, name, shape, wanted.keyed)
        }
        (None, _, [(name, shape)]) | (None, [(name, shape)], _) => matrix(tensors, name, shape, wanted.keyed),
        (None, ..) if list.iter().all(|(_, shape)| is_row(shape)) => by_key(tensors, list),
        (None, _, matrices) => {
            let message = format!("{} tensors with two axes among {}", matrices.len(), names(&list));
            Err(Error::data(message).hint("name one with `tensor` in the recipe"))
        }
    }
}

/// The first names.
fn names(list: &[(String, Vec<usize>)]) -> String {
    const MOST: usize = 8;
    let mut names: Vec<&str> = list.iter().take(MOST).map(|(name, _)| name.as_str()).collect();
    let more = format!("{} more", list.len().saturating_sub(MOST));
    if list.len() > MOST {
        names.push(&more);
    }
    names.join(", ")
}

fn matrix(tensors: &mut dyn Tensors, name: &str, shape: &[usize], keyed: bool) -> Result<Rows> {
    let &[count, width] = shape else { return Err(wrong_shape(name, shape)) };
    if width == 0 {
        return Err(wrong_shape(name, shape));
    }
    require_memory([shape])?;
    let keys = if keyed { Vec::new() } else { keys_beside(tensors, count)? };
    Ok(Rows { keys, count, width, values: tensors.read(name)? })
}

/// The keys of `count` rows, where something beside them names them.
///
/// # Errors
/// Where something beside them seems to say whose they are, but not by key.
fn keys_beside(tensors: &mut dyn Tensors, count: usize) -> Result<Vec<String>> {
    let mut labels = tensors.labels(count)?;
    labels.retain(|(_, labels)| !labels.say_nothing());
    let unclear = |name: &str, what: &str| {
        let error =
            Error::data(format!("`{name}` beside the rows holds {what}: does it say whose they are?"));
        error.hint("write the keys of the rows' entities to a file, one a line, and name it with `keys` in the recipe")
    };
    match labels.as_slice() {
        [] => Ok(Vec::new()),
        [(_, Labels::Texts(keys))] => Ok(keys.clone()),
        [(name, Labels::Numbers(_)), ..] => Err(unclear(name, "a whole number for each")),
        [(name, Labels::Unread(what)), ..] => Err(unclear(name, what)),
        [(name, Labels::Texts(_)), ..] => Err(unclear(name, "a text for each, and something else does, too")),
    }
}

fn wrong_shape(name: &str, shape: &[usize]) -> Error {
    let error = Error::data(format!("tensor `{name}` has shape {shape:?}, expected (entity, width)"));
    match shape {
        [_] => error.hint("in Python: one number for each entity is features.reshape(-1, 1)"),
        [_, _, _, ..] => error.hint("in Python: features.reshape(len(features), -1)"),
        _ => error,
    }
}

fn by_key(tensors: &mut dyn Tensors, list: Vec<(String, Vec<usize>)>) -> Result<Rows> {
    require_memory(list.iter().map(|(_, shape)| shape.as_slice()))?;
    let width_of = |shape: &[usize]| shape.last().copied().unwrap_or_default();
    let (first, width) = (list[0].0.clone(), width_of(&list[0].1));
    if width == 0 {
        return Err(wrong_shape(&first, &list[0].1));
    }
    let mut rows = Rows { keys: Vec::new(), count: list.len(), width, values: Vec::new() };
    for (name, shape) in list {
        if width_of(&shape) != width {
            let message = format!("`{name}` has {} numbers, but `{first}` has {width}", width_of(&shape));
            return Err(Error::data(message));
        }
        rows.values.extend(tensors.read(&name)?);
        rows.keys.push(name);
    }
    Ok(rows)
}

/// As numbers, and once more as they are stored.
fn require_memory<'a>(shapes: impl IntoIterator<Item = &'a [usize]>) -> Result<()> {
    let count =
        |shape: &[usize]| shape.iter().fold(1u64, |product, axis| product.saturating_mul(*axis as u64));
    let total = shapes.into_iter().fold(0u64, |sum, shape| sum.saturating_add(count(shape)));
    let knob = "use a machine with more memory, or features with fewer columns";
    stage::resources::require_memory(total.saturating_mul(12), "reading the features", knob)
}
